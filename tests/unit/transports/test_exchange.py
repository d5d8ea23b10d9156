"""Letters and broadcasts between peers whose links go down, whatever the order of events."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange import messages
from manta.transports.exchange.channels import Member
from manta.transports.exchange.credit import RESERVE, UNREAD
from manta.transports.exchange.group import MOST_FLUSHES, MOST_KNOWN, MOST_WANTS, Group
from manta.transports.exchange.kept import Kept, KeptBroadcast, KeptLetter, Received
from manta.transports.exchange.letters import Attempt, Remote, Value
from manta.transports.exchange.waits import Outlook

NAMES = ("a", "b", "c")


class Everybody:
    """All members run, on all peers, until they are taken out."""

    def __init__(self, era: int = 0) -> None:
        self.era = era
        self.left: dict[str, list[str]] = {name: [name] for name in NAMES}
        self.lost: set[str] = set()
        self.verdicts: dict[Attempt, bool] = {}

    def counted(self, at: Attempt) -> bool | None:
        return self.verdicts.get(at, True if at.era < self.era else None)

    def peers(self) -> Iterable[str]:
        return NAMES

    def name(self, peer: str) -> str:
        return peer

    def refusal(self, sender: Attempt, peer: str) -> str:
        return "" if peer in NAMES else f"{peer} is not here."

    def hears(self, task: str, peer: str, sender: Member) -> bool:
        return True

    def is_there(self, member: Member, peer: str) -> bool:
        return True

    def may_send(self, reader: Attempt, peer: str | None) -> bool:
        return any(self.left.values()) if peer is None else bool(self.left[peer])

    def of_letter(self, reader: Attempt, peer: str, tag: str) -> Outlook:
        if self.left[peer]:
            return Outlook("", f"no letter {tag} has come from {peer}")
        return Outlook("PeerLost", "nothing is left there")

    def of_broadcast(self, reader: Attempt, tag: str) -> Outlook:
        return Outlook("" if any(self.left.values()) else "NothingSent", "nobody said anything")

    def is_lost(self, peer: str) -> bool:
        return peer in self.lost


class Asked:
    """A request that is answered once."""

    def __init__(self, peer: Peer, name: object) -> None:
        self.peer = peer
        self.name = name

    def answer(self, value: Value | None) -> None:
        assert self.name not in self.peer.answers.keys() | self.peer.failures.keys()
        self.peer.answers[self.name] = value

    def fail(self, kind: str, sentence: str) -> None:
        assert self.name not in self.peer.answers.keys() | self.peer.failures.keys()
        self.peer.failures[self.name] = kind, sentence


class Peer:
    def __init__(
        self, net: Net, name: str, roster: Everybody, restored: Sequence[Kept] = ()
    ) -> None:
        self.net = net
        self.name = name
        self.answers: dict[object, Value | None] = {}
        self.failures: dict[object, tuple[str, str]] = {}
        self.released: list[Value] = []
        self.group = Group(name, self, roster, restored)

    def tell(self, peer: str, message: messages.Message) -> None:
        self.net.tell(self.name, peer, message)

    def release(self, value: Value) -> None:
        self.released.append(value)

    def arrived(self, value: Value) -> None:
        pass

    def settle(self, then: Callable[[], None]) -> None:
        then()

    def ask(self, name: object) -> Asked:
        """A request whose end is found under the name."""
        return Asked(self, name)


class Net:
    """Links that keep their order and lose what is on the way when they go down."""

    def __init__(self) -> None:
        self.roster = Everybody()
        self.on_the_way: dict[tuple[str, str], deque[messages.Message]] = {}
        self.peers = {name: Peer(self, name, self.roster) for name in NAMES}

    def tell(self, source: str, to: str, message: messages.Message) -> None:
        if (source, to) in self.on_the_way:
            self.on_the_way[source, to].append(message)

    def up(self, one: str, other: str) -> None:
        if (one, other) not in self.on_the_way:
            self.on_the_way[one, other] = deque()
            self.on_the_way[other, one] = deque()
            self.peers[one].group.link_up(other)
            self.peers[other].group.link_up(one)

    def down(self, one: str, other: str) -> None:
        if (one, other) in self.on_the_way:
            del self.on_the_way[one, other], self.on_the_way[other, one]
            self.peers[one].group.link_down(other)
            self.peers[other].group.link_down(one)

    def deliver(self, source: str, to: str) -> None:
        if way := self.on_the_way.get((source, to)):
            self.peers[to].group.handle(source, way.popleft())

    def settle(self) -> None:
        for one in NAMES:
            for other in NAMES:
                if one < other:
                    self.up(one, other)
        while any(self.on_the_way.values()):
            for way in list(self.on_the_way):
                self.deliver(*way)


class Program:
    """A member that sends numbered letters to all peers, and receives all that come to its own."""

    def __init__(self, net: Net, peer: str, rank: int, count: int) -> None:
        self.net = net
        self.peer = peer
        self.member = Member("t", rank)
        self.count = count
        self.attempts = 0
        self.begin()

    def begin(self) -> None:
        self.at = Attempt(0, self.member, self.attempts)
        self.attempts += 1
        self.sent = 0
        self.received: dict[str, list[bytes]] = {name: [] for name in NAMES}
        self.waiting: dict[str, object] = {}
        self.node.group.begin(self.at)

    @property
    def node(self) -> Peer:
        return self.net.peers[self.peer]

    @property
    def is_done(self) -> bool:
        return self.sent == len(NAMES) * self.count and all(
            len(got) == self.count for got in self.received.values()
        )

    def send(self) -> None:
        if self.sent < len(NAMES) * self.count:
            to = NAMES[self.sent % len(NAMES)]
            number = self.sent // len(NAMES)
            self.sent += 1
            value = f"{self.peer} {number}".encode()
            self.node.group.send(
                self.node.ask(("send", self.at, self.sent)), self.at, to, "x", value, 9.0, 0.0
            )

    def receive(self, source: str) -> None:
        if len(self.received[source]) < self.count and source not in self.waiting:
            number = len(self.received[source])
            request: object = ("receive", self.at, source, number)
            self.waiting[source] = request
            self.node.group.receive(self.node.ask(request), self.at, source, "x", number, 9.0, 0.0)
        asked = self.waiting.get(source)
        if asked in self.node.answers:
            del self.waiting[source]
            value = self.node.answers[asked]
            assert isinstance(value, bytes)
            self.received[source].append(value)

    def fail(self) -> None:
        self.node.group.end(self.at, counts=False)
        self.begin()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 40), st.integers(1, 12))
def test_each_letter_comes_once_and_in_order_whatever_links_and_attempts_do(
    seed: int, count: int
) -> None:
    dice = random.Random(seed)
    net = Net()
    programs = [Program(net, name, rank, count) for rank, name in enumerate(NAMES)]
    for _ in range(400):
        program, (one, other) = dice.choice(programs), dice.sample(NAMES, 2)
        match dice.randrange(12):
            case 0:
                net.up(one, other)
            case 1 if dice.random() < 0.3:
                net.down(one, other)
            case 2 if dice.random() < 0.1:
                program.fail()
            case 3 | 4 | 5:
                program.send()
            case 6 | 7 | 8:
                program.receive(dice.choice(NAMES))
            case _:
                net.deliver(one, other)
    for _ in range(200 * count):
        net.settle()
        if all(program.is_done for program in programs):
            break
        for program in programs:
            program.send()
            for name in NAMES:
                program.receive(name)
    for program in programs:
        for source, got in program.received.items():
            assert got == [f"{source} {number}".encode() for number in range(count)]
        assert not program.node.failures.keys() - {
            request
            for request in program.node.failures
            if request[1] != program.at  # type: ignore[index]
        }
    for program in programs:
        program.node.group.end(program.at, counts=True)
        net.roster.verdicts[program.at] = True
    for peer in net.peers.values():
        peer.group.roster_changed(net.roster)
    net.settle()
    for peer in net.peers.values():
        assert peer.group.letters.kept.letters == 0
        assert peer.group.letters.kept.size == 0


def request_for(peer: Peer, at: Attempt, source: str, tag: str = "x") -> str:
    peer.group.receive(peer.ask("r"), at, source, tag, 0, 5.0, 0.0)
    return "r"


def test_a_wait_is_in_vain_only_when_all_that_was_sent_has_come() -> None:
    net = Net()
    net.up("a", "b")
    net.settle()
    reader, sender = Attempt(0, Member("t", 0), 0), Attempt(0, Member("t", 1), 0)
    net.peers["a"].group.begin(reader)
    net.peers["b"].group.begin(sender)
    net.peers["b"].group.send(net.peers["b"].ask("s"), sender, "a", "x", b"late", 5.0, 0.0)
    net.peers["b"].group.end(sender, counts=True)
    net.roster.left["b"] = []
    request_for(net.peers["a"], reader, "b")
    assert not net.peers["a"].failures
    net.settle()
    assert net.peers["a"].answers["r"] == b"late"
    net.peers["a"].group.receive(net.peers["a"].ask("r2"), reader, "b", "x", 1, 5.0, 0.0)
    net.settle()
    kind, sentence = net.peers["a"].failures["r2"]
    assert kind == "PeerLost"
    assert "nothing is left there" in sentence


def test_a_wait_for_a_lost_peer_ends_at_once() -> None:
    net = Net()
    reader = Attempt(0, Member("t", 0), 0)
    net.peers["a"].group.begin(reader)
    request_for(net.peers["a"], reader, "b")
    net.roster.left["b"], net.roster.lost = [], {"b"}
    net.peers["a"].group.roster_changed(net.roster)
    assert net.peers["a"].failures["r"][0] == "PeerLost"


def fill(net: Net, sender: Attempt) -> int:
    """Sends from b to a, which receives none, until one waits for room; returns its number."""
    net.settle()
    net.peers["b"].group.begin(sender)
    sent = 0
    while True:
        net.peers["b"].group.send(
            net.peers["b"].ask(sent), sender, "a", "x", bytes(60_000), 7.0, 0.0
        )
        net.settle()
        if sent not in net.peers["b"].answers:
            return sent
        sent += 1


def test_who_has_sent_little_has_room_where_another_has_filled_the_receiver_up() -> None:
    net = Net()
    fill(net, Attempt(0, Member("t", 1), 0))
    for peer, rank in (("b", 3), ("c", 2)):  # on the same node, and on another
        group, other = net.peers[peer].group, Attempt(0, Member("t", rank), 0)
        group.begin(other)
        for number in range(RESERVE.letters):
            name = rank, number
            group.send(net.peers[peer].ask(name), other, "a", "x", b"little", 7.0, 0.0)
            net.settle()
            assert name in net.peers[peer].answers


def test_who_sends_to_one_that_does_not_receive_waits_and_is_told_why() -> None:
    net = Net()
    sender = Attempt(0, Member("t", 1), 0)
    sent = fill(net, sender)
    assert 64 << 20 <= sent * 60_000 <= 72 << 20
    assert net.peers["b"].group.due == 7.0
    net.peers["b"].group.tick(7.0)
    kind, sentence = net.peers["b"].failures[sent]
    assert kind == "ReceiverFull"
    assert "unread" in sentence
    reader = Attempt(0, Member("t", 0), 0)
    net.peers["a"].group.begin(reader)
    net.peers["b"].group.send(net.peers["b"].ask("next"), sender, "a", "x", bytes(60_000), 7.0, 0.0)
    for number in range(100):
        net.peers["a"].group.receive(net.peers["a"].ask(number), reader, "b", "x", number, 7.0, 0.0)
    net.settle()
    assert "next" in net.peers["b"].answers


def test_letters_that_nobody_claimed_outlive_their_era_at_both_ends() -> None:
    net = Net()
    net.settle()
    sender = Attempt(0, Member("t", 1), 0)
    net.peers["b"].group.begin(sender)
    net.peers["b"].group.send(net.peers["b"].ask("s"), sender, "a", "x", b"kept", 5.0, 0.0)
    net.settle()
    net.peers["b"].group.end(sender, counts=True)
    after = Everybody(era=1)
    for peer in net.peers.values():
        peer.group.roster_changed(after)
    net.settle()
    net.down("a", "b")
    net.settle()
    reader = Attempt(1, Member("t", 0), 0)
    net.peers["a"].group.begin(reader)
    request_for(net.peers["a"], reader, "b")
    assert net.peers["a"].answers["r"] == b"kept"
    assert net.peers["b"].group.letters.kept.letters == 1
    net.peers["a"].group.end(reader, counts=True)
    net.settle()
    assert net.peers["b"].group.letters.kept.letters == 1
    after.verdicts[reader] = True
    net.peers["a"].group.roster_changed(after)
    net.settle()
    assert net.peers["b"].group.letters.kept.letters == 0


def test_a_peer_that_comes_back_with_nothing_is_told_all_again() -> None:
    net = Net()
    net.settle()
    sender = Attempt(0, Member("t", 1), 0)
    net.peers["b"].group.begin(sender)
    for number in range(3):
        net.peers["b"].group.send(
            net.peers["b"].ask(number), sender, "a", "x", b"%d" % number, 5.0, 0.0
        )
    net.settle()
    net.down("a", "b")
    net.down("a", "c")
    net.peers["a"] = Peer(net, "a", net.roster)
    net.settle()
    reader = Attempt(0, Member("t", 0), 1)
    net.peers["a"].group.begin(reader)
    for number in range(3):
        net.peers["a"].group.receive(net.peers["a"].ask(number), reader, "b", "x", number, 5.0, 0.0)
    assert net.peers["a"].answers == {0: b"0", 1: b"1", 2: b"2"}


def test_the_latest_broadcast_is_the_same_for_all_who_have_heard_both() -> None:
    net = Net()
    attempts = {name: Attempt(0, Member("t", rank), 0) for rank, name in enumerate(NAMES)}
    for name, at in attempts.items():
        net.peers[name].group.begin(at)
        net.peers[name].group.broadcast(at, "m", name.encode())
    net.settle()
    for name, at in attempts.items():
        net.peers[name].group.get_broadcast(net.peers[name].ask("r"), at, "m", 5.0, 0.0)
        assert net.peers[name].answers["r"] == b"c"
    net.peers["a"].group.broadcast(attempts["a"], "m", b"later")
    net.settle()
    for name, at in attempts.items():
        net.peers[name].group.get_broadcast(net.peers[name].ask("r2"), at, "m", 5.0, 0.0)
        assert net.peers[name].answers["r2"] == b"later"


def test_a_large_broadcast_is_named_and_released_when_a_later_one_replaces_it() -> None:
    net = Net()
    net.settle()
    at = Attempt(0, Member("t", 0), 0)
    net.peers["a"].group.begin(at)
    first, second = (messages.Parcel(bytes([n]) * 16, 1 << 30) for n in (1, 2))
    net.peers["a"].group.broadcast(at, "m", first)
    net.settle()
    reader = Attempt(0, Member("t", 1), 0)
    net.peers["b"].group.begin(reader)
    net.peers["b"].group.get_broadcast(net.peers["b"].ask("r"), reader, "m", 5.0, 0.0)
    assert net.peers["b"].answers["r"] == Remote("a", first)
    net.peers["a"].group.broadcast(at, "m", second)
    net.settle()
    assert net.peers["a"].released == [first]
    assert net.peers["b"].released == [Remote("a", first)]


def test_who_joins_later_is_told_what_was_said_before_it_listened() -> None:
    net = Net()
    net.settle()
    sender, at = Attempt(0, Member("t", 1), 0), Attempt(0, Member("t", 0), 0)
    net.peers["b"].group.begin(sender)
    net.peers["b"].group.send(net.peers["b"].ask("s"), sender, "a", "x", b"letter", 5.0, 0.0)
    net.peers["b"].group.broadcast(sender, "m", b"said")
    net.on_the_way["b", "a"].clear()  # nobody listened
    net.peers["a"] = Peer(net, "a", net.roster)
    net.peers["a"].group.link_up("b", wants=True)
    net.settle()
    net.peers["a"].group.begin(at)
    request_for(net.peers["a"], at, "b")
    net.peers["a"].group.get_broadcast(net.peers["a"].ask("m"), at, "m", 5.0, 0.0)
    assert net.peers["a"].answers == {"r": b"letter", "m": b"said"}


def test_a_letter_that_is_told_twice_is_not_released() -> None:
    net = Net()
    net.settle()
    sender = Attempt(0, Member("t", 1), 0)
    parcel = messages.Parcel(bytes(16), 1 << 30)
    net.peers["b"].group.begin(sender)
    net.peers["b"].group.send(net.peers["b"].ask("s"), sender, "a", "x", parcel, 5.0, 0.0)
    net.settle()
    net.peers["b"].group.link_up("a", wants=True)
    net.settle()
    assert net.peers["a"].released == []


def test_what_is_for_a_peer_that_was_not_reached_yet_is_kept_up_to_a_bound() -> None:
    net = Net()
    a, at = net.peers["a"], Attempt(0, Member("t", 0), 0)
    a.group.begin(at)
    for number in range(UNREAD.letters + 1):
        a.group.send(a.ask(number), at, "b", "x", b"1", 9.0, 0.0)
    assert len(a.answers) == UNREAD.letters
    a.group.tick(10.0)
    ((kind, sentence),) = a.failures.values()
    assert kind == "ReceiverFull"
    assert "b was never reached" in sentence
    assert sentence.endswith("; no link to b could be made.")
    net.settle()
    b, reader = net.peers["b"], Attempt(0, Member("t", 1), 0)
    b.group.begin(reader)
    for number in range(UNREAD.letters):
        b.group.receive(b.ask(number), reader, "a", "x", number, 9.0, 0.0)
    assert len(b.answers) == UNREAD.letters
    a.group.send(a.ask("late"), at, "b", "x", b"2", 9.0, 0.0)
    net.settle()
    assert "late" in a.answers


def test_who_waited_since_a_peer_was_not_reached_goes_on_when_it_is() -> None:
    net = Net()
    a, at = net.peers["a"], Attempt(0, Member("t", 0), 0)
    a.group.begin(at)
    for number in range(UNREAD.letters + 1):
        a.group.send(a.ask(number), at, "b", "x", b"1", 9.0, 0.0)
    assert UNREAD.letters not in a.answers
    net.settle()
    b, reader = net.peers["b"], Attempt(0, Member("t", 1), 0)
    b.group.begin(reader)
    for number in range(20):
        b.group.receive(b.ask(number), reader, "a", "x", number, 9.0, 0.0)
    net.settle()
    assert UNREAD.letters in a.answers


def test_an_attempt_of_the_next_era_ends_those_of_the_one_before() -> None:
    net = Net()
    a, before, after = net.peers["a"], Attempt(0, Member("t", 0), 0), Attempt(1, Member("t", 0), 0)
    a.group.begin(before)
    a.group.receive(a.ask("old"), before, "b", "x", 0, 9.0, 0.0)
    a.group.begin(after)
    assert a.failures["old"][0] == "SwarmStopped"
    assert not a.group.is_live(before)
    a.group.begin(before)
    assert not a.group.is_live(before)
    a.group.send(a.ask("to itself"), after, "a", "x", b"1", 9.0, 0.0)
    net.roster.era = 1
    a.group.roster_changed(net.roster)  # which begins no era anew
    a.group.receive(a.ask("new"), after, "a", "x", 0, 9.0, 0.0)
    assert a.answers["new"] == b"1"


READER, SENDER = Member("t", 0), Member("t", 1)


def sends(net: Net, values: Sequence[Value], number: int = 0, to: str = "a") -> Kept | None:
    """An attempt on b sends these and ends."""
    at = Attempt(0, SENDER, number)
    group = net.peers["b"].group
    group.begin(at)
    for serial, value in enumerate(values):
        group.send(net.peers["b"].ask(("s", at, serial)), at, to, "x", value, 5.0, 0.0)
    net.settle()
    return group.end(at, counts=True)


def receives(net: Net, count: int, number: int = 0, member: Member = READER) -> list[Value | None]:
    """What an attempt on a is given, as far as it is there."""
    at = Attempt(0, member, number)
    peer = net.peers["a"]
    peer.group.begin(at)
    for place in range(count):
        peer.group.receive(peer.ask((at, place)), at, "b", "x", place, 5.0, 0.0)
    net.settle()
    return [peer.answers.get((at, place)) for place in range(count)]


def again(net: Net, name: str, *restored: Kept | None) -> None:
    """The peer's process begins anew with that."""
    for other in NAMES:
        net.down(min(name, other), max(name, other))
    net.peers[name] = Peer(net, name, net.roster, [one for one in restored if one is not None])
    net.settle()


