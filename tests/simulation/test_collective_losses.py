"""Calls while planes, nodes and members come and go, one step after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from manta.node.plane.collectives import arranging, pieces
from manta.node.plane.collectives.losses import LOST
from manta.transports.collectives.calls import Kind
from manta.transports.collectives.table import DIRECT_PEERS
from tests.simulation.collective_lab import LARGE, Lab, Make, labs, value_of


@pytest.fixture
def make() -> Iterator[Make]:
    with labs(shares=False) as lab:
        yield lab


def test_a_gather_that_its_root_repeats_elsewhere_has_what_the_one_beside_it_gave(
    make: Make,
) -> None:
    lab = make("a", "b", "c")
    lab.tell("aab")
    for rank, place in enumerate("aab"):
        lab.call(rank, place, kind=Kind.GATHER)
    lab.until((0, 0), (1, 0), (2, 0))
    lab.tell("cab", (1, 0, 0))
    lab.call(0, "c", 1, Kind.GATHER)
    lab.until((0, 1))
    assert lab.got(0, 1) == {0: value_of(0, 1, 4), 1: value_of(1, 0, 4), 2: value_of(2, 0, 4)}


def test_what_came_of_a_call_is_taken_from_any_plane_that_has_it(make: Make) -> None:
    """One of its members has finished, its plane crashes, and others lack what it gave."""
    lab = lone_straggler(make)
    lab.restart("a")
    lab.introduce("abc", to="a")
    lab.tell("abc", finished=[0])
    lab.link()
    lab.until((1, 0))
    assert lab.got(1) == {rank: value_of(rank, 0, LARGE) for rank in range(3)}


def lone_straggler(make: Make) -> Lab:
    """Of three members the second alone waits for what comes of the call."""
    for seed in range(100):
        lab = make("a", "b", "c", seed=seed)
        lab.tell("abc")
        for rank, place in enumerate("abc"):
            lab.call(rank, place, size=LARGE)
        lab.until_any({(0, 0), (2, 0)}, {(1, 0)})
        if (1, 0, 0) not in lab.outcomes and "a" in (one for one, _ in lab.net["b"].expecting):
            return lab
    raise AssertionError("none was left behind")


def test_what_was_given_is_kept_until_what_came_before_is_here(make: Make) -> None:
    """The plane that gives what came of the call crashes before all of it has come."""
    lab = make("a", "b")
    lab.tell("ab")
    for rank, place in enumerate("ab"):
        lab.call(rank, place, size=LARGE)
    lab.until((0, 0), (1, 0))
    lab.restart("b")
    lab.introduce("ab", to="b")
    lab.tell("ab", (0, 1))
    lab.link()
    lab.call(1, "b", 1, size=LARGE)
    lab.clock.run(lambda: bool(lab.net["b"].expecting))
    lab.restart("a")
    lab.introduce("ab", to="a")
    lab.tell("ab", (1, 1))
    lab.link()
    lab.call(0, "a", 1, size=LARGE)
    lab.until((0, 1), (1, 1))
    assert lab.got(0, 1) == lab.got(1, 1) == {rank: value_of(rank, 1, LARGE) for rank in range(2)}


def test_who_waits_for_what_came_of_a_call_before_does_so_while_it_is_begun_anew(
    make: Make,
) -> None:
    lab = make("a", "b")
    lab.tell("abb")
    for rank, place in enumerate("abb"):
        lab.call(rank, place, size=LARGE)
    lab.until((0, 0), (1, 0), (2, 0))
    lab.restart("b")
    lab.introduce("ab", to="b")
    lab.tell("abb", (0, 1, 0))
    lab.link()
    lab.call(1, "b", 1, size=LARGE)
    lab.clock.run(lambda: bool(lab.net["b"].expecting))  # it has heard that it is at a
    lab.tell("abb", (0, 1, 1))
    lab.call(2, "b", 1, size=LARGE)
    lab.until((1, 1), (2, 1))
    assert lab.got(1, 1) == lab.got(2, 1) == lab.got(0, 0)


def test_who_takes_what_came_of_a_call_goes_where_its_holder_begins_it_anew(make: Make) -> None:
    """As a member makes it there for the first time, which is no reason to who takes it."""
    lab = make("a", "b")
    lab.tell("abb")
    for rank, place in enumerate("abb"):
        lab.call(rank, place, size=LARGE)
    lab.until((0, 0), (1, 0), (2, 0))
    lab.restart("b")
    lab.introduce("ab", to="b")
    lab.tell("aab", (0, 1, 1))
    lab.link()
    lab.call(2, "b", 1, size=LARGE)
    lab.clock.run(lambda: bool(lab.net["a"].sending))
    lab.tell("aab", (0, 2, 1))
    lab.call(1, "a", 2, size=LARGE)
    lab.until((1, 2), (2, 1))
    assert lab.got(1, 2) == lab.got(2, 1) == lab.got(0, 0)


def test_who_came_while_that_was_taken_over_gave_too(make: Make) -> None:
    lab = make("a", "b", "c")
    lab.tell("abbc")
    for rank, place in enumerate("abbc"):
        lab.call(rank, place, size=LARGE)
    lab.until((0, 0), (1, 0), (2, 0), (3, 0))
    lab.restart("b")
    lab.introduce("abc", to="b")
    lab.tell("abbc", (0, 1, 1, 0))
    lab.link()
    lab.call(1, "b", 1, size=LARGE)
    lab.clock.run(lambda: bool(lab.net["b"].expecting))
    lab.call(2, "b", 1, size=LARGE)
    lab.tell("abba", (0, 1, 1, 1))
    lab.until((1, 1), (2, 1))
    assert lab.got(1, 1) == lab.got(2, 1) == lab.got(0)


def test_a_call_whose_members_are_all_lost_is_over(make: Make) -> None:
    lab = make("a", "b", "c")
    lab.tell("abc")
    lab.call(0, "a", kind=Kind.ALL_REDUCE, size=LARGE, goes_on=True)
    lab.run(1.0)
    lab.tell("abc", given_up=[1], to="b")
    lab.introduce("b")
    (call,) = lab.net["b"].desk.calls.all
    assert call.meeting.machine.failure[0] == "PeerLost"


def test_who_lost_a_node_that_waits_for_the_root_of_a_scatter_alone_is_nothing_to_it(
    make: Make,
) -> None:
    lab = make("a", "b", "c")
    lab.run(1.0)
    lab.introduce("ac", to="c")
    lab.introduce("abc", to="c")
    lab.tell("abc")
    lab.run(1.0)
    lab.call(1, "b", kind=Kind.SCATTER)
    lab.link()  # and b hears that c had lost it
    lab.run(1.0)
    lab.call(0, "a", kind=Kind.SCATTER)
    lab.until((1, 0))
    assert lab.got(1)


def test_who_begins_a_call_anew_before_others_is_told_where_it_is_over(make: Make) -> None:
    lab = make("a", "b", "c")
    lab.tell("acb")
    for rank, place in enumerate("acb"):
        lab.call(rank, place)
    lab.until((0, 0), (1, 0), (2, 0))
    lab.restart("a")
    lab.introduce("abc", to="a")
    lab.tell("abb", (1, 1, 0), to="a")
    lab.call(0, "a", 1)
    lab.tell("abb", (1, 2, 0))
    lab.call(1, "b", 2)  # where it is, nobody else is asked
    lab.until((1, 2))
    lab.link()
    lab.until((0, 1))
    assert lab.got(0, 1) == lab.got(1, 2) == lab.got(2)


@pytest.mark.parametrize("kind", [Kind.ALL_GATHER, Kind.REDUCE_SCATTER, Kind.SCATTER])
def test_an_attempt_gives_anew_what_one_before_gave_to_a_plane_that_is_gone(
    make: Make, kind: Kind
) -> None:
    """It had not met that plane, and is no reason for another version."""
    lab = make("a", "b", "c")
    lab.tell("abc")
    lab.call(1, "b", kind=kind)
    lab.run(1.0)
    lab.tell("aba", (0, 1, 1), to="ab")
    lab.run(1.0)
    lab.call(0, "a", kind=kind)
    lab.call(2, "a", 1, kind=kind)
    lab.until((0, 0), (2, 1))
    lab.restart("b")
    lab.introduce("abc", to="b")
    lab.tell("aba", (0, 1, 1), to="b")
    lab.link()
    lab.call(1, "b", 1, kind=kind)
    lab.until((1, 1))
    assert lab.error(1, 1) == ""
    if kind is Kind.ALL_GATHER:
        assert lab.got(1, 1) == lab.got(0)


def test_a_gather_begun_anew_where_its_root_was_done_has_what_others_gave_again(make: Make) -> None:
    """They were told that the root has all before another member came to it there."""
    lab = make("a", "b", "c")
    lab.tell("abcc")
    for rank, place in enumerate("abcc"):
        lab.call(rank, place, kind=Kind.GATHER)
    lab.until((0, 0), (1, 0), (2, 0), (3, 0))
    lab.tell("aabb", (0, 1, 1, 1))
    lab.call(2, "b", 1, kind=Kind.GATHER)
    lab.run(1.0)
    lab.call(1, "a", 1, kind=Kind.GATHER)
    lab.run(1.0)
    lab.call(3, "b", 1, kind=Kind.GATHER)
    lab.tell("aabb", (1, 1, 1, 1))
    lab.call(0, "a", 1, kind=Kind.GATHER)
    lab.until((0, 1))
    assert lab.got(0, 1).keys() == {0, 1, 2, 3}


def test_who_begins_a_call_anew_that_is_over_here_gives_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though what came of it takes a while to be brought together."""
    monkeypatch.setattr(pieces, "MOST_INLINE", 0)
    monkeypatch.setattr(arranging, "AT_ONCE", 0)
    lab = make("a", "b", "c")
    lab.tell("abc")
    ended = lab.call(1, "b")
    lab.net["b"].end(ended.at, ended)
    lab.call(0, "a")
    lab.call(2, "c")
    lab.until((0, 0), (2, 0))
    lab.tell("abb", (0, 0, 1))
    lab.call(2, "b", 1)
    lab.until((2, 1))
    assert lab.got(2, 1) == lab.got(0)


