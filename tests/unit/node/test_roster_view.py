"""What a node makes of a swarm's roster."""

from __future__ import annotations

import pytest

from manta.node.peers.known import KnownPeers
from manta.node.plane.view import RosterView
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.transports.exchange.channels import Member
from manta.transports.exchange.letters import Attempt


@pytest.mark.parametrize(
    ("rank", "number", "counts"),
    [
        (0, 0, False),  # there is a later one
        (0, 1, True),
        (0, 2, None),  # the roster is late
        (1, 0, None),  # its end is on the way
        (2, 0, False),
        (3, 0, False),
        (9, 0, None),
    ],
)
def test_whether_an_attempt_counts(rank: int, number: int, counts: bool | None) -> None:
    states = [(1, "FINISHED"), (0, "RUNNING"), (0, "INTERRUPTED"), (0, "SUPERSEDED")]
    instances = tuple(
        RosterInstance(at, "id-1", "node-1", attempt, state)
        for at, (attempt, state) in enumerate(states)
    )
    roster = Roster("e", 3, {"w": RosterTask("w", "RUNNING", 4, instances=instances)}, {})
    view = RosterView("swarm-1", "id-1", roster, KnownPeers())
    assert view.counted(Attempt(3, Member("w", rank), number)) is counts
    assert view.counted(Attempt(3, Member("unknown", rank), number)) is None
