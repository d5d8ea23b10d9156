"""What the attempts of a scenario do: each makes one call after another.

What an attempt gives names it, over and over, so that every part of what comes of a call tells
whose values are in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from manta.node.plane.collectives.messages import CallName
from manta.node.plane.requests import ALIGNED, CallCollective, Leaf
from manta.protocol.base import Instance
from manta.protocol.states import AttemptState
from manta.transports.collectives.calls import Kind
from tests.simulation.collective_planes import Asked, Plane

if TYPE_CHECKING:
    from tests.simulation.collectives import Node

ATTEMPTS = 30
"""Of an instance in an iteration; then it is given up."""
FOREVER = 1e9
LET_GO = "is kept no longer on n"
KINDS = (
    Kind.ALL_REDUCE,
    Kind.ALL_REDUCE,
    Kind.REDUCE_SCATTER,
    Kind.ALL_GATHER,
    Kind.GATHER,
    Kind.SCATTER,
    Kind.BARRIER,
)
ALIKE = (Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.BARRIER)
"""Kinds of which all get the same."""
Given = tuple[int, int]
"""A rank, and which attempt of it."""


@dataclass(frozen=True)
class Planned:
    """A call of all instances."""

    kind: Kind
    root: int
    goes_on: bool
    dtype: str
    times: int
    """How often values repeat what they say."""

    @classmethod
    def of(cls, random: Random, size: int, goes_on: float) -> Planned:
        """`goes_on`: how likely it goes on without those that are lost."""
        kind = random.choice(KINDS)
        goes = kind in ALIKE and random.random() < goes_on
        dtype = random.choice(("int32", "float32"))
        return cls(kind, random.randrange(size), goes, dtype, random.choice((1, 1, 4)))

    @property
    def gives_alike(self) -> bool:
        return self.kind in ALIKE


@dataclass(frozen=True)
class Outcome:
    """What came of a call."""

    values: tuple[bytes, ...]
    lost: tuple[int, ...]
    given: tuple[Given, ...]
    """Whose values are in it."""


REFUSED = Outcome((b"refused",), (), ())
"""What comes of a call for which a node has no room: of one of which all get the same, at all."""


class Program:
    """An attempt."""

    def __init__(self, node: Node, at: Instance) -> None:
        self.node, self.at = node, at
        self.scenario, self.clock = node.scenario, node.clock
        self.judge = node.scenario.judge
        self.calls = self.scenario.calls[at.iteration]
        self.got: list[Outcome] = []
        self.plane: Plane | None = None
        """Which it met in its first call."""
        self.asked: Asked | None = None
        self.since = 0.0
        """When it asked."""
        self.is_over = False
        self.clock.soon(self.scenario.pace, self._go_on)

    @property
    def number(self) -> int:
        return len(self.got)

    def _go_on(self) -> None:
        if self.is_over:
            return
        if self.number == len(self.calls):
            self.scenario.manager.got[self.at] = self.got
            self.node.end(self, AttemptState.FINISHED)
            return
        if not self.node.plane.is_alive:  # it is begun again
            self.clock.soon(0.5, self._go_on)
            return
        self.plane = self.node.plane
        body, value = self._call(self.calls[self.number])
        self.asked = Asked(self.at, body, value, self._ended)
        self.since = self.clock.now
        self.judge.asks(self.at, self.number, self.plane)
        self.plane.ask(self.asked)

    def _ended(self, values: list[tuple[int, bytes]], lost: dict[int, str], error: str) -> None:
        assert self.asked is not None, "it was answered twice"
        assert self.plane is not None
        self.asked = None
        if self.is_over:
            return
        planned = self.calls[self.number]
        self.clock.note(self.node.name, f"{self.at} {planned.kind.value}: {error or 'done'} {lost}")
        if error.startswith("SwarmStopped: "):
            assert self.at not in self.scenario.manager.desired(self.node.name)
            return  # it is about to be ended
        if error.startswith("ResourceExhaustionError: "):
            assert self.scenario.lacks_room, error
            self.clock.seen["refused"] += 1
            self._has_got(planned, REFUSED)  # and goes on without what comes of it
            return
        if LET_GO in error:
            assert self.scenario.lacks_room, error
            self.scenario.manager.has_let_go = True
            self.clock.soon(0.1, self._failed)
            return
        if error:
            self.judge.failed(self.at, self.number, planned, self.plane, error)
            self._check_lost(error)
            self.clock.soon(0.1, self._failed)
            return
        if self._settles(planned):
            for rank in range(1, self.scenario.size, 2):
                assert (self.at.iteration, rank, self.number) in self.scenario.settled
        given = self._given(planned, values, lost)
        outcome = Outcome(tuple(data for _, data in values), tuple(sorted(lost)), tuple(given))
        self._has_got(planned, outcome)

    def _has_got(self, planned: Planned, outcome: Outcome) -> None:
        assert self.plane is not None
        self.judge.answered(self.at, self.number, planned, self.plane, outcome)
        self.got.append(outcome)
        self.clock.soon(self.scenario.pace, self._go_on)

    def _check_lost(self, error: str) -> None:
        """While no node is lost, planes that begin anew cost no attempt of others, but where what
        came of the call is nowhere, and what was given can't be given again."""
        manager = self.scenario.manager
        if manager.has_lost:
            return
        assert manager.forgot, f"nothing was lost for good: {error}"
        holders = [name for name, node in self.scenario.nodes.items() if self._is_held(node)]
        assert not holders, f"{holders} have what came of it: {error}"

    def _is_held(self, node: Node) -> bool:
        """Has its plane the outcome of this call, as all get it?"""
        name = CallName(self.at.iteration, self.at.alias, self.number)
        call = node.plane.desk.calls.get(name) if node.plane.is_alive else None
        return call is not None and call.meeting.machine.outcome is not None

    def _settles(self, planned: Planned) -> bool:
        return self.scenario.settles and planned.gives_alike and not planned.goes_on

    def _failed(self) -> None:
        if not self.is_over:
            self.node.end(self, AttemptState.FAILED)

    # --- what is given, and what comes of it --------------------------------------------------

    def _call(self, planned: Planned) -> tuple[CallCollective, bytes]:
        kind, size, rank = planned.kind, self.scenario.size, self.at.index
        sizes: list[int] = []
        leaves: tuple[Leaf, ...] = ()
        value = b""
        if kind.reduces:
            one = np.zeros((planned.times, size, ATTEMPTS), planned.dtype)
            one[:, rank, self.at.attempt] = 1
            parts = [one.tobytes()] * (size if kind is Kind.REDUCE_SCATTER else 1)
            value, sizes = b"".join(parts), [len(part) for part in parts]
            leaves = (Leaf(0, len(value), planned.dtype, "value", planned.dtype, ""),)
        elif kind in (Kind.ALL_GATHER, Kind.GATHER):
            value = self._text(rank, self.at.attempt, rank)
            sizes = [len(value)]
        elif kind is Kind.SCATTER and rank == planned.root:
            texts = [self._text(rank, self.at.attempt, to) for to in range(size)]
            sizes = [len(text) for text in texts]
            value = b"".join(text.ljust(-(-len(text) // ALIGNED) * ALIGNED) for text in texts)
        body = CallCollective(
            n=1,
            number=self.number,
            kind=kind,
            words=f"{kind.value}()",
            timeout=FOREVER,
            root=planned.root if kind.has_root else 0,
            goes_on=planned.goes_on,
            op="sum" if kind.reduces else "",
            leaves=leaves,
            sizes=tuple(sizes),
            settles=self._settles(planned) and rank % 2 == 1,
        )
        return body, value

    def _text(self, by: int, attempt: int, to: int) -> bytes:
        """Says whose it is, and for whom."""
        said = f"{self.at.iteration} {self.number} {by} {attempt} {to} ".encode()
        times = self.calls[self.number].times
        return said * Random(f"{said!r}").randint(1, 1 + 8 * (times - 1))

    def _given(
        self, planned: Planned, values: list[tuple[int, bytes]], lost: dict[int, str]
    ) -> list[Given]:
        """Whose values are in it: of each member that is, of one attempt, once, and in whole."""
        kind, rank, size = planned.kind, self.at.index, self.scenario.size
        everybody = set(range(size)) - lost.keys()
        if kind is Kind.BARRIER or (kind is Kind.GATHER and rank != planned.root):
            assert values == []
            return []
        if kind.reduces:
            ((_, data),) = values
            counts = np.frombuffer(data, planned.dtype).reshape(planned.times, size, ATTEMPTS)
            here = [float(one in everybody) for one in range(size)]
            assert all(one.sum(1).tolist() == here for one in counts), "not everybody counts once"
            assert (counts == counts[0]).all(), "several attempts of a member are in it"
            return [(int(one), int(at)) for one, at in zip(*counts[0].nonzero(), strict=True)]
        found = []
        for whose, data in values:
            _, _, by, attempt, to = map(int, data.split()[:5])
            assert (by, to) == ((planned.root, rank) if kind is Kind.SCATTER else (whose, whose))
            assert data == self._text(by, attempt, to), "it is not what was given"
            found.append((by, attempt))
        if kind is not Kind.SCATTER:
            assert [by for by, _ in found] == sorted(everybody)
        return found