def test_a_call_waits_for_a_node_that_was_lost_before_and_is_back(make: Make) -> None:
    lab = make("a", "b")
    lab.tell("ab")
    for rank, place in enumerate("ab"):
        lab.call(rank, place)
    lab.until((0, 0), (1, 0))
    lab.introduce("a")
    lab.introduce("ab", to="a")
    lab.run(1.0)  # the link is down
    lab.call(1, "b", number=1)
    lab.link()  # and it hears now that it was lost
    lab.run(1.0)
    lab.call(0, "a", number=1)
    lab.until((0, 0, 1), (1, 0, 1))
    assert lab.got(0, number=1) == lab.got(1, number=1)


def test_a_call_that_went_on_without_a_node_is_over_for_that_when_it_is_back(make: Make) -> None:
    lab = make("a", "b", "c")
    lab.tell("abc")
    lab.call(1, "b", goes_on=True)
    lab.run(1.0)
    lab.introduce("ac")
    lab.call(0, "a", goes_on=True)
    lab.call(2, "c", goes_on=True)
    lab.until((0, 0), (2, 0))
    assert lab.lost(0) == lab.lost(2) == [1]
    lab.introduce("abc", to="ac")
    lab.run(1.0)
    lab.link()
    lab.until((1, 0))
    assert "goes on without" in lab.error(1)


