"""Who hears what is broadcast, whom a peer may speak for, and what it can take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange.broadcasts import LATEST, SAID, STEP, Broadcasts, Said
from manta.transports.exchange.channels import Member
from manta.transports.exchange.letters import Attempt, Remote, Value
from manta.transports.exchange.messages import Message, Parcel, SentBroadcast

A, B = Member("a", 0), Member("b", 0)
MIB = bytes(1 << 20)


@dataclass
class Shell:
    told: list[tuple[str, Message]] = field(default_factory=list)
    released: list[Value] = field(default_factory=list)

    def tell(self, peer: str, message: Message) -> None:
        self.told.append((peer, message))

    def release(self, value: Value) -> None:
        self.released.append(value)

    def arrived(self, value: Value) -> None:
        pass

    def settle(self, then: Callable[[], None]) -> None:
        then()


class Peer:
    """With members that are where `there` says."""

    def __init__(self, era: int = 0) -> None:
        self.shell = Shell()
        self.there = {(A, "p"), (B, "q")}
        self.heard: set[str] = set()
        """By whom members here are."""
        self.broadcasts = Broadcasts("me", self.shell, lambda *at: at in self.there)
        self.broadcasts.begin_era(era)
        self.era = era

    def say(self, tag: str, value: Value, member: Member = A) -> None:
        at = Attempt(self.era, member, 0)
        self.broadcasts.say(at, tag, value, lambda peer: peer in self.heard)

    def news(self, peer: str) -> None:
        self.broadcasts.tell_news(peer, lambda _: peer in self.heard)

    def told(self, peer: str) -> list[Value]:
        """Values, since it was asked last."""
        told, self.shell.told = self.shell.told, []
        return [one.value for to, one in told if to == peer and isinstance(one, SentBroadcast)]

    def hear(self, peer: str, member: Member, time: int, value: Value, tag: str = "t") -> None:
        assert not isinstance(value, Remote)
        self.broadcasts.handle(peer, SentBroadcast(self.era, *member, tag, time, value))

    def latest(self, tag: str = "t") -> Value | None:
        said = self.broadcasts.latest(tag, lambda _: True)
        return None if said is None else said.value


def test_who_hears_a_sender_only_later_is_told_then_what_was_said() -> None:
    peer = Peer()
    peer.broadcasts.link_up("p", lambda _: False)
    peer.say("t", b"1")
    peer.say("u", b"2")
    assert peer.told("p") == []
    peer.heard.add("p")
    peer.news("p")
    assert peer.told("p") == [b"1", b"2"]
    peer.news("p")
    assert peer.told("p") == []
    peer.say("t", b"3")
    assert peer.told("p") == [b"3"]


def test_who_hears_a_sender_no_more_for_a_while_is_told_what_was_said_meanwhile() -> None:
    peer = Peer()
    peer.heard.add("p")
    peer.broadcasts.link_up("p", lambda _: True)
    peer.say("t", b"1")
    assert peer.told("p") == [b"1"]
    peer.heard.clear()
    peer.news("p")
    peer.say("t", b"2")
    assert peer.told("p") == []
    peer.heard.add("p")
    peer.news("p")
    assert peer.told("p") == [b"2"]


def test_whose_link_is_down_is_told_all_when_it_is_up() -> None:
    peer = Peer()
    peer.heard.add("p")
    peer.broadcasts.link_up("p", lambda _: True)
    peer.broadcasts.link_down("p")
    peer.say("t", b"1")
    assert peer.told("p") == []
    peer.broadcasts.link_up("p", lambda _: True)
    assert peer.told("p") == [b"1"]


def test_in_another_era_peers_are_told_what_is_said_there() -> None:
    peer = Peer()
    peer.heard.add("p")
    peer.broadcasts.link_up("p", lambda _: True)
    peer.say("t", b"1")
    peer.told("p")
    peer.era = 1
    peer.broadcasts.begin_era(1)
    peer.say("t", b"2")
    assert peer.told("p") == [b"2"]


@given(st.lists(st.sampled_from(["say", "up", "down", "hear", "not", "news", "era"]), max_size=30))
def test_who_is_linked_and_hears_knows_the_latest(steps: list[str]) -> None:
    peer, known, is_up = Peer(), dict[str, Value](), False
    for count, step in enumerate(steps):
        match step:
            case "say":
                peer.say(f"t{count % 3}", b"%d" % count)
            case "up":
                is_up = True
                peer.broadcasts.link_up("p", lambda _: "p" in peer.heard)
            case "down":
                is_up = False
                peer.broadcasts.link_down("p")
            case "hear" | "not":
                (peer.heard.add if step == "hear" else peer.heard.discard)("p")
                if is_up:
                    peer.news("p")
            case "news" if is_up:
                peer.news("p")
            case "era":
                peer.era += 1
                peer.broadcasts.begin_era(peer.era)
                known.clear()
        for _, one in peer.shell.told:
            assert isinstance(one, SentBroadcast)
            assert one.era == peer.era
            known[one.tag] = one.value
        peer.shell.told.clear()
        if is_up and "p" in peer.heard:
            assert known == {kept.tag: kept.value for kept in peer.broadcasts.said_by(A)}


def test_nobody_is_believed_who_speaks_for_a_member_that_is_elsewhere() -> None:
    peer = Peer()
    peer.hear("p", A, 1, b"own")
    peer.hear("q", A, 9, b"of another")
    assert peer.latest() == b"own"
    peer.there.add((A, "q"))  # its next attempt was placed there
    peer.broadcasts.look()
    assert peer.latest() == b"of another"
    peer.there.clear()
    peer.broadcasts.look()
    assert peer.latest() == b"of another"


def test_what_was_said_before_the_roster_is_heard_with_it() -> None:
    peer = Peer()
    peer.there.clear()
    peer.hear("p", A, 1, b"early")
    assert peer.latest() is None
    peer.there.add((A, "p"))
    peer.broadcasts.look()
    assert peer.latest() == b"early"


def test_no_clock_keeps_a_later_value_from_taking_the_place_of_an_earlier_one() -> None:
    peer = Peer()
    peer.hear("q", B, LATEST, b"of the last day", tag="other")
    for value in (b"1", b"2"):
        peer.say("mine", value)
        peer.hear("p", A, 5, value)
    assert (peer.latest("mine"), peer.latest()) == (b"2", b"2")
    assert peer.shell.released == [b"1", b"1"]
    (said,) = peer.broadcasts.said_by(A)
    assert said.time <= STEP + 3
    peer.era = 1
    peer.broadcasts.begin_era(1)
    peer.say("mine", b"3")
    assert peer.broadcasts.said_by(A)[0].time == 1


def test_a_value_said_here_later_is_later_whatever_clocks_others_have() -> None:
    peer = Peer()
    peer.hear("q", B, LATEST, b"first")
    peer.say("t", b"second", member=A)
    assert peer.latest() == b"second"


def test_a_peer_that_begins_anew_with_another_clock_is_heard() -> None:
    peer = Peer()
    first, second = Parcel(bytes(16), 9), Parcel(bytes([1] * 16), 9)
    peer.hear("p", A, 7, first)
    peer.hear("p", A, 1, second)
    assert peer.latest() == Remote("p", second)
    assert peer.shell.released == [Remote("p", first)]


def test_what_is_told_again_is_not_released() -> None:
    peer = Peer()
    parcel = Parcel(bytes(16), 9)
    for _ in range(2):
        peer.hear("p", A, 7, parcel)
    assert peer.shell.released == []
    assert peer.latest() == Remote("p", parcel)


def ahead(peer: Peer, source: str, tag: str, value: bytes, era: int = 1) -> None:
    peer.broadcasts.handle(source, SentBroadcast(era, *A, tag, 1, value))


def test_what_comes_of_an_era_that_has_not_begun_takes_no_more_room_than_of_one_that_has() -> None:
    peer = Peer()
    most = SAID.size >> 20
    for number in range(most):
        ahead(peer, "p", f"t{number}", MIB)
    with pytest.raises(RemoteProtocolError, match="more than a node may"):
        ahead(peer, "p", "one more", MIB)
    ahead(peer, "q", "t", b"of another peer")
    peer.there.add((A, "q"))
    assert peer.broadcasts.begin_era(1) == ["t"]
    assert peer.latest() == b"of another peer"


def test_of_an_era_to_come_the_latest_under_each_tag_counts() -> None:
    peer = Peer()
    for number in range(SAID.letters + 1):
        ahead(peer, "p", "t", b"%d" % number)
    assert peer.broadcasts.begin_era(1) == ["t"]
    assert peer.latest() == b"%d" % SAID.letters


def test_all_that_may_come_of_an_era_is_taken_in_when_it_begins() -> None:
    peer = Peer()
    for number in range(SAID.size >> 20):
        peer.hear("p", A, 1, MIB, tag=f"before {number}")
        ahead(peer, "p", f"t{number}", MIB)
    assert len(peer.broadcasts.begin_era(1)) == SAID.size >> 20


def test_what_came_of_an_era_to_come_is_void_once_its_peer_is_in_a_later_one_or_gone() -> None:
    peer = Peer()
    ahead(peer, "p", "old", b"1", era=1)
    ahead(peer, "p", "new", b"2", era=2)
    ahead(peer, "p", "old", b"3", era=1)
    ahead(peer, "q", "gone", b"4", era=1)
    peer.broadcasts.link_down("q")
    assert peer.broadcasts.begin_era(1) == []
    assert peer.broadcasts.begin_era(2) == ["new"]


def test_a_swarm_that_is_over_takes_nothing_in() -> None:
    peer = Peer()
    peer.say("t", b"mine")
    ahead(peer, "p", "t", b"early")
    peer.broadcasts.close()
    assert peer.shell.released == [b"mine"]
    assert peer.latest() is None


def test_a_value_that_its_holder_lost_leaves_nothing_behind() -> None:
    peer = Peer()
    for number in range(20):
        parcel, member = Parcel(bytes([number] * 16), 9), Member("a", number)
        peer.hear("p", member, 1, parcel)
        peer.broadcasts.lose(Remote("p", parcel))
    assert not peer.broadcasts._believed
    assert not peer.broadcasts._strangers
    assert peer.latest() is None


def test_of_two_at_one_time_the_greater_member_counts() -> None:
    peer = Peer()
    peer.hear("q", B, 3, b"b")
    peer.hear("p", A, 3, b"a")
    assert peer.broadcasts.latest("t", lambda _: True) == Said(3, B, "q", b"b")


def test_of_a_member_that_is_elsewhere_now_what_it_said_there_counts() -> None:
    """Its former peer is gone, whose clock was ahead."""
    peer = Peer()
    peer.hear("p", A, 100, b"former")
    peer.broadcasts.link_down("p")
    peer.there = {(A, "r"), (B, "q")}
    peer.broadcasts.look()
    assert peer.latest() == b"former", "it has said nothing yet where it is"
    peer.hear("r", A, 1, b"now")
    assert peer.latest() == b"now"
    peer.hear("q", B, 50, b"of another")
    assert peer.latest() == b"of another"


def test_whether_something_was_said_last_is_known_without_a_look_at_all_else() -> None:
    peer = Peer()
    for number in range(100):
        peer.say(f"t{number}", b"1")
    said = peer.broadcasts.said_by(A)
    peer.say("t7", b"2")
    assert [one.tag for one in said if not peer.broadcasts.says(A, one)] == ["t7"]
    assert not any(peer.broadcasts.says(B, one) for one in said)
