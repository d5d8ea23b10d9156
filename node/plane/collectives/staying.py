"""What a plane has of calls that still counts, once it is told another roster. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from manta.node.plane.collectives import losses, placing
from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.unwaited import Member
from manta.protocol.roster import Roster


class Staying:
    """From the roster before, of the same iteration, to this one, on this node."""

    def __init__(self, before: Roster, roster: Roster, me: str, tasks: Iterable[str]) -> None:
        self._before = before.tasks
        self._now = roster.tasks
        self._stayed = {
            task: placing.stayed(before.tasks[task], roster.tasks.get(task), me) for task in tasks
        }

    def has(self, member: Member) -> bool:
        """Else it was elsewhere since, or with a node that was lost."""
        return member[2] in self._stayed.get(member[1], ())

    def counts(self, call: Call) -> bool:
        """Has any instance of its task stayed, or can it have come to nothing else?"""
        task = call.name.task
        return bool(self._stayed[task]) or losses.stands(
            call, self._now.get(task), self._before[task]
        )