def test_of_an_attempt_that_exchanged_nothing_nothing_is_kept() -> None:
    net = Net()
    assert sends(net, []) is None
    assert receives(net, 1) == [None]
    assert net.peers["a"].group.end(Attempt(0, READER, 0), counts=True) is None


def test_an_attempt_that_does_not_count_is_kept_nothing_of() -> None:
    net = Net()
    sends(net, [b"0"])
    assert receives(net, 1) == [b"0"]
    assert net.peers["a"].group.end(Attempt(0, READER, 0), counts=False) is None


def test_a_sender_that_comes_back_tells_what_its_ended_attempts_sent() -> None:
    net = Net()
    kept = sends(net, [b"0", b"1"])
    assert kept is not None
    assert kept.items == (KeptLetter("a", "x", 0, b"0"), KeptLetter("a", "x", 1, b"1"))
    again(net, "a")
    again(net, "b", kept)
    assert receives(net, 2) == [b"0", b"1"]


def test_a_receiver_that_comes_back_gives_out_nothing_twice() -> None:
    net = Net()
    sends(net, [b"0", b"1", b"2"])
    assert receives(net, 2) == [b"0", b"1"]
    kept = net.peers["a"].group.end(Attempt(0, READER, 0), counts=True)
    assert kept is not None
    assert kept.items == (Received("b", "x", 0, "t", 1, ((0, 2),)),)
    again(net, "a", kept)
    assert receives(net, 2, member=Member("t", 2)) == [b"2", None]
    assert net.peers["b"].group.letters.kept.letters == 3  # it is not certain yet that it counts
    net.roster.verdicts[Attempt(0, READER, 0)] = True
    net.peers["a"].group.roster_changed(net.roster)
    net.settle()
    assert net.peers["b"].group.letters.kept.letters == 1


