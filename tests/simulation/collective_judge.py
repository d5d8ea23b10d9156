"""What may come of a call, by what has happened.

| what | is |
|---|---|
| an outcome without a member | of a call that goes on, and the member was lost |
| `PeerLost` | about members that were lost, and whose next attempts were not known yet where the \
call was made |
| `PeerLost` of a call that goes on | told where the call was begun anew |
| `PeerLost` where it was refused | of a call that can come to nothing either way |
| that others go on without who is told it | told to one that was lost, or is not the last attempt |
| two outcomes of which all get the same | the same bits of the same members, as long as the plane \
that gave the first was not lost, and the attempt that got it counts or asked the same plane |
| a value in an outcome | of an attempt that made the call; where its plane forgot nothing, of \
the first that did |
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from manta.node.plane.collectives.losses import LOST
from manta.protocol.base import Instance
from manta.protocol.states import AttemptState
from tests.simulation.collective_planes import Plane
from tests.simulation.collective_programs import REFUSED, Outcome, Planned
from tests.simulation.network import Clock

FINISHED = "it has finished without that call"
NAMED = re.compile(r"\bt\.(\d+)(?: on (\w+))?(?: \(([^)]*)\))?")
"""A member, its node, and why it is lost."""
ELSEWHERE = re.compile(r"goes on without what is on (\w+)")
"""A node that was lost: it tells others of the call that it can't go on with it."""


class Told(Protocol):
    """What a manager knows."""

    era: int
    places: list[str]
    numbers: list[int]
    states: list[AttemptState]
    given_up: dict[int, str]

    def counts(self, at: Instance) -> bool:
        """Is it the attempt that is to end, on a node that is there?"""

    def has_result(self, at: Instance) -> bool:
        """Is it, or has it finished?"""


@dataclass(frozen=True)
class Loss:
    """Of an attempt, or of what it gave."""

    rank: int
    attempt: int
    node: str
    reasons: tuple[str, ...]
    """As they may be said."""
    is_final: bool
    """No next attempt makes up for it."""


@dataclass(frozen=True)
class Ask:
    at: Instance
    plane: Plane
    knew: tuple[int, ...]
    """By rank: the last attempt that the roster had there."""


@dataclass
class Answer:
    at: Instance
    plane: Plane
    outcome: Outcome
    is_there: bool = True
    """Does its plane have it yet, for all that is known, and was not lost?"""


