"""The calls that a desk knows: those that go on, and those that are kept for next attempts."""

from __future__ import annotations

from collections import OrderedDict

from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.collectives.messages import CallName

AHEAD = 1_000
"""Numbers that an instance may be ahead of the oldest call that goes on."""
KEPT = 1_000
"""Calls that are over and kept."""


class Calls:
    def __init__(self) -> None:
        self._open: dict[CallName, Call] = {}
        self._over: OrderedDict[CallName, Call] = OrderedDict()
        """The oldest first."""
        self._by_meeting: dict[Meeting, Call] = {}
        self._gone: dict[tuple[int, str], int] = {}
        """By era and task: calls below this number are kept no longer, unless they are there."""

    def add(self, call: Call) -> None:
        self._open[call.name] = call
        self._by_meeting[call.meeting] = call

    def replace(self, call: Call, new: Call) -> None:
        """It was begun anew."""
        del self._by_meeting[call.meeting]
        self._over.pop(call.name, None)
        self.add(new)

    def get(self, name: CallName) -> Call | None:
        return self._open.get(name) or self._over.get(name)

    def of(self, meeting: Meeting) -> Call | None:
        """None if it is kept no longer."""
        return self._by_meeting.get(meeting)

    @property
    def open(self) -> list[Call]:
        return list(self._open.values())

    @property
    def all(self) -> list[Call]:
        return [*self._open.values(), *self._over.values()]

    def is_gone(self, name: CallName) -> bool:
        """Is it kept no longer?"""
        return name.number < self._gone.get((name.era, name.task), 0)

    def is_ahead(self, name: CallName) -> bool:
        """Is it too far ahead of what others have come to?"""
        going = [one.number for one in self._open if (one.era, one.task) == (name.era, name.task)]
        return bool(going) and name.number - min(going) > AHEAD

    def is_followed(self, name: CallName, rank: int) -> bool:
        """Has the member made a later call that is over?"""
        return any(
            one.number > name.number
            and (one.era, one.task) == (name.era, name.task)
            and rank in call.meeting.machine.come
            for one, call in self._over.items()
        )

    def lay_aside(self, call: Call) -> None:
        """It is over."""
        call.is_over = True
        call.told.clear()
        del self._open[call.name]
        self._over[call.name] = call
        while len(self._over) > KEPT:
            self.forget_oldest(0)

    def forget_oldest(self, but: int) -> bool:
        """Of those that are over, unless there are only so many."""
        if len(self._over) <= but:
            return False
        call = next(iter(self._over.values()))
        self.remove(call)
        task = call.name.era, call.name.task
        self._gone[task] = max(self._gone.get(task, 0), call.name.number + 1)
        return True

    def remove(self, call: Call) -> None:
        """It is of no use any more."""
        call.meeting.end()
        self._open.pop(call.name, None)
        self._over.pop(call.name, None)
        del self._by_meeting[call.meeting]

    def end_eras(self, now: int) -> None:
        """Those before this one are over, and their calls removed."""
        self._gone = {task: number for task, number in self._gone.items() if task[0] >= now}
