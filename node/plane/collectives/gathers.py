"""The gathers of one desk whose roots are here, until they are over."""

from __future__ import annotations

from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.deadlines import Deadlines
from manta.node.plane.collectives.gathering import Gathering
from manta.node.plane.collectives.kept import Calls
from manta.node.plane.requests import CallCollective


class Gathers:
    """Each has its `Gathering`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._deadlines = Deadlines[Call](self._is_due)

    def begin(self, call: Call, body: CallCollective, now: float) -> None:
        """Its root makes it."""
        size = call.meeting.placement.size
        call.gathering = Gathering(size, body.quorum, body.deadline, now)
        self.watch(call)
        call.suffice(call.gathering.enough)

    def watch(self, call: Call) -> None:
        """Its deadline, if it has one."""
        if call.gathering is not None and call.gathering.due is not None:
            self._deadlines.add(call.gathering.due, call)

    def look(self, call: Call, now: float) -> None:
        """After anything has happened to it."""
        if (gathering := call.gathering) is None:
            return
        due = gathering.due
        if not gathering.look(call.meeting, now):
            call.gathering = None
        elif gathering.due != due:
            self.watch(call)

    def _is_due(self, call: Call, due: float) -> bool:
        """Is that still its deadline?"""
        is_open = not call.is_over and self._calls.of(call.meeting) is call
        return is_open and call.gathering is not None and call.gathering.due == due

    @property
    def due(self) -> float | None:
        """The first deadline."""
        return self._deadlines.due

    def take(self, now: float) -> list[Call]:
        """Those that are due: they go with what they have."""
        found = self._deadlines.take(now)
        for call in found:
            call.gathering = None
            call.suffice(1)
        return found
