"""Which of the assignments that a node has taken may run now. Pure.

What can never fit is refused with the figures; what does not fit now waits. A task has what it
asked for before it starts, and until it has ended: nothing is taken from one that runs.

Of those that wait, the highest priority goes first. Among equals users have fair shares, and
among a user's tasks the swarms, then who came first goes first (`fair`). Three rules keep anyone
from waiting without end:

- A priority of which nothing has started for `turn` seconds, though something waits, has a turn.
- Whose turn it is, and for whom there is not enough left of something, is passed over by others,
  but for `patience` seconds at most: then what it lacks is kept for it, and it goes first.
- What waits and will never fit any more, as the machine has lost a GPU, is refused.

While the node is suspended, none is let in. Those that are alike wait in one line, so that
choosing does not take longer the more of them there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from manta.node.scheduling.fair import FairShares
from manta.node.scheduling.room import Asked, Capacity, Room
from manta.protocol.node import Assignment, Instance


class Start(msgspec.Struct, frozen=True):
    """Run it."""

    assignment: Assignment
    queued: float = 0.0
    """Seconds that it waited."""
    at: float = 0.0
    """When it was let in: a manager that was restored may want the same instance again."""
    gpus: tuple[str, ...] = ()
    """The ids of those that it has."""


class Refuse(msgspec.Struct, frozen=True):
    assignment: Assignment
    sentence: str


ReservationAction = Start | Refuse


@dataclass(slots=True)
class _Waiting:
    assignment: Assignment
    since: float
    order: int
    passed_at: float | None = None
    """When it was its turn, and there was not enough for it."""


class _Line(msgspec.Struct, frozen=True):
    """What those that are alike have in common."""

    priority: int
    user: str
    swarm_id: str
    asked: Asked


class Reservations:
    def __init__(
        self,
        capacity: Capacity,
        *,
        queue_bound: int = 100_000,
        patience: float = 60.0,
        turn: float = 60.0,
    ) -> None:
        self._room = Room(capacity)
        self._bound = queue_bound
        self._patience = patience
        self._turn = turn
        self._running: dict[Instance, tuple[_Line, float]] = {}
        """With when they began."""
        self._waiting: dict[Instance, _Line] = {}
        self._lines: dict[_Line, dict[Instance, _Waiting]] = {}
        self._stands: dict[int, float] = {}
        """By priority, of those that wait: since when nothing has started."""
        self._users = FairShares()
        self._swarms: dict[str, FairShares] = {}
        """By user."""
        self._count = 0
        self._suspended = False

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def gpu_room(self) -> tuple[int, ...]:
        """Of each GPU, in the order in which they were found, what no task has reserved."""
        return self._room.gpu_room

    def offer(self, assignment: Assignment, now: float) -> list[ReservationAction]:
        instance, asked = assignment.instance, Asked.of(assignment)
        if instance in self._running or instance in self._waiting:
            return []
        problem = self._room.never(asked)
        if not problem and len(self._waiting) >= self._bound:
            problem = f"{self._bound:,} tasks wait on this node already; add nodes"
        if problem:
            return [_refuse(assignment, problem)]
        self._count += 1
        line = _Line(assignment.priority, assignment.user, instance.swarm_id, asked)
        self._waiting[instance] = line
        self._lines.setdefault(line, {})[instance] = _Waiting(assignment, now, self._count)
        self._stands.setdefault(line.priority, now)
        return self._admit(now)

    def gpus_found(self, gpus: Iterable[tuple[str, int]], now: float) -> list[ReservationAction]:
        """The machine has these GPUs now: their ids and memory."""
        self._room.found(gpus)
        return self._room_changed(now)

    def may_take(self, capacity: Capacity, now: float) -> list[ReservationAction]:
        """Tasks may take as much from now on. What runs goes on; what can never fit any more is
        refused."""
        self._room.may_take(capacity)
        return self._room_changed(now)

    def _room_changed(self, now: float) -> list[ReservationAction]:
        refused = [
            _refuse(each.assignment, problem)
            for line, waiting in self._lines.items()
            if (problem := self._room.never(line.asked))
            for each in waiting.values()
        ]
        return [*refused, *self._admit(now)]

    def suspend(self, why: str) -> list[ReservationAction]:
        """The node cannot take work: what waits is given back, and may run elsewhere. What comes
        from now on waits, as it may have to run here."""
        if self._suspended:
            return []
        self._suspended = True
        waiting = [each for line in self._lines.values() for each in line.values()]
        waiting.sort(key=lambda each: each.order)
        return [_refuse(each.assignment, f"its node {why}") for each in waiting]

    def resume(self, now: float) -> list[ReservationAction]:
        self._suspended = False
        return self._admit(now)

    def ended(self, instance: Instance, now: float) -> list[ReservationAction]:
        """It gives back what it had; also for one that waited and was cancelled."""
        self._no_longer_waits(instance)
        share = self._room.give_back(instance)
        if (ran := self._running.pop(instance, None)) is not None:
            line, began = ran
            self._users.ended(line.user, share, now - began)
            self._swarms[line.user].ended(line.swarm_id, share, now - began)
        if not self._running and not self._waiting:  # what was taken is evened out
            self._users, self._swarms = FairShares(), {}
        return self._admit(now)

    def is_waiting(self, instance: Instance) -> bool:
        return instance in self._waiting

    def swarm_gone(self, swarm_id: str) -> None:
        """What it took need not be remembered."""
        for user in self._swarms.values():
            user.forget(swarm_id)

    def _admit(self, now: float) -> list[ReservationAction]:
        actions: list[ReservationAction] = []
        while (found := self._next(now)) is not None:
            line, waiting = found
            instance = waiting.assignment.instance
            self._no_longer_waits(instance)
            if line.priority in self._stands:  # others of it wait
                self._stands[line.priority] = now
            gpus = self._room.take(instance, line.asked)
            self._running[instance] = line, now
            share = self._room.share(instance)
            self._users.began(line.user, share)
            self._swarms.setdefault(line.user, FairShares()).began(line.swarm_id, share)
            actions.append(Start(waiting.assignment, now - waiting.since, now, gpus))
        return actions

    def _next(self, now: float) -> tuple[_Line, _Waiting] | None:
        if self._suspended or not self._waiting or not self._room.has_place:
            return None
        kept: frozenset[str] = frozenset()
        for line, first in sorted(self._firsts(), key=lambda one: self._rank(one[0], one[1], now)):
            if lacking := self._room.lacking(line.asked):
                first.passed_at = now if first.passed_at is None else first.passed_at
                if now - first.passed_at >= self._patience:
                    kept |= lacking
            elif not kept & line.asked.kinds:
                return line, first
        return None

    def _firsts(self) -> Iterable[tuple[_Line, _Waiting]]:
        return ((line, next(iter(waiting.values()))) for line, waiting in self._lines.items())

    def _rank(self, line: _Line, first: _Waiting, now: float) -> tuple[object, ...]:
        passed_at = now if first.passed_at is None else first.passed_at
        user = self._swarms.get(line.user)
        return (
            now - passed_at < self._patience,
            now - self._stands[line.priority] < self._turn,
            -line.priority,
            self._users.rank(line.user),
            (0.0, 0.0) if user is None else user.rank(line.swarm_id),
            first.order,
        )

    def _no_longer_waits(self, instance: Instance) -> None:
        line = self._waiting.pop(instance, None)
        if line is None:
            return
        del self._lines[line][instance]
        if not self._lines[line]:
            del self._lines[line]
            if all(other.priority != line.priority for other in self._lines):
                del self._stands[line.priority]


def _refuse(assignment: Assignment, problem: str) -> Refuse:
    return Refuse(assignment, f"{assignment.instance} was refused: {problem}.")