@pytest.mark.parametrize("told", ["by the roster", "by the next attempt"])
def test_what_an_attempt_received_that_did_not_count_is_given_to_the_next(told: str) -> None:
    net = Net()
    sends(net, [b"0", b"1"])
    receives(net, 1)
    kept = net.peers["a"].group.end(Attempt(0, READER, 0), counts=True)
    again(net, "a", kept)
    if told == "by the roster":
        net.roster.verdicts[Attempt(0, READER, 0)] = False
        net.peers["a"].group.roster_changed(net.roster)
    assert receives(net, 2, number=1) == [b"0", b"1"]
    group = net.peers["a"].group
    assert kept is not None
    assert group.still(kept) is None


@pytest.mark.parametrize("first", ["the roster", "an attempt"])
@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("begins_anew", [True, False])
def test_who_was_away_until_the_next_era_is_told_what_counted(
    first: str, counts: bool, begins_anew: bool
) -> None:
    """Another attempt may have counted, on another peer."""
    net = Net()
    sends(net, [b"0", b"1"])
    at = Attempt(0, READER, 0)
    assert receives(net, 1) == [b"0"]
    kept = net.peers["a"].group.end(at, counts=True)
    net.roster = after = Everybody(era=1)
    after.verdicts[at] = counts
    reader, letters = Attempt(1, READER, 0), list[Value | None]()
    if begins_anew:
        again(net, "a", kept)
    a = net.peers["a"]
    if first == "the roster":
        a.group.roster_changed(after)
    a.group.begin(reader)
    a.group.roster_changed(after)
    for number in range(2):
        a.group.receive(a.ask(number), reader, "b", "x", number, 5.0, 0.0)
    net.settle()
    letters = [a.answers.get(number) for number in range(2)]
    assert letters == ([b"1", None] if counts else [b"0", b"1"])
    assert net.peers["b"].group.letters.kept.letters == 2 - counts


