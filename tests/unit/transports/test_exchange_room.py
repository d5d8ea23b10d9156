"""What a peer can make another one keep of its letters, whatever it says."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange import credit, letters, messages
from manta.transports.exchange.channels import Load, Member, Room, Source
from manta.transports.exchange.credit import MOST_WANTS, RESERVE, SHARE, UNREAD, Rooms
from manta.transports.exchange.group import Group
from manta.transports.exchange.letters import Attempt, Letters, Value
from manta.transports.exchange.messages import KnownLetters, Message, SentLetter
from manta.transports.exchange.outbox import Stream
from manta.transports.exchange.waits import Outlook

MINE, THEIRS = Member("mine", 0), Member("theirs", 0)


class Shell:
    def __init__(self) -> None:
        self.told: list[tuple[str, Message]] = []
        self.released: list[Value] = []

    def tell(self, peer: str, message: Message) -> None:
        self.told.append((peer, message))

    def release(self, value: Value) -> None:
        self.released.append(value)

    def arrived(self, value: Value) -> None:
        pass

    def settle(self, then: Callable[[], None]) -> None:
        then()

    def of(self, kind: type) -> list[Any]:
        told, self.told = self.told, []
        return [message for _, message in told if isinstance(message, kind)]


def box(era: int = 0) -> tuple[Letters, Shell]:
    shell = Shell()
    found = Letters("me", shell)
    found.era = era
    return found, shell


def sent(serial: int, tag: str = "t", member: Member = THEIRS, value: bytes = b"x") -> SentLetter:
    return SentLetter(0, *member, tag, serial, value)


def known(tag: str, count: int, *kept: int) -> KnownLetters:
    return KnownLetters(tag, 0, *MINE, count, kept)


def sends(box: Letters, count: int, to: str = "p", tag: str = "t") -> None:
    for number in range(count):
        assert box.flow.has_room(MINE, to, 1)
        box.send(Attempt(box.era, MINE, 0), to, tag, b"%d" % number)


def test_what_a_peer_says_that_it_knows_takes_no_memory_but_of_what_it_was_sent() -> None:
    box_, _ = box()
    sends(box_, 3)
    for number in range(50):
        many = tuple(range(number * 1000, (number + 1) * 1000))
        said = known("t", 2, *many), known(f"u{number}", 9, *many)
        box_.handle("p", messages.Known(said, False))
    learning = box_.outbox("p")._learning
    assert learning is not None
    assert learning.known == {Stream("t", 0, MINE): (2, {0, 1, 2})}


def test_letters_sent_while_a_peer_says_what_it_knows_are_told_and_not_forgotten() -> None:
    box_, shell = box()
    sends(box_, 2)
    box_.handle("p", messages.Known((known("t", 5, 0, 1, 2),), False))
    sends(box_, 1)
    shell.told.clear()
    box_.handle("p", messages.Known((), True))
    assert [one.serial for one in shell.of(SentLetter)] == [2]
    assert len(box_.outbox("p")) == 3


def test_room_is_wanted_by_so_many_and_for_what_can_be_sent() -> None:
    box_, _ = box()
    with pytest.raises(RemoteProtocolError, match="larger than any"):
        box_.handle("p", messages.WantRoom("w", 0, SHARE.size + 1))
    rooms = Rooms(Load())
    for number in range(MOST_WANTS):
        rooms.check_want(("p", Member("w", number)), 1)
        rooms.want(("p", Member("w", number)), 1)
    rooms.check_want(("p", Member("w", 0)), 1)
    rooms.check_want(("q", Member("w", MOST_WANTS)), 1)
    with pytest.raises(RemoteProtocolError, match="want room"):
        rooms.check_want(("p", Member("w", MOST_WANTS)), 1)
    rooms.forget("p")
    rooms.check_want(("p", Member("w", MOST_WANTS)), 1)


def test_a_peer_takes_none_of_the_reserve_of_another_ones_member() -> None:
    box_, _ = box()
    for serial in range(UNREAD.letters):
        box_.handle("q", sent(serial))
    assert box_.flow.rooms.room(("p", THEIRS)).letters == RESERVE.letters
    assert box_.flow.rooms.room(("q", THEIRS)).letters == 0


def test_whose_letter_was_read_is_served_though_many_wait_before_it() -> None:
    rooms = Rooms(Load())
    rooms.box.all.add(0, UNREAD.letters)
    waiting = [("p", Member("w", number)) for number in range(500)]
    for sender in waiting:
        rooms.box.of[sender] = Load(RESERVE.letters, 0)
        rooms.want(sender, 1)
    assert rooms.served() == []
    rooms.box.of[waiting[-1]].add(0, -1)
    assert rooms.served(waiting[-1]) == [(waiting[-1], Room(1, SHARE.size))]
    assert rooms.wanted(waiting[-1]) is None
    rooms.box.all.add(0, -UNREAD.letters)
    assert len(rooms.served()) == 499


def test_all_peers_together_have_a_bound_and_who_has_little_there_goes_on() -> None:
    rooms = Rooms(Load())
    rooms.box.all.add(0, credit.MOST_UNREAD.letters)
    rooms.check(Source(letters=RESERVE.letters - 1, peer="p"), 1)
    with pytest.raises(RemoteProtocolError, match="more than a node can have"):
        rooms.check(Source(letters=RESERVE.letters, peer="p"), 1)


def test_letters_under_a_known_tag_come_however_many_tags_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(letters, "MOST_STREAMS", 3)
    box_, _ = box()
    for tag in "abc":
        box_.handle("p", sent(0, tag))
    box_.handle("p", sent(1, "a"))
    with pytest.raises(RemoteProtocolError, match="tags"):
        box_.handle("p", sent(0, "d"))
    with pytest.raises(RemoteProtocolError, match="tags"):
        box_.handle("p", sent(0, "a", Member("theirs", 1)))
    at = Attempt(0, MINE, 0)
    assert box_.receive(at, "p", "e", 0) is None  # what is asked for here is nothing of the peer's
    assert box_.receive(at, "p", "a", 0) is not None
    box_.settle(at, counts=True)
    box_.receive(at, "p", "a", 0)
    box_.settle(at, counts=True)
    box_.end_era(0, ["p"])
    box_.forget_senders("p", 0)
    box_.handle("p", sent(0, "d"))


def test_what_attempts_asked_for_in_vain_leaves_nothing_behind() -> None:
    box_, _ = box()
    for number in range(50):
        at = Attempt(box_.era, MINE, 0)
        assert box_.receive(at, f"made-up-{number}", "t", 0) is None
        box_.fail_attempt(at)
        box_.end_era(box_.era, [])
    assert not box_.channels
    assert not box_._tags
    assert not box_._sources


def test_who_waits_for_room_is_granted_it_after_the_receiver_has_changed_its_iteration() -> None:
    box_, shell = box()
    for serial in range(UNREAD.letters + RESERVE.letters):
        box_.handle("p", sent(serial))
    box_.handle("p", messages.EraEnded(0))
    box_.handle("p", messages.WantRoom(*THEIRS, 1))
    assert shell.of(messages.Full)
    box_.end_era(0, ["p"])
    at = Attempt(1, MINE, 0)
    for number in range(UNREAD.letters):
        assert box_.receive(at, "p", "t", number) is not None
    assert shell.of(messages.Granted)


def test_what_a_peer_wanted_in_an_iteration_that_it_has_ended_is_not_granted_in_the_next() -> None:
    box_, shell = box()
    for serial in range(UNREAD.letters + RESERVE.letters):
        box_.handle("p", sent(serial))
    box_.handle("p", messages.WantRoom(*THEIRS, 1))
    box_.handle("p", messages.EraEnded(0))
    at = Attempt(0, MINE, 0)
    for number in range(UNREAD.letters):
        box_.receive(at, "p", "t", number)
    assert not shell.of(messages.Granted)


def test_a_letter_to_a_node_that_is_there_no_more_is_kept_in_its_iteration_and_the_next() -> None:
    box_, shell = box()
    sends(box_, 2)
    for era in (1, 2):
        assert len(box_.outbox("p")) == 2
        box_.end_era(era - 1, [])
        box_.forget_lost(lambda peer: peer == "p")
    assert "p" not in box_.outboxes
    assert box_.kept == Load()
    assert shell.released == [b"0", b"1"]
    sends(box_, 1)
    assert len(box_.outbox("p")) == 1


def test_a_letter_to_a_node_that_is_there_is_kept_until_it_is_received() -> None:
    box_, _ = box()
    sends(box_, 1)
    for era in range(5):
        box_.end_era(era, [])
        box_.forget_lost(lambda peer: False)
    assert len(box_.outbox("p")) == 1


counts = st.integers(0, 4) | st.sampled_from([(1 << 53) - 1])
names = st.sampled_from(["t", "u"])
values = st.sampled_from([b"", b"x", messages.Parcel(bytes(16), 1 << 40)])
letter_names = st.builds(messages.LetterName, names, counts, names, counts, counts)
known_letters = st.builds(
    KnownLetters, names, counts, names, counts, counts, st.lists(counts, max_size=3).map(tuple)
)
said = st.one_of(
    st.builds(SentLetter, counts, names, counts, names, counts, values),
    st.builds(messages.Known, st.lists(known_letters, max_size=2).map(tuple), st.booleans()),
    st.builds(messages.Consumed, st.lists(letter_names, max_size=2).map(tuple)),
    st.builds(messages.EraEnded, counts, counts),
    st.builds(messages.EraForgotten, counts, counts),
    st.builds(messages.WantRoom, names, counts, counts),
    st.builds(messages.Granted, names, counts, counts, counts),
    st.builds(messages.Full, names, counts, names),
    st.builds(messages.SentBroadcast, counts, names, counts, names, counts, values),
    st.builds(messages.Flush, counts),
    st.builds(messages.Flushed, counts),
)


class Anybody:
    """A roster by which all may talk, and nobody is certain."""

    def __init__(self, era: int) -> None:
        self.era = era

    def peers(self) -> Iterable[str]:
        return ("p", "q")

    def name(self, peer: str) -> str:
        return peer

    def is_lost(self, peer: str) -> bool:
        return False

    def refusal(self, sender: Attempt, peer: str) -> str:
        return ""

    def hears(self, task: str, peer: str, sender: Member) -> bool:
        return True

    def is_there(self, member: Member, peer: str) -> bool:
        return True

    def may_send(self, reader: Attempt, peer: str | None) -> bool:
        return True

    def of_letter(self, reader: Attempt, peer: str, tag: str) -> Outlook:
        return Outlook("", "it may come")

    def of_broadcast(self, reader: Attempt, tag: str) -> Outlook:
        return Outlook("", "it may come")

    def counted(self, at: Attempt) -> bool | None:
        return None


class Heard:
    def __init__(self) -> None:
        self.ends = 0

    def answer(self, value: Value | None) -> None:
        self.ends += 1

    def fail(self, kind: str, sentence: str) -> None:
        self.ends += 1


def test_a_channel_that_gave_an_ended_attempt_nothing_is_forgotten_with_its_sender() -> None:
    group, at = Group("me", Shell(), Anybody(0)), Attempt(0, MINE, 0)
    group.link_up("p")
    group.handle("p", messages.Known((), False))
    group.begin(at)
    group.receive(Heard(), at, "p", "t", 0, 5, 0)
    group.end(at, counts=True)
    assert at not in group.letters.claiming
    group.roster_changed(Anybody(1))
    group.handle("p", messages.EraForgotten(1 << 40, 0))
    assert ("p", "t") not in group.letters.channels
    group.begin(at)
    assert group.end(at, counts=True) is None


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from("pq"), said), max_size=25), st.integers(0, 1 << 30))
def test_whatever_peers_say_attempts_here_go_on_and_iterations_begin(
    told: list[tuple[str, Message]], seed: int
) -> None:
    group, dice = Group("me", Shell(), Anybody(0)), random.Random(seed)
    for peer in "pq":
        group.link_up(peer)
    for peer, message in told:
        at = Attempt(group.era, MINE, 0)
        with contextlib.suppress(RemoteProtocolError):
            group.handle(peer, message)
        match dice.randrange(6):
            case 0:
                group.roster_changed(Anybody(group.era + 1))
            case 1:
                group.begin(at)
                group.broadcast(at, "t", b"mine")
                assert [one.value for one in group.broadcasts.said_by(MINE)] == [b"mine"]
            case 2:
                group.begin(at)
                group.receive(Heard(), at, peer, "t", group.letters.claims(at, peer, "t"), 5, 0)
            case 3:
                group.begin(at)
                group.send(Heard(), at, peer, "u", b"x", 5, 0)
            case 4:
                group.begin(at)
                group.end(at, counts=dice.random() < 0.5)
            case 5:
                group.link_down(peer)
                group.link_up(peer)
    heard = Heard()
    group.roster_changed(Anybody(group.era + 1))
    at = Attempt(group.era, MINE, 0)
    group.begin(at)
    group.send(heard, at, "me", "own", b"1", 5, 0)
    group.receive(heard, at, "me", "own", 0, 5, 0)
    assert heard.ends == 2
    group.close()