def test_who_is_left_out_of_a_call_that_goes_on_fails_it_for_nobody_else(make: Make) -> None:
    lab = make("a", "b", "c")
    lab.tell("abc")
    lab.call(2, "c", goes_on=True)
    lab.run(1.0)
    lab.cut("a", "b")
    lab.introduce("ab", to="b")
    lab.run(1.0)
    lab.call(1, "b", goes_on=True)
    lab.introduce("abc", to="b")
    lab.net["b"].dial("c")
    lab.until((2, 0))
    assert "goes on without" in lab.error(2)
    lab.call(0, "a", goes_on=True)  # which has not heard that the others have lost c
    lab.run(1.0)
    lab.link()
    lab.until((0, 0), (1, 0))
    assert lab.got(0) == lab.got(1)
    assert lab.lost(0) == lab.lost(1) == [2]


def test_what_was_to_come_of_a_lost_node_is_given_up(make: Make) -> None:
    lab = make("a", "b")
    lab.tell("ab")
    for rank, place in enumerate("ab"):
        lab.call(rank, place, size=LARGE)
    lab.clock.run(lambda: bool(lab.net["a"].expecting))
    lab.introduce("a")
    lab.until((0, 0))
    assert LOST in lab.error(0)
    assert not lab.net["a"].expecting


