"""A roster as a swarm's exchange looks at it."""

from __future__ import annotations

import pytest

from manta.node.peers.known import KnownPeers
from manta.node.plane.view import RosterView
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.transports.exchange.channels import Member
from manta.transports.exchange.letters import Attempt


def view(iteration: int, attempt: int, state: str) -> RosterView:
    instances = (RosterInstance(0, "id-1", "node-1", attempt, state),)
    task = RosterTask("worker", "RUNNING", 1, instances=instances)
    return RosterView("swarm", "id-1", Roster("e", iteration, {"worker": task}, {}), KnownPeers())


@pytest.mark.parametrize(
    ("roster", "attempt", "counts"),
    [
        (view(3, 1, "FINISHED"), Attempt(3, Member("worker", 0), 1), True),
        (view(3, 1, "FAILED"), Attempt(3, Member("worker", 0), 1), False),
        (view(3, 1, "FINISHED"), Attempt(3, Member("worker", 0), 0), False),
        (view(3, 1, "RUNNING"), Attempt(3, Member("worker", 0), 1), None),
        (view(3, 0, "RUNNING"), Attempt(3, Member("worker", 0), 1), None),
        (view(2, 1, "FINISHED"), Attempt(3, Member("worker", 0), 0), None),
        (view(2, 0, "FINISHED"), Attempt(3, Member("worker", 0), 0), None),
        (view(3, 0, "FINISHED"), Attempt(3, Member("other", 0), 0), None),
    ],
)
def test_whether_an_attempt_counts_is_said_by_its_own_iterations_roster(
    roster: RosterView, attempt: Attempt, counts: bool | None
) -> None:
    assert roster.counted(attempt) is counts