def test_of_two_that_were_given_a_letter_the_later_one_counts() -> None:
    net = Net()
    sends(net, [b"0", b"1"])
    first = Kept(0, "t", 0, 0, (Received("b", "x", 0, "t", 1, ((0, 1),)),))
    later = Kept(0, "t", 2, 0, (Received("b", "x", 0, "t", 1, ((0, 1),)),))
    net.roster.verdicts[Attempt(0, READER, 0)] = False
    again(net, "a", first, later)
    assert receives(net, 2, number=1) == [b"1", None]


def test_a_sender_that_sends_again_what_was_consumed_is_told_so() -> None:
    net = Net()
    sends(net, [b"0", b"1"])
    receives(net, 1)
    net.peers["a"].group.end(Attempt(0, READER, 0), counts=True)
    net.roster.verdicts[Attempt(0, READER, 0)] = True
    net.peers["a"].group.roster_changed(net.roster)
    again(net, "b")  # its attempt was interrupted
    sends(net, [b"0", b"1"], number=1)
    net.settle()
    assert net.peers["b"].group.letters.kept.letters == 1
    assert receives(net, 2, member=Member("t", 2)) == [b"1", None]


def test_a_value_that_its_holder_lost_is_waited_for() -> None:
    net = Net()
    first, second = (messages.Parcel(bytes([n]) * 16, 1 << 30) for n in (1, 2))
    sends(net, [first])
    assert receives(net, 1) == [Remote("b", first)]
    again(net, "b")
    at, peer = Attempt(0, READER, 0), net.peers["a"]
    peer.group.lose(Remote("b", first))
    peer.group.receive(peer.ask("again"), at, "b", "x", 0, 5.0, 0.0)
    net.settle()
    assert "again" not in peer.answers
    sends(net, [second], number=1)
    assert peer.answers["again"] == Remote("b", second)


