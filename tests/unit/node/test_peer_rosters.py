"""A node has the latest of each roster that its plane wants, whatever was lost on the way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.manager.swarm.roster import RosterNews
from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.known import KnownPeers
from manta.node.peers.rosters import (
    RosterAction,
    RosterChanged,
    RosterDiffers,
    Rosters,
)
from manta.node.plane.rosters import ToldRosters
from manta.protocol.roster import Roster, RosterInstance, RosterTask, RosterTold, WantRoster
from manta.roster.differences import told

WANTED: list[RosterAction] = [WantRoster("s")]


def roster(*states: str, iteration: int = 0) -> Roster:
    there = (RosterInstance(rank, f"n{rank}", "x", 0, state) for rank, state in enumerate(states))
    task = RosterTask("a", "RUNNING", len(states), instances=tuple(there))
    return Roster("", iteration, {"a": task}, {})


def connected() -> Rosters:
    rosters = Rosters()
    rosters.registered(has_rosters=True)
    return rosters


def test_what_is_wanted_is_asked_for_once_there_is_somebody_to_ask() -> None:
    rosters = Rosters()
    assert rosters.want("s") == []
    assert rosters.registered(has_rosters=True) == WANTED
    assert rosters.want("s") == []
    assert rosters.heard({}) == []
    assert rosters.enough("s") == [WantRoster("s", wanted=False)]
    assert rosters.enough("s") == []


def test_a_manager_that_tells_no_rosters_is_not_asked() -> None:
    rosters = Rosters()
    rosters.registered(has_rosters=False)
    assert rosters.want("s") == []
    assert rosters.heard({}) == []


def test_what_is_told_is_held_and_passed_on() -> None:
    rosters = connected()
    rosters.want("s")
    [part] = told("s", roster("PLACED", "PLACED"), 5)
    assert rosters.told(part) == [RosterChanged("s", roster("PLACED", "PLACED"))]
    [part] = told("s", roster("RUNNING", "PLACED"), 6, roster("PLACED", "PLACED"), 5)
    assert rosters.told(part) == [RosterDiffers("s", (part,))]
    assert rosters.roster("s") == roster("RUNNING", "PLACED")
    assert rosters.all() == [RosterChanged("s", roster("RUNNING", "PLACED"))]
    assert rosters.roster("t") is None


def test_what_nobody_wants_is_not_held() -> None:
    rosters = connected()
    [part] = told("s", roster("PLACED"), 5)
    assert rosters.told(part) == []
    assert rosters.all() == []


def test_what_does_not_continue_is_asked_for_once() -> None:
    rosters = connected()
    rosters.want("s")
    states = ["PLACED"] * 50
    parts = told("s", roster(*states), 5, page_bytes=200)
    assert len(parts) > 3
    found = [rosters.told(part) for part in (parts[0], *parts[2:])]
    assert found.count(WANTED) == 1
    assert [rosters.told(part) for part in parts][-1] == [RosterChanged("s", roster(*states))]


def test_what_is_lost_twice_is_asked_for_with_the_next_heartbeat() -> None:
    rosters = connected()
    rosters.want("s")
    parts = told("s", roster(*["PLACED"] * 50), 5, page_bytes=200)
    assert rosters.told(parts[1]) == WANTED
    assert rosters.told(parts[1]) == []
    assert rosters.heard({}) == WANTED


def test_a_telling_that_was_lost_is_found_with_the_next_heartbeat() -> None:
    rosters = connected()
    rosters.want("s")
    [part] = told("s", roster("PLACED"), 5)
    rosters.told(part)
    assert rosters.heard({"s": 5, "t": 1}) == []
    assert rosters.heard({"s": 6}) == WANTED


def test_a_failure_is_repeated_with_the_next_heartbeat() -> None:
    rosters = connected()
    rosters.want("s")
    rosters.failed("s")
    assert rosters.heard({}) == WANTED
    assert rosters.heard({}) == []


def test_over_another_connection_the_whole_is_asked_for_and_the_old_stays_meanwhile() -> None:
    rosters = connected()
    rosters.want("s")
    [part] = told("s", roster("PLACED"), 5)
    rosters.told(part)
    rosters.disconnected()
    assert rosters.heard({}) == []
    assert rosters.registered(has_rosters=True) == WANTED
    assert rosters.roster("s") == roster("PLACED")
    # Of what was told over the connection before, nothing is continued.
    [part] = told("s", roster("RUNNING"), 6, roster("PLACED"), 5)
    assert rosters.told(part) in ([], WANTED)


def test_what_is_over_is_forgotten() -> None:
    rosters = connected()
    rosters.want("s")
    rosters.over("s")
    assert rosters.heard({}) == []
    assert rosters.all() == []


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from("PRF"), st.booleans(), st.integers(0, 9)),
        max_size=30,
    )
)
def test_in_the_end_it_has_what_the_manager_told_last(steps) -> None:
    news, rosters, states, iteration = RosterNews("s", page_bytes=50), connected(), list("PPP"), 0
    known = KnownPeers()
    known.apply(DirectoryChanged("s", "", True))
    plane, given = ToldRosters(known), dict[str, Roster]()

    def ask(actions) -> None:
        for action in actions:
            if isinstance(action, WantRoster):
                news.want("n1", action)
            else:
                plane.told(action)
                given.update(plane.take())

    version = 0

    def tell(lost: int = -1) -> None:
        nonlocal version
        messages = news.tell(roster(*states, iteration=iteration), {"n1"}, 0.0)
        for number, (_, part) in enumerate(messages):
            assert isinstance(part, RosterTold)
            version = part.version
            if number != lost:
                ask(rosters.told(part))

    ask(rosters.want("s"))
    for rank, state, again, lost in steps:
        states[rank] = state
        iteration += states == ["F", "F", "F"]
        if again:
            ask(rosters.registered(has_rosters=True))
        tell(lost)
    for _ in range(3):
        ask(rosters.heard({"s": version}))
        tell()
    assert rosters.roster("s") == given["s"] == roster(*states, iteration=iteration)


def test_a_plane_is_given_each_roster_once_when_it_has_heard_of_its_timeline() -> None:
    known = KnownPeers()
    known.apply(DirectoryChanged("s", "before", True))
    plane = ToldRosters(known)
    plane.told(RosterChanged("s", roster("PLACED")))
    assert plane.take() == []
    [part] = told("s", roster("RUNNING"), 6, roster("PLACED"), 5)
    plane.told(RosterDiffers("s", (part,)))
    known.apply(DirectoryChanged("s", "", True))
    assert plane.take() == [("s", roster("RUNNING"))]
    assert plane.take() == []
    plane.forget("s")
    plane.told(RosterDiffers("s", (part,)))
    assert plane.take() == []
