"""A few linked planes, whose members call and whose nodes come and go one step after another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from manta.node.plane.collectives import pieces
from manta.node.plane.requests import ALIGNED, CallCollective, Leaf
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Kind
from tests.simulation.collective_planes import EPOCH, Asked, Plane
from tests.simulation.network import SWARM, Clock
from tests.support.collective_calls import INLINE, small_sizes

LARGE = 40 * INLINE
"""Bytes that are moved as bulk, in several steps."""
RUNNING, FINISHED = AttemptState.RUNNING, AttemptState.FINISHED


class Lab:
    """Planes that are linked, and know each other; one task's members call on them."""

    def __init__(self, *names: str, seed: int = 1, shares: bool = False) -> None:
        """`shares`: as of a `Plane`."""
        self.clock = Clock(seed)
        self.net: dict[str, Plane] = {}
        self._shares = shares
        for name in names:
            Plane(self.clock, name, self.net, shares=shares)
        self.introduce(names)
        self.link()
        self.size = 0
        """Of the task."""
        self.outcomes: dict[tuple[int, int, int], Any] = {}
        """By rank, attempt and number of a call."""

    def introduce(self, names: Collection[str], to: Collection[str] | None = None) -> None:
        """To all of them, or some."""
        for name in names if to is None else to:
            self.net[name].introduced(names)

    def link(self, *others: str) -> None:
        """All, or all but those with these."""
        for one, other in combinations(self.net, 2):
            if not {one, other} & {*others}:
                self.net[one].dial(other)

    def cut(self, one: str, other: str) -> None:
        for connection in self.net[one].begun:
            if connection.other(self.net[one]) is self.net[other]:
                connection.cut()

    def restart(self, name: str) -> None:
        """Its plane crashes, and another one takes its disk up; it is yet to be told anything."""
        self._crash(name)
        self.run(1.0)  # all links with it are down
        self._begin(name)

    def restart_at_once(self, name: str) -> None:
        """The same, of one that is told who is there and linked before others notice."""
        self._crash(name)
        self._begin(name)
        self.introduce([*self.net], to=[name])
        for other in self.net:
            if other != name:
                self.net[name].dial(other)

    def _crash(self, name: str) -> None:
        self.net[name].crash()

    def _begin(self, name: str) -> None:
        Plane(self.clock, name, self.net, self.net[name].disk, shares=self._shares)

    def tell(
        self,
        places: Sequence[str],
        attempts: Sequence[int] | None = None,
        to: Collection[str] | None = None,
        finished: Collection[int] = (),
        given_up: Collection[int] = (),
        stays: Sequence[int] = (),
    ) -> None:
        """The roster, to all or some."""
        instances = tuple(
            RosterInstance(
                rank,
                place,
                place,
                0 if attempts is None else attempts[rank],
                FINISHED if rank in finished else RUNNING,
                "it was lost" if rank in given_up else "",
                stay=stays[rank] if stays else 0,
            )
            for rank, place in enumerate(places)
        )
        self.size = len(places)
        task = RosterTask("t", "RUNNING", self.size, instances=instances)
        for name in self.net if to is None else to:
            self.net[name].told(Roster(EPOCH, 0, {"t": task}, {}))

    def call(
        self,
        rank: int,
        place: str,
        attempt: int = 0,
        kind: Kind = Kind.ALL_GATHER,
        size: int = 4,
        number: int = 0,
        goes_on: bool = False,
        root: int = 0,
        refusal: str = "",
        settles: bool = False,
    ) -> Asked:
        """What is given names the attempt. `refusal`: why the node does not take it. `settles`: the
        attempt has written before it."""
        given = kind is not Kind.BARRIER and (kind is not Kind.SCATTER or rank == root)
        times = self.size if kind in (Kind.SCATTER, Kind.REDUCE_SCATTER) else 1
        sizes = (size,) * times if given else ()
        leaves = (Leaf(0, sum(sizes), "int32", "value", "int32", ""),) if kind.reduces else ()
        body = CallCollective(
            n=1,
            number=number,
            kind=kind,
            words=f"{kind.value}()",
            timeout=1e9,
            root=root,
            goes_on=goes_on,
            op="sum" if kind.reduces else "",
            leaves=leaves,
            sizes=sizes,
            settles=settles,
        )
        at = Instance(SWARM, "t", rank, 0, attempt)
        value = value_of(rank, attempt, size) if given else b""
        if kind.reduces:
            value = np.full(sum(sizes) // 4, 10 * rank + attempt, "int32").tobytes()
        elif kind is Kind.SCATTER:
            value = value.ljust(-(-size // ALIGNED) * ALIGNED) * times if given else b""

        def answered(*answer: Any) -> None:
            self.outcomes[rank, attempt, number] = answer

        asked = Asked(at, body, value, answered)
        asked.refusal = refusal
        self.net[place].ask(asked)
        return asked

    def until(self, *came: tuple[int, int] | tuple[int, int, int]) -> None:
        wanted = {(*one, 0)[:3] for one in came}
        self.clock.run(partial(wanted.issubset, self.outcomes.keys()))

    def until_any(self, *wanted: set[tuple[int, int]]) -> None:
        def came() -> bool:
            return any(one <= {(rank, at) for rank, at, _ in self.outcomes} for one in wanted)

        self.clock.run(came)

    def run(self, seconds: float) -> None:
        until = self.clock.now + seconds
        self.clock.after(seconds, lambda: None)
        self.clock.run(lambda: self.clock.now >= until)

    def got(self, rank: int, attempt: int = 0, number: int = 0) -> dict[int, bytes]:
        """By rank."""
        values, _, error = self.outcomes[rank, attempt, number]
        assert error == ""
        return dict(values)

    def lost(self, rank: int, attempt: int = 0, number: int = 0) -> list[int]:
        """Who is not in what came of it."""
        _, lost, error = self.outcomes[rank, attempt, number]
        assert error == ""
        return sorted(lost)

    def error(self, rank: int, attempt: int = 0, number: int = 0) -> str:
        return self.outcomes[rank, attempt, number][2]

    def errors(self, number: int = 0) -> dict[tuple[int, int], str]:
        """Their kinds, by rank and attempt; of whoever was answered."""
        return {
            (rank, attempt): error.partition(":")[0]
            for (rank, attempt, of), (_, _, error) in self.outcomes.items()
            if of == number
        }

    def close(self) -> None:
        for plane in self.net.values():
            plane.desk.close()
            plane.pool.close()
            assert plane.budget.sizes == (0, 0)


Make = Callable[..., Lab]


def value_of(rank: int, attempt: int, size: int) -> bytes:
    return f"{rank}.{attempt} ".encode().ljust(size, b".")


@contextmanager
def labs(*, shares: bool) -> Iterator[Make]:
    """Makes one of nodes with these names, with small sizes; all are closed in the end."""
    made: list[Lab] = []

    def lab(*names: str, seed: int = 1) -> Lab:
        made.append(Lab(*names, seed=seed, shares=shares))
        return made[-1]

    with small_sizes(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "INLINE", 8 * INLINE)
        yield lab
        while made:
            made.pop().close()