def test_a_lost_node_whose_values_are_not_needed_fails_no_transfer(make: Make) -> None:
    lab = make("a", "b", "c")
    lab.tell("abc")
    for rank, place in enumerate("abc"):
        lab.call(rank, place, kind=Kind.ALL_REDUCE, size=LARGE)
    lab.until((0, 0), (1, 0), (2, 0))
    lab.tell("abc", finished=[2])
    lab.introduce("ab")
    lab.restart("b")
    lab.introduce("ab", to="b")
    lab.tell("abc", (0, 1, 0), finished=[2], to="ab")
    lab.call(1, "b", 1, kind=Kind.ALL_REDUCE, size=LARGE)
    lab.run(1.0)
    lab.link("c")
    lab.until((1, 1))
    assert [*lab.got(1, 1).values()] == [*lab.got(0, 0).values()]


def test_a_plane_that_began_anew_before_its_member_called_is_heard(make: Make) -> None:
    """Also by one that learns that only after it has heard of the member from others."""
    names = [f"n{at}" for at in range(DIRECT_PEERS + 4)]
    lab = make(*names)
    lab.tell(names)
    *others, late, anew = range(len(names))
    for rank in (*others, late):
        lab.call(rank, names[rank], size=LARGE)
    lab.run(1.0)
    lab.restart(names[anew])
    lab.introduce(names, to=[names[anew]])
    lab.tell(names, to=[names[anew]])
    for rank in others:
        lab.net[names[rank]].dial(names[anew])
    lab.call(anew, names[anew], size=LARGE)
    lab.run(1.0)
    lab.net[names[late]].dial(names[anew])
    lab.until(*((rank, 0) for rank in range(len(names))))
    assert (
        lab.got(late) == lab.got(anew) == {at: value_of(at, 0, LARGE) for at in range(len(names))}
    )


@pytest.mark.parametrize("kind", [Kind.ALL_GATHER, Kind.BARRIER])
def test_a_call_that_went_on_gives_that_to_whoever_begins_it_anew(make: Make, kind: Kind) -> None:
    lab = make("a", "b", "c")
    lab.tell("abc")
    for rank, place in (0, "a"), (1, "b"):
        lab.call(rank, place, kind=kind, goes_on=True)
    lab.introduce("ab")
    lab.tell("abc", given_up=[2], to="ab")
    lab.until((0, 0), (1, 0))
    lab.restart("b")
    lab.introduce("ab", to="b")
    lab.tell("abc", (0, 1, 0), given_up=[2], to="ab")
    lab.call(1, "b", 1, kind=kind, goes_on=True)
    lab.link("c")
    lab.until((1, 1))
    assert lab.got(1, 1) == lab.got(0, 0)
    assert lab.lost(1, 1) == lab.lost(0, 0) == [2]


def test_what_came_of_a_call_where_others_went_on_without_is_given_to_nobody(make: Make) -> None:
    lab = make("a", "b")
    lab.tell("ab")
    lab.call(0, "a")
    lab.run(1.0)
    lab.call(1, "b")
    assert lab.got(1)  # it has all, of which a has not heard
    lab.introduce("a")
    lab.until((0, 0))
    assert LOST in lab.error(0)
    lab.tell("aa", (1, 1))  # which b is told once it is back
    for rank in range(2):
        lab.call(rank, "a", 1)
    lab.until((0, 1), (1, 1))
    lab.introduce("ab")
    lab.run(1.0)
    lab.link()
    lab.tell("ab", (1, 2))
    lab.call(1, "b", 2)
    lab.until((1, 2))
    assert lab.got(1, 2) == lab.got(0, 1)


def test_what_came_of_a_call_whose_member_went_elsewhere_is_given_to_nobody(make: Make) -> None:
    """Also where its node was never lost: there others came to something else."""
    lab = make("a", "b")
    lab.tell("ab")
    lab.call(0, "a")
    lab.run(1.0)
    lab.call(1, "b")
    assert lab.got(1)  # it has all, of which a has not heard
    lab.tell("aa", (0, 1))
    lab.call(1, "a", 1)
    lab.until((0, 0), (1, 1))
    lab.tell("ab", (0, 2))
    lab.call(1, "b", 2)
    lab.until((1, 2))
    assert lab.got(1, 2) == lab.got(0)