def test_nobody_is_said_to_have_sent_all_before_it_heard_what_is_known() -> None:
    net = Net()
    kept = sends(net, [b"0"])
    again(net, "a")
    again(net, "b", kept)
    net.down("a", "b")
    net.on_the_way["a", "b"], net.on_the_way["b", "a"] = deque(), deque()
    net.peers["b"].group.link_up("a")
    net.peers["b"].group.handle("a", messages.Flush(7))
    told = list(net.on_the_way["b", "a"])
    assert messages.Flushed(7) not in told
    net.peers["b"].group.handle("a", messages.Known((), is_last=True))
    assert list(net.on_the_way["b", "a"])[len(told) :] == [
        messages.SentLetter(0, "t", 1, "x", 0, b"0"),
        messages.Flushed(7),
    ]


def test_who_asks_without_end_and_says_nothing_is_cut() -> None:
    net = Net()
    net.peers["a"].group.link_up("b")
    for number in range(MOST_FLUSHES):
        net.peers["a"].group.handle("b", messages.Flush(number))
    with pytest.raises(RemoteProtocolError, match="does not say what it knows"):
        net.peers["a"].group.handle("b", messages.Flush(MOST_FLUSHES))


@pytest.mark.parametrize(("wants", "most"), [(True, MOST_WANTS), (False, MOST_KNOWN)])
def test_who_asks_again_and_again_for_what_it_was_told_is_cut(wants: bool, most: int) -> None:
    net = Net()
    b, said = net.peers["b"].group, messages.Known((), is_last=True, wants=wants)
    b.link_up("a")
    for _ in range(most):
        b.handle("a", said)
    with pytest.raises(RemoteProtocolError, match="again and again"):
        b.handle("a", said)
    b.link_down("a")
    b.link_up("a")
    b.handle("a", said)


