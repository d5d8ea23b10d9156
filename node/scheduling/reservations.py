"""Which of the assignments that a node has taken may run now.

A node has a number of places, cores and memory. What can never fit is refused; what does
not fit now waits. Of those that wait, the highest priority goes first; among equals the
swarm that runs least here, then the one that was served longest ago, then who came first.
One that does not fit is passed over by smaller ones, until it has waited for `patience`
seconds: then what frees up is kept for it.

While the node is suspended, none is let in.

Those that wait are kept by priority and swarm, each group in the order in which they came,
so that choosing one does not take longer the more wait.
"""

from __future__ import annotations

import msgspec

from manta.protocol.node import Assignment, Instance
from manta.protocol.spec import ResourceSpec


class Start(msgspec.Struct, frozen=True):
    """Run it."""

    assignment: Assignment
    queued: float = 0.0
    """Seconds that it waited."""
    at: float = 0.0
    """When it was let in: a manager that was restored may want the same instance again."""


class Refuse(msgspec.Struct, frozen=True):
    assignment: Assignment
    sentence: str


ReservationAction = Start | Refuse


class Capacity(msgspec.Struct, frozen=True):
    """What tasks may use; None: not limited here."""

    places: int
    cpu: float | None = None
    memory: int | None = None


class _Waiting(msgspec.Struct, frozen=True):
    assignment: Assignment
    since: float
    order: int


_Group = tuple[int, str]
"""Priority and swarm."""


class Reservations:
    def __init__(
        self, capacity: Capacity, *, queue_bound: int = 100_000, patience: float = 60.0
    ) -> None:
        self._capacity = capacity
        self._bound = queue_bound
        self._patience = patience
        self._running: dict[Instance, Assignment] = {}
        self._waiting: dict[Instance, _Waiting] = {}
        self._groups: dict[_Group, dict[Instance, _Waiting]] = {}
        self._served: dict[str, int] = {}
        self._count = 0
        self._suspended = False

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def offer(self, assignment: Assignment, now: float) -> list[ReservationAction]:
        instance = assignment.instance
        if instance in self._running or instance in self._waiting:
            return []
        problem = self._never(assignment)
        if not problem and len(self._waiting) >= self._bound:
            problem = f"{self._bound} tasks wait on this node already; add nodes"
        if problem:
            return [Refuse(assignment, f"{instance} was refused: {problem}.")]
        self._count += 1
        waiting = _Waiting(assignment, now, self._count)
        self._waiting[instance] = waiting
        self._groups.setdefault(_group(assignment), {})[instance] = waiting
        return self._admit(now)

    def suspend(self, why: str) -> list[ReservationAction]:
        """The node cannot take work: what waits is given back, and may run elsewhere. What comes
        from now on waits, as it may have to run here."""
        if self._suspended:
            return []
        self._suspended = True
        waiting = [each.assignment for each in self._waiting.values()]
        return [Refuse(each, f"{each.instance} was refused: its node {why}.") for each in waiting]

    def resume(self, now: float) -> list[ReservationAction]:
        self._suspended = False
        return self._admit(now)

    def may_take(self, capacity: Capacity, now: float) -> list[ReservationAction]:
        """Tasks may take as much from now on. What runs goes on; what can never fit any more is
        refused."""
        self._capacity = capacity
        refused: list[ReservationAction] = []
        for each in list(self._waiting.values()):
            if problem := self._never(each.assignment):
                instance = each.assignment.instance
                refused.append(Refuse(each.assignment, f"{instance} was refused: {problem}."))
        return [*refused, *self._admit(now)]

    def ended(self, instance: Instance, now: float) -> list[ReservationAction]:
        """It gives its place back; also for one that waited and was cancelled."""
        self._no_longer_waits(instance)
        self._running.pop(instance, None)
        return self._admit(now)

    def is_waiting(self, instance: Instance) -> bool:
        return instance in self._waiting

    def swarm_gone(self, swarm_id: str) -> None:
        """Its turn need not be remembered."""
        self._served.pop(swarm_id, None)

    def _never(self, assignment: Assignment) -> str:
        has, asks = self._capacity, _asks(assignment)
        if has.places < 1:
            return "this node takes no tasks (max_concurrent_tasks is 0)"
        if has.cpu is not None and (asks.cpu or 0) > has.cpu:
            return f"it asks for {asks.cpu:g} cores, tasks may use {has.cpu:g} here"
        if has.memory is not None and (asks.memory or 0) > has.memory:
            return f"it asks for {asks.memory} bytes of memory, tasks may use {has.memory} here"
        return ""

    def _admit(self, now: float) -> list[ReservationAction]:
        actions: list[ReservationAction] = []
        while (waiting := self._next(now)) is not None:
            instance = waiting.assignment.instance
            self._no_longer_waits(instance)
            self._running[instance] = waiting.assignment
            self._count += 1
            self._served[instance.swarm_id] = self._count
            actions.append(Start(waiting.assignment, now - waiting.since, now))
        return actions

    def _next(self, now: float) -> _Waiting | None:
        if self._suspended or not self._waiting or len(self._running) >= self._capacity.places:
            return None
        runs: dict[str, int] = {}
        for instance in self._running:
            runs[instance.swarm_id] = runs.get(instance.swarm_id, 0) + 1

        def rank(group: _Group) -> tuple[int, int, int, int]:
            priority, swarm = group
            first = next(iter(self._groups[group].values()))
            return -priority, runs.get(swarm, 0), self._served.get(swarm, 0), first.order

        for group in sorted(self._groups, key=rank):
            too_much: list[ResourceSpec] = []
            for waiting in self._groups[group].values():
                asks = _asks(waiting.assignment)
                if asks not in too_much:
                    if self._fits(asks):
                        return waiting
                    too_much.append(asks)
                if now - waiting.since >= self._patience:
                    return None
        return None

    def _no_longer_waits(self, instance: Instance) -> None:
        waiting = self._waiting.pop(instance, None)
        if waiting is None:
            return
        group = _group(waiting.assignment)
        del self._groups[group][instance]
        if not self._groups[group]:
            del self._groups[group]

    def _fits(self, asks: ResourceSpec) -> bool:
        has = self._capacity
        if has.cpu is None and has.memory is None:
            return True
        used = [_asks(running) for running in self._running.values()]
        cpu = sum(resources.cpu or 0 for resources in used) + (asks.cpu or 0)
        memory = sum(resources.memory or 0 for resources in used) + (asks.memory or 0)
        return (has.cpu is None or cpu <= has.cpu + 1e-9) and (
            has.memory is None or memory <= has.memory
        )


_NOTHING = ResourceSpec()


def _group(assignment: Assignment) -> _Group:
    return assignment.priority, assignment.instance.swarm_id


def _asks(assignment: Assignment) -> ResourceSpec:
    return assignment.resources or _NOTHING