class Judge:
    """Of one iteration at a time."""

    def __init__(self, clock: Clock, told: Told) -> None:
        self._clock = clock
        self._told = told
        self._losses: list[Loss] = []
        self._asks: dict[int, list[Ask]] = defaultdict(list)
        """By number of the call."""
        self._answers: dict[int, list[Answer]] = defaultdict(list)
        self._former: dict[tuple[int, str], int] = {}
        """By member and node where it was: its last attempt there."""
        self._forgetful: set[int] = set()
        """Members whose planes may have forgotten what they gave."""

    def begin(self) -> None:
        self._losses.clear()
        self._asks.clear()
        self._answers.clear()
        self._former.clear()
        self._forgetful.clear()

    # --- what happens -------------------------------------------------------------------------

    def node_lost(self, name: str, *, for_good: bool) -> None:
        """The manager takes it for lost; `for_good`: nothing takes the place of what ran there."""
        told = self._told
        for rank, place in enumerate(told.places):
            if place == name:
                is_final = for_good or told.states[rank].final
                has_finished = told.states[rank] is AttemptState.FINISHED
                whys = (LOST, FINISHED) if has_finished else (LOST,)
                self._lose(rank, name, whys, is_final=is_final)
        for (rank, node), attempt in self._former.items():
            if node == name:  # some may not have heard yet that it is elsewhere
                self._losses.append(Loss(rank, attempt, name, (LOST,), is_final=False))
        self._forget(name)

    def plane_died(self, name: str) -> None:
        """What it had is in its memory no longer."""
        self._forget(name)

    def gone(self, name: str, ended: Sequence[int]) -> None:
        """What these members gave, who had ended there, may be nowhere: they will not give it
        again."""
        for rank in ended:
            self._lose(rank, name, (FINISHED,), is_final=True)

    def gives_up(self, rank: int) -> None:
        self._lose(rank, self._told.places[rank], (self._told.given_up[rank],), is_final=True)

    def moves(self, rank: int, before: str) -> None:
        """Its next attempt is elsewhere. A plane forgets calls of which no member is there."""
        self._former[rank, before] = self._told.numbers[rank] - 1
        self._forgetful.add(rank)
        self._forget(before, rank)

    def _lose(self, rank: int, node: str, reasons: tuple[str, ...], *, is_final: bool) -> None:
        number = self._told.numbers[rank]
        self._losses.append(Loss(rank, number, node, reasons, is_final))

    def _forget(self, name: str, member: int | None = None) -> None:
        """All that the plane gave, or what it gave to that member."""
        if member is None:
            places = enumerate(self._told.places)
            self._forgetful.update(rank for rank, place in places if place == name)
        for answers in self._answers.values():
            for one in answers:
                if one.plane.name == name and member in (None, one.at.index):
                    one.is_there = False

    # --- what is called, and what comes of it -------------------------------------------------

    def asks(self, at: Instance, number: int, plane: Plane) -> None:
        roster, knew = plane.desk.roster, tuple[int, ...]()
        if roster is not None and roster.iteration == at.iteration:
            (task,) = roster.tasks.values()
            knew = tuple(one.attempt for one in task.instances)
        self._asks[number].append(Ask(at, plane, knew))

    def answered(
        self, at: Instance, number: int, planned: Planned, plane: Plane, outcome: Outcome
    ) -> None:
        if at.iteration != self._told.era:
            return
        answers = self._answers[number]
        for rank, attempt in outcome.given:
            self._check_given(number, rank, attempt)
        if outcome.lost and not any(one.outcome == outcome for one in answers):
            assert planned.goes_on, f"{planned.kind} goes on without {outcome.lost}"
            assert any(
                all(self._has_lost(one, rank) for rank in outcome.lost)
                for one in self._asks[number]  # also of who has failed meanwhile
            ), f"{at}: it goes on without {outcome.lost}, of whom not all were lost"
        if self._told.counts(at):
            if planned.gives_alike:
                for one in answers:
                    if one.is_there and (one.plane is plane or self._told.has_result(one.at)):
                        assert one.outcome == outcome, (
                            f"{at} got of call {number} what {one.at} did not: "
                            f"{outcome} {one.outcome}"
                        )
            answers.append(Answer(at, plane, outcome))

    def _check_given(self, number: int, rank: int, attempt: int) -> None:
        asked = [one.at.attempt for one in self._asks[number] if one.at.index == rank]
        assert attempt in asked, f"attempt {attempt} of {rank} never made call {number}"
        if rank not in self._forgetful:
            got = [one.at.attempt for one in self._answers[number] if one.at.index == rank]
            assert attempt <= min(got, default=attempt), f"{rank} gave twice to call {number}"

    def failed(self, at: Instance, number: int, planned: Planned, plane: Plane, error: str) -> None:
        if at.iteration != self._told.era:
            return
        assert error.startswith("PeerLost: "), error
        self._clock.seen["PeerLost"] += 1
        ask, sentence = self._last_ask(at, number), error.partition(": ")[2]
        if self._is_left_out(ask, sentence):
            return
        named = NAMED.findall(sentence)
        assert named, f"{at} is not told who was lost: {error}"
        for rank, node, why in named:
            assert self._has_lost(ask, int(rank), node, why), f"{at}: {rank} was not lost: {error}"
        if planned.goes_on:
            repeated = {one.at.index for one in self._asks[number] if one.at.attempt}
            assert repeated, f"{at}: the call goes on without whoever is lost: {error}"
        answers = [one for one in self._answers[number] if one.outcome != REFUSED]
        has_it = [one for one in answers if one.is_there and planned.gives_alike]
        if self._told.counts(at):
            assert not any(one.plane is plane for one in has_it), f"{at}: it is there: {error}"

    def _is_left_out(self, ask: Ask, sentence: str) -> bool:
        """Do others go on without the attempt that is told, because it was lost itself, or is
        not the last?"""
        if not re.search("goes on without|begun anew with its instances on other nodes", sentence):
            return False
        at, node = ask.at, ask.plane.name
        if at.attempt != self._told.numbers[at.index] or node != self._told.places[at.index]:
            return True
        out = ELSEWHERE.search(sentence)
        assert any(
            (one.rank, one.attempt, one.node) == (at.index, at.attempt, node)
            or (out is not None and self._has_lost(ask, one.rank, out[1]))
            for one in self._losses
        ), f"{at} on {node} was never lost: {sentence}"
        return True

    def _last_ask(self, at: Instance, number: int) -> Ask:
        return next(one for one in reversed(self._asks[number]) if one.at == at)

    def _has_lost(self, ask: Ask, rank: int, node: str = "", why: str = "") -> bool:
        """Could a call that is made there see that the member was lost?"""
        for loss in self._losses:
            is_it = loss.rank == rank and node in ("", loss.node)
            whys = {why for one in self._losses if one.node == loss.node for why in one.reasons}
            is_why = why in ("", LOST, *whys)  # one is told for all members of a node
            is_known = rank < len(ask.knew) and ask.knew[rank] > loss.attempt
            if is_it and is_why and (loss.is_final or not is_known):
                return True
        return False
