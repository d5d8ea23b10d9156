"""What arrives over a link, whatever it is, is handled or it is a protocol error."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import pytest

from manta.actors import ActorDead, AskTimeout, InvalidMessage, MailboxFull, Refused, wire
from manta.actors.address import Address
from manta.actors.clock import SystemClock
from manta.actors.exits import ExitKind, ExitReason, crashed
from manta.actors.mailbox import Mailbox
from manta.actors.remote import Peer
from manta.transports.errors import DownReason, RemoteProtocolError


class Inner(msgspec.Struct, frozen=True):
    numbers: list[int]
    text: str = ""


class Order(msgspec.Struct, frozen=True, tag=True):
    inner: Inner
    data: bytes
    reply: ClassVar[type] = Inner


class Other(msgspec.Struct, frozen=True, tag=True):
    anything: Any


class FakeLink:
    peer_version = ""
    peer_key = "k" * 40
    address = ""
    state = None
    peer_address = ""
    is_half_full = False

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, message: Any) -> None:
        self.sent += message

    def excuse(self, decided: Any) -> None: ...

    def close(self) -> None:
        raise AssertionError("the one who called received does that")


class FakeCell:
    accepts = Order | Other

    def __init__(self) -> None:
        self.address = Address("n", "a", 7)
        self.inbox: Mailbox[Any] = Mailbox(bound=100)

    def watch(self, notify: Any) -> Any:
        return lambda: None


def peer() -> tuple[Peer, FakeLink, FakeCell]:
    cell, link = FakeCell(), FakeLink()
    system: Any = SimpleNamespace(
        find=lambda path: SimpleNamespace(_cell=cell), clock=SystemClock()
    )
    made = Peer(system, frozenset(["a"]))
    made.link = link
    return made, link, cell


def raw(message: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(message))


SEEDS: list[bytes] = [
    wire.encode(message)
    for message in (
        wire.Tell("a", 0, 1.0, raw(Order(Inner([1, 2], "x"), b"abc"))),
        wire.Ask(1, "a", 7, 1.0, raw(Other({"deep": [[[{}]]]}))),
        wire.Ask(2, "b", 0, 1.0, raw(Other(None))),
        wire.Answer(1, raw(Inner([1]))),
        wire.Failure(1, "refused", "No.", "no", {"a": 1}),
        wire.Undelivered("a", "full", "It is."),
        wire.Watch(3, "a", 0),
        wire.Unwatch(3),
        wire.Gone(1, ExitKind.CRASHED, "boom"),
    )
]


def mutated(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[place:place] = rng.randbytes(rng.randrange(1, 4))
            case 1 if place < len(data):
                data[place] = rng.randrange(256)
            case 2:
                del data[place : place + rng.randrange(1, 5)]
            case _:
                data += rng.choice(SEEDS)[rng.randrange(4) :]
    return bytes(data)


def test_mutated_messages_are_handled_or_are_protocol_errors() -> None:
    rng = random.Random(20)
    errors = 0
    made, link, cell = peer()
    for number in range(20_000):
        try:
            made.received([mutated(rng) if number % 10 else rng.randbytes(rng.randrange(40))])
        except RemoteProtocolError:
            errors += 1
        if number % 100 == 0:
            made, link, cell = peer()
        for answer in link.sent:
            wire.decode(answer)
        link.sent.clear()
        assert len(cell.inbox) <= 100
    assert 10_000 < errors < 20_000


def test_deep_nesting_is_an_error() -> None:
    made, _, _ = peer()
    body = msgspec.Raw(b"\x82\xa4type\xa5Other\xa8anything" + b"\x91" * 100_000 + b"\xc0")
    with pytest.raises(RemoteProtocolError, match="maximum recursion depth"):
        made.received([wire.encode(wire.Tell("a", 0, 1.0, body))])


def test_an_ask_that_is_repeated_while_it_is_owed_is_an_error() -> None:
    made, link, cell = peer()
    ask = wire.encode(wire.Ask(1, "a", 0, 1.0, raw(Other(1))))
    made.received([ask])
    with pytest.raises(RemoteProtocolError, match="still unanswered"):
        made.received([ask])
    cell.inbox.get().reply.set(None)
    assert link.sent == [wire.encode(wire.Answer(1, raw(None)))]
    made.received([ask])


def test_monitors_of_one_link_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manta.actors.remote.WATCHES_PER_LINK", 2)
    made, _, _ = peer()
    for id in (1, 2):
        made.received([wire.encode(wire.Watch(id, "a", 0))])
    with pytest.raises(RemoteProtocolError, match="more than a link may hold"):
        made.received([wire.encode(wire.Watch(3, "a", 0))])
    made.received([wire.encode(wire.Unwatch(1))])
    made.received([wire.encode(wire.Watch(3, "a", 0))])


@pytest.mark.parametrize(
    "error",
    [
        MailboxFull("full"),
        ActorDead("dead"),
        AskTimeout("late"),
        InvalidMessage("what?"),
        Refused("code", "No: do this.", {"a": [1, "b"]}),
    ],
)
def test_errors_cross_the_wire_as_what_they_are(error: Exception) -> None:
    crossed = wire.decode(wire.encode(wire.failure(1, error)))
    assert isinstance(crossed, wire.Failure)
    back = wire.error_of(crossed)
    assert type(back) is type(error)
    assert str(back) == str(error)
    if isinstance(error, Refused):
        assert isinstance(back, Refused)
        assert (back.code, back.data) == (error.code, error.data)


def test_an_error_of_another_version_is_still_an_error() -> None:
    assert isinstance(wire.error_of(wire.Failure(1, "newfangled", "?")), ActorDead)


def test_what_a_crash_said_stays_at_home() -> None:
    gone = wire.gone(1, crashed(ValueError("the password is 1234")))
    assert gone == wire.Gone(1, ExitKind.CRASHED, "ValueError")
    assert wire.gone(1, ExitReason(ExitKind.GAVE_UP, "3 restarts")).sentence == "3 restarts"


def test_a_peer_says_what_became_of_messages_that_were_told_and_of_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Or any stranger could fill the log."""
    made, _, _ = peer()
    said = wire.encode(wire.Undelivered("a", "full", "x\n2030-01-01 INFO    forged" + "y" * 4000))
    with pytest.raises(RemoteProtocolError, match="nobody sent"):
        made.received([said])
    made.ref("a").tell(Order(Inner([1]), b""))
    made.received([said])
    with pytest.raises(RemoteProtocolError, match="nobody sent"):
        made.received([said])
    [line] = [record.getMessage() for record in caplog.records]
    assert "\n" not in line
    assert len(line) < 500
    made.ref("a").tell(Order(Inner([1]), b""))
    made.down(DownReason.LOST)
    with pytest.raises(RemoteProtocolError, match="nobody sent"):
        made.received([said])


@pytest.mark.parametrize("name", ["x" * 3_000_000, "x\nforged"])
def test_what_is_said_of_an_invalid_message_does_not_quote_it_whole(name: str) -> None:
    made, _, _ = peer()
    body = msgspec.Raw(msgspec.msgpack.encode({"type": name}))
    with pytest.raises(RemoteProtocolError) as refused:
        made.received([wire.encode(wire.Ask(1, "a", 0, 1.0, body))])
    assert len(str(refused.value)) < 500
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None
