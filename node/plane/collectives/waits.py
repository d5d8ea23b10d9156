"""The calls of members that have no answer yet, by what may happen to them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TypeVar

from manta.node.plane.collectives.calls import Ask, Wait
from manta.node.plane.collectives.deadlines import Deadlines
from manta.node.plane.collectives.messages import CallName

T = TypeVar("T", bound=Hashable)
Task = tuple[int, str]
"""Era and task."""


class OpenWaits:
    def __init__(self) -> None:
        self._all: dict[Ask, Wait] = {}
        self._parked: dict[Task, dict[Ask, Wait]] = {}
        self._met: dict[tuple[CallName, int], dict[Ask, Wait]] = {}
        """By call and rank: what became a contribution."""
        self._deadlines = Deadlines[Wait](lambda wait, _: wait.ask in self._all)

    def __contains__(self, ask: Ask) -> bool:
        return ask in self._all

    def __iter__(self) -> Iterator[Ask]:
        return iter(list(self._all))

    def add(self, wait: Wait) -> None:
        """It is parked at first."""
        self._all[wait.ask] = wait
        self._parked.setdefault(_task(wait), {})[wait.ask] = wait
        self._deadlines.add(wait.deadline, wait)

    def enters(self, wait: Wait) -> None:
        """It becomes a contribution."""
        wait.is_parked = False
        _remove(self._parked, _task(wait), wait.ask)
        self._met.setdefault((wait.name, wait.rank), {})[wait.ask] = wait

    def pop(self, ask: Ask) -> Wait | None:
        """It is over."""
        wait = self._all.pop(ask, None)
        if wait is not None and wait.is_parked:
            _remove(self._parked, _task(wait), ask)
        elif wait is not None:
            _remove(self._met, (wait.name, wait.rank), ask)
        return wait

    def met(self, name: CallName, rank: int) -> list[Wait]:
        """Of a member, for what comes of that call."""
        return [*self._met.get((name, rank), {}).values()]

    def parked(self, task: Task | None = None) -> list[Wait]:
        """Of a task, or of all."""
        tasks = [*self._parked.values()] if task is None else [self._parked.get(task, {})]
        return [wait for waits in tasks for wait in waits.values()]

    @property
    def due(self) -> float | None:
        return self._deadlines.due

    def late(self, now: float) -> list[Wait]:
        """Those whose time is over."""
        return self._deadlines.take(now)


def _task(wait: Wait) -> Task:
    return wait.name.era, wait.name.task


def _remove(places: dict[T, dict[Ask, Wait]], place: T, ask: Ask) -> None:
    del places[place][ask]
    if not places[place]:
        del places[place]
