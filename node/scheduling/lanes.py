"""Which supervisor, with its warm runtime, runs an instance of a task. Pure.

A task of a swarm has lanes, one supervisor each. A module whose attempts start afresh may
run any instance in any lane that is free, so that a thousand instances need no more
runtimes than the node has places. One that keeps an object between its attempts has a lane
for each index, where that object lives. Which of the two it is shows in the first
attempt, which imports it; until then each index has its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from manta.protocol.node import Instance

Lane = tuple[str, str, int]
"""Swarm, alias and a number: that of an index, where it is bound to one."""


@dataclass
class _Task:
    fresh: bool = False
    lanes: dict[int, set[Instance]] = field(default_factory=dict)
    """What each is to run."""


class Lanes:
    def __init__(self) -> None:
        self._tasks: dict[tuple[str, str], _Task] = {}
        self._lane_of: dict[Instance, Lane] = {}

    def take(self, instance: Instance) -> Lane:
        """The lane for an instance that may run now; its own if it has one already."""
        if (held := self._lane_of.get(instance)) is not None:
            return held
        task = self._tasks.setdefault((instance.swarm_id, instance.alias), _Task())
        number = self._choose(task, instance)
        task.lanes.setdefault(number, set()).add(instance)
        lane = instance.swarm_id, instance.alias, number
        self._lane_of[instance] = lane
        return lane

    def of(self, instance: Instance) -> Lane | None:
        return self._lane_of.get(instance)

    def leave(self, instance: Instance) -> None:
        """It has ended."""
        lane = self._lane_of.pop(instance, None)
        if lane is not None and (task := self._tasks.get(lane[:2])) is not None:
            task.lanes.get(lane[2], set()).discard(instance)

    def attempts_are_fresh(self, lane: Lane, fresh: bool) -> None:
        """What a runtime of the lane keeps between attempts is known."""
        self._tasks.setdefault(lane[:2], _Task()).fresh = fresh

    def close(self, lane: Lane) -> None:
        """Its supervisor has ended; what it was to run still counts as there."""
        task = self._tasks.get(lane[:2])
        if task is None:
            return
        if not task.lanes.get(lane[2]):
            task.lanes.pop(lane[2], None)
        if not task.lanes:
            del self._tasks[lane[:2]]

    def _choose(self, task: _Task, instance: Instance) -> int:
        index = instance.index
        if not task.fresh:
            return index
        free = [number for number, runs in task.lanes.items() if not runs]
        if free:
            return index if index in free else min(free)
        return index if index not in task.lanes else max(task.lanes) + 1
