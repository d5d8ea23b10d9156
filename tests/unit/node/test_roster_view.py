"""What a node makes of a swarm's roster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.node.peers.known import KnownPeers
from manta.node.plane.view import RosterView
from manta.protocol.roster import NONE, Roster, RosterInstance, RosterTask
from manta.protocol.spec import NetworkSpec
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


@pytest.mark.parametrize(
    ("era", "rank", "number", "counts"),
    [
        (2, 0, 0, True),
        (2, 0, 1, False),
        (2, 1, 0, False),  # there was a later one, maybe elsewhere
        (2, 1, 1, True),
        (2, 2, 0, False),
        (1, 1, 0, True),
        (4, 1, 0, None),
    ],
)
def test_whether_an_attempt_of_another_iteration_counts(
    era: int, rank: int, number: int, counts: bool | None
) -> None:
    roster = Roster("e", 3, {}, {}, {"w": {1: 1, 2: NONE}})
    view = RosterView("swarm-1", "id-1", roster, KnownPeers())
    assert view.counted(Attempt(era, Member("w", rank), number)) is counts


NAMES = ("n0", "n1", "n2", "n3")
specs = st.sampled_from(
    [
        NetworkSpec("net", "full"),
        NetworkSpec("net", "ring"),
        NetworkSpec("net", "star"),
        NetworkSpec("net", "edges", (("n0", "n1"), ("n1", "n2"))),
    ]
)
placed = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["RUNNING", "FINISHED"])))


def in_network(spec: NetworkSpec, *tasks: list[tuple[str, str]]) -> Roster:
    made = {
        alias: RosterTask(
            alias,
            "RUNNING",
            len(there),
            network="net",
            instances=tuple(
                RosterInstance(rank, node, node, 0, state)
                for rank, (node, state) in enumerate(there)
            ),
        )
        for alias, there in zip("ab", tasks, strict=False)
    }
    return Roster("e", 0, made, {"net": spec})


@given(specs, st.lists(st.tuples(placed, placed), min_size=2, max_size=4))
def test_what_is_taken_over_from_the_roster_before_makes_no_difference(
    spec: NetworkSpec, history: list[tuple[list[tuple[str, str]], list[tuple[str, str]]]]
) -> None:
    view: RosterView | None = None
    for tasks in history:
        roster = in_network(spec, *tasks)
        view = RosterView("s", "n0", roster, KnownPeers(), view)
        alone = RosterView("s", "n0", roster, KnownPeers())
        for member in (Member(alias, rank) for alias in "ab" for rank in range(4)):
            for node in NAMES:
                assert view.hears("a", node, member) is alone.hears("a", node, member)
                assert view.refusal(Attempt(0, member, 0), node) == alone.refusal(
                    Attempt(0, member, 0), node
                )


def test_who_hears_whom_is_found_out_anew_only_where_somebody_is_elsewhere() -> None:
    spec, member = NetworkSpec("net", "full"), Member("a", 0)
    first = RosterView("s", "n0", in_network(spec, [("n0", "RUNNING")]), KnownPeers())
    first.hears("a", "n0", member)
    ended = in_network(spec, [("n0", "FINISHED")])
    second = RosterView("s", "n0", ended, KnownPeers(), first)
    third = RosterView("s", "n0", ended, KnownPeers(), second)  # nobody has asked the second
    assert third._heard_on(member) is first._heard_on(member)
    moved = RosterView("s", "n0", in_network(spec, [("n1", "RUNNING")]), KnownPeers(), third)
    assert moved._heard_on(member) == {"n1"}
