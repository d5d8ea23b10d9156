"""Calls that members are yet to come to, once the manager has taken what they wrote before.

Others may never come meanwhile, or have been refused the call and gone on: a roster says so first,
and not why. What became of the call their planes know, and tell all alike. So they are asked, and
no member is told anything by its roster alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection

from manta.node.plane.collectives import placing
from manta.node.plane.collectives.calls import Call, Wait
from manta.node.plane.collectives.contributions import Contributions, Unfit
from manta.node.plane.collectives.messages import Places
from manta.node.plane.collectives.unwaited import Unwaited
from manta.protocol.roster import RosterTask
from manta.roster import waits


class Prospects:
    def __init__(self, contributions: Contributions, unwaited: Unwaited) -> None:
        self._contributions = contributions
        self._unwaited = unwaited

    def ask(self, wait: Wait, call: Call, lost: Collection[int]) -> None:
        """Has the planes of those who are said to be lost say whether the call is in vain."""
        member = wait.name.era, wait.name.task, wait.rank
        before = self._unwaited.before(member, wait.name.number)
        with contextlib.suppress(Unfit, ValueError, TypeError):  # told once it is a contribution
            placement = call.meeting.placement
            entry = self._contributions.entry(wait.body, wait.rank, placement, before)
            call.meeting.expected(wait.rank, entry, lost)


def failed(wait: Wait, call: Call | None, now: Places) -> tuple[str, str] | None:
    """How the call has failed, with what sentence. Of a next attempt that is not known: it may be
    given what came of the call before."""
    if wait.ask.at.attempt or call is None or not call.meeting.machine.has_failed:
        return None
    return None if placing.is_outdated(call, now, wait.rank) else call.meeting.machine.failure


def lost(wait: Wait, call: Call | None, task: RosterTask) -> list[int]:
    """Who is, as the roster says, of those that are not known to have come."""
    if wait.ask.at.attempt:
        return []
    come: Collection[int] = () if call is None else call.meeting.machine.come
    others = (rank for rank in range(task.size) if rank != wait.rank and rank not in come)
    return waits.lost(task, others)