def test_a_peer_that_begins_anew_is_in_the_latest_era_of_which_it_kept_anything() -> None:
    """Also where the roster that it is told first is an older one."""
    net = Net()
    kept = Kept(1, "t", 1, 0, (KeptBroadcast("m", 3, b"said"),))
    again(net, "b", kept)
    assert net.peers["b"].group.era == 1
    assert net.peers["b"].group.still(kept) == kept
    reader, peer = Attempt(1, READER, 0), net.peers["a"]
    peer.group.begin(reader)
    peer.group.get_broadcast(peer.ask("m"), reader, "m", 5.0, 0.0)
    assert peer.answers["m"] == b"said"


def test_what_an_attempt_received_in_vain_is_known_until_the_era_after_it_is_over() -> None:
    net = Net()
    sends(net, [b"0"])
    assert receives(net, 1) == [b"0"]
    group, at = net.peers["a"].group, Attempt(0, READER, 0)
    kept = group.end(at, counts=True)
    assert kept is not None
    net.roster.verdicts[at] = False
    group.roster_changed(net.roster)
    group.roster_changed(Everybody(era=1))  # before what is kept was looked through
    assert group.still(kept) is None


def test_a_plane_that_begins_anew_keeps_letters_for_a_node_that_is_away_for_two_eras() -> None:
    net = Net()
    kept = sends(net, [b"0"])
    net.roster.lost = {"a"}
    for other in ("a", "c"):
        net.down(min("b", other), max("b", other))
    net.peers["b"] = peer = Peer(net, "b", net.roster, [kept] if kept is not None else [])
    assert len(peer.group.letters.outbox("a")) == 1
    for era in (1, 2):
        after = Everybody(era)
        after.lost = {"a"}
        peer.group.roster_changed(after)
        assert ("a" in peer.group.letters.outboxes) == (era < 2)


def test_a_peer_that_is_removed_is_told_nothing_and_nothing_is_kept_for_it() -> None:
    net = Net()
    sends(net, [b"0"])
    b, at = net.peers["b"].group, Attempt(0, SENDER, 1)
    b.peer_removed("a")
    net.on_the_way["b", "a"].clear()
    b.begin(at)
    b.broadcast(at, "m", b"1")
    assert not net.on_the_way["b", "a"]
    assert "a" not in b.letters.outboxes
    assert b.letters.kept.letters == 0
