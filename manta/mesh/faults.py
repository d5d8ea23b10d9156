"""Faults of links that an experiment asks for, by seed. Pure.

A plan is described in a form that JSON has; what is left out does not happen:

    {
        "seed": 7,
        "loss": 0.1,
        "delay": {"distribution": "uniform", "least": 0.01, "most": 0.05},
        "partitions": [{"sides": [[0, 1, 2], [3, 4]], "from": 10, "until": 20}]
    }

`loss` is the probability with which a message is lost. `delay` is how many seconds later one
arrives: a number, or a distribution: "uniform" from `least` to `most`, or "exponential" with a
`mean`, from `least` on, which is 0 unless it is said. `partitions` keep ranks on different sides
from each other, from one moment until another, in seconds since the experiment began; without
`until`, for ever. The ranks that no side names are a side of their own.

What becomes of a message is drawn by the seed, its sender, its receiver, and which of the sender's
messages to the receiver it is. So it does not depend on when or in which order peers send; only
partitions depend on the time. Each message is delayed on its own and may be overtaken: order is the
affair of whoever needs it.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

from manta.roster.chance import chance

LONGEST = 3600.0
"""Seconds by which a message may be delayed; what is drawn beyond that is cut to it."""
MOST_PARTITIONS = 1_000

_Probability = Annotated[float, Meta(ge=0, le=1)]
_Delay = Annotated[float, Meta(ge=0, le=LONGEST)]
_Moment = Annotated[float, Meta(ge=0, le=1e9)]
_Rank = Annotated[int, Meta(ge=0)]


class InvalidFaults(ValueError):
    """What was given does not describe faults; the message names the field and what it takes."""


class Uniform(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="distribution", tag="uniform"
):
    least: _Delay
    most: _Delay

    def drawn(self, chance: float) -> float:
        """Seconds, by a number from 0 to 1."""
        return self.least + chance * (self.most - self.least)


class Exponential(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="distribution", tag="exponential"
):
    mean: _Delay
    """With `least`."""
    least: _Delay = 0.0

    def drawn(self, chance: float) -> float:
        """Seconds, by a number from 0 up to, but not including, 1."""
        return min(LONGEST, self.least - (self.mean - self.least) * math.log1p(-chance))


class Partition(Struct, frozen=True, forbid_unknown_fields=True):
    sides: Annotated[
        tuple[Annotated[tuple[_Rank, ...], Meta(min_length=1)], ...], Meta(min_length=1)
    ]
    begins: _Moment = field(name="from", default=0.0)
    ends: _Moment | None = field(name="until", default=None)

    def parts(self, one: int, other: int, now: float) -> bool:
        """Whether it keeps two ranks from each other at that moment."""
        return self.begins <= now < (math.inf if self.ends is None else self.ends) and (
            self._side(one) != self._side(other)
        )

    def _side(self, rank: int) -> int | None:
        return next((number for number, side in enumerate(self.sides) if rank in side), None)


class Delivered(NamedTuple):
    """It arrives, so many seconds later."""

    delay: float = 0.0


class Dropped(NamedTuple):
    """`cause` is "loss" or "partition"."""

    cause: str


Fate = Delivered | Dropped


class Faults(Struct, frozen=True, forbid_unknown_fields=True):
    """The plan. `of` makes it of its form, and `form` the form of it."""

    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    loss: _Probability = 0.0
    delay: _Delay | Uniform | Exponential = 0.0
    partitions: Annotated[tuple[Partition, ...], Meta(max_length=MOST_PARTITIONS)] = ()

    @classmethod
    def of(cls, form: object) -> Faults:
        """Raises InvalidFaults."""
        try:
            faults = msgspec.convert(form, cls)
        except msgspec.ValidationError as error:
            problem, _, place = str(error).partition(" - at `$")
            where = f"faults{place.removesuffix('`')}"
            raise InvalidFaults(f"{where}: {problem[0].lower()}{problem[1:]}.") from None
        _check_delay(faults.delay)
        for number, partition in enumerate(faults.partitions):
            _check_partition(f"faults.partitions[{number}]", partition)
        return faults

    def form(self) -> dict[str, object]:
        """Returns what JSON has of it."""
        return msgspec.json.decode(msgspec.json.encode(self), type=dict[str, object])

    def fate(self, sender: int, receiver: int, number: int, now: float) -> Fate:
        """Says what becomes of a message between two ranks.

        `number` counts what the sender sent to the receiver, `now` seconds since the experiment
        began.
        """
        if any(partition.parts(sender, receiver, now) for partition in self.partitions):
            return Dropped("partition")
        name = (self.seed, sender, receiver, number)
        if chance("loss", *name) < self.loss:
            return Dropped("loss")
        if isinstance(self.delay, float | int):
            return Delivered(self.delay)
        return Delivered(self.delay.drawn(chance("delay", *name)))


def _check_delay(delay: float | Uniform | Exponential) -> None:
    if isinstance(delay, Uniform) and delay.most < delay.least:
        raise InvalidFaults(
            f"faults.delay.most: {delay.most:g} is less than `least`, {delay.least:g}: "
            "give the shorter as `least`."
        )
    if isinstance(delay, Exponential) and delay.mean < delay.least:
        raise InvalidFaults(
            f"faults.delay.mean: {delay.mean:g} is less than `least`, {delay.least:g}: "
            "the mean is that of whole delays, so give more."
        )


def _check_partition(where: str, partition: Partition) -> None:
    if partition.ends is not None and partition.ends <= partition.begins:
        raise InvalidFaults(
            f"{where}.until: {partition.ends:g} is not after `from`, {partition.begins:g}: "
            "give a later moment, or leave it out."
        )
    seen: set[int] = set()
    for number, side in enumerate(partition.sides):
        for rank in side:
            if rank in seen:
                raise InvalidFaults(
                    f"{where}.sides[{number}]: rank {rank} is there twice: name it on one side."
                )
            seen.add(rank)