def test_a_gather_that_went_without_whom_it_needs_while_nobody_waited_is_begun_anew(
    make: Make,
) -> None:
    lab = make("a", "b", "c")
    lab.tell("abc")
    for rank, place in enumerate("abc"):
        lab.call(rank, place, kind=Kind.GATHER)
    lab.until((0, 0), (1, 0), (2, 0))
    lab.tell("aac", (0, 1, 0))
    lab.call(1, "a", 1, kind=Kind.GATHER)  # whose root is in another call
    lab.introduce("ab", to="a")
    lab.introduce("abc", to="a")
    lab.run(1.0)
    lab.link()
    lab.tell("aac", (1, 1, 0))
    lab.call(0, "a", 1, kind=Kind.GATHER)
    lab.until((0, 1))
    assert lab.got(0, 1).keys() == {0, 1, 2}


@pytest.mark.parametrize(("places", "stays"), [("abc", (2, 0, 1)), ("bbc", ())])
def test_what_came_of_a_call_where_it_was_lost_before_is_given_to_nobody(
    make: Make, places: str, stays: Sequence[int]
) -> None:
    """Others have gone on without the one that has finished there, and came to something else. It
    hears of the loss by its roster, or from a node without a part in the call."""
    lab = make("a", "b", "c")
    lab.tell(places)
    for rank, place in enumerate(places):
        lab.call(rank, place, goes_on=True)
    lab.until((0, 0), (1, 0), (2, 0))
    assert lab.lost(2) == []
    lab.introduce("ab")
    lab.restart("b")
    lab.introduce("ab", to="b")
    lab.tell("bbc", (1, 1, 0), to="ab", finished=[2])
    for rank in range(2):
        lab.call(rank, "b", 1, goes_on=True)
    lab.until((0, 1), (1, 1))
    lab.introduce("abc")
    lab.link()
    lab.run(1.0)
    lab.tell("cbc", (2, 1, 0), finished=[2], stays=stays)
    lab.call(0, "c", 2, goes_on=True)
    lab.until((0, 2))
    assert lab.got(0, 2) == lab.got(1, 1)
    assert lab.lost(0, 2) == lab.lost(1, 1) == [2]


def test_what_came_of_a_call_is_given_by_a_plane_that_was_lost_if_it_is_all_there_can_be(
    make: Make,
) -> None:
    """It needs all, of whom one has finished there."""
    lab = make("a", "b")
    lab.tell("ab")
    for rank, place in enumerate("ab"):
        lab.call(rank, place)
    lab.until((0, 0), (1, 0))
    lab.tell("ab", finished=[1])
    lab.introduce("a")
    lab.introduce("ab", to="a")
    lab.run(1.0)
    lab.link()
    lab.run(1.0)
    lab.restart("a")
    lab.introduce("ab", to="a")
    lab.tell("ab", (1, 0), finished=[1])
    lab.link()
    lab.call(0, "a", 1)
    lab.until((0, 1))
    assert lab.got(0, 1) == lab.got(0)


def test_of_a_plane_that_forgot_what_an_instance_gave_that_had_ended_just_that_is_said(
    make: Make,
) -> None:
    lab = make("a", "b")
    lab.tell("abb")
    for rank, place in (0, "a"), (2, "b"):
        lab.call(rank, place)
    lab.run(1.0)
    lab.restart("b")
    lab.introduce("ab", to="b")
    lab.tell("abb", finished=[2])  # what it gave is not on disk
    lab.link()
    lab.call(1, "b")  # who had not, and comes now
    lab.until((0, 0), (1, 0))
    for rank in (0, 1):
        assert "t.2 on b (it has finished without that call)" in lab.error(rank)


def test_of_a_finished_instance_whose_node_is_lost_is_said_that_it_is_lost(make: Make) -> None:
    lab = make("a", "b")
    lab.tell("ab", finished=[1])
    lab.introduce("a")
    lab.call(0, "a")
    lab.until((0, 0))
    assert f"t.1 on b ({LOST})" in lab.error(0)
