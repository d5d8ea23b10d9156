"""Actors of other processes: asks, tells, monitors, what is refused, and what costs the link."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import pytest

from manta.actors import (
    Actor,
    ActorCrashed,
    ActorDead,
    ActorSystem,
    AskTimeout,
    ChildSpec,
    Down,
    ExitKind,
    InvalidMessage,
    LocalRef,
    MailboxFull,
    MailboxPolicy,
    Refused,
    StartFailed,
    SystemClock,
    Unreachable,
    remote,
    wire,
)
from manta.testing import crash, wait_until
from manta.testing.memory.network import MemoryNetwork
from manta.transports.errors import DownReason
from manta.transports.interface import Transport
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport


class Sum(msgspec.Struct, frozen=True):
    value: int


class Add(msgspec.Struct, frozen=True, tag=True):
    a: int
    b: int
    reply: ClassVar[type] = Sum


class Do(msgspec.Struct, frozen=True, tag=True):
    what: str


class Say(msgspec.Struct, frozen=True, tag=True):
    """Told back to who asks for it by monitoring and asking our own actors."""

    text: str
    reply: ClassVar[type] = str


class Foreign(msgspec.Struct, frozen=True, tag=True):
    """Not in anybody's union."""


class Server(Actor):
    accepts = Add | Do | Say
    mailbox = MailboxPolicy(bound=50)

    def __init__(self, gate: threading.Event, heard: list[Any]) -> None:
        self.gate = gate
        self.heard = heard

    def receive(self, message: Any) -> Any:
        self.heard.append(message)
        match message:
            case Add(-1, -1):
                return Do("not a Sum")
            case Add(a, b):
                return Sum(a + b)
            case Do("crash"):
                raise ValueError("a secret")
            case Do("refuse"):
                raise Refused("no", "No: ask nicely.", {"ask": "nicely", "n": 1})
            case Do("refuse oddly"):
                raise Refused("no", "No.", {"odd": object()})
            case Do("stop"):
                self.stop()
            case Do("hang"):
                self.gate.wait(60)
            case Do("junk"):
                return object()
            case Do("defer"):
                reply = self.defer()
                threading.Timer(0.01, reply.set).start()
            case Say("who"):
                assert self.origin is not None
                return self.origin.peer_key
            case Say("back"):
                assert self.origin is not None
                return self.origin.ref("client").ask(Say("hello"), timeout=60)
            case Say("wrong type"):
                return 3
            case LocalRef():
                self.monitor(message)
        return None


@dataclass
class Pair:
    """Two systems, one link between them."""

    server: ActorSystem
    client: ActorSystem
    listener: Any
    connection: Any
    states: list[DownReason | None]
    cut: Callable[[], None]
    gate: threading.Event = field(default_factory=threading.Event)
    heard: list[Any] = field(default_factory=list)

    def state_is(self, state: DownReason | None) -> bool:
        return bool(self.states) and self.states[-1] == state


@contextmanager
def over_memory() -> Iterator[tuple[Transport, Transport, Callable[[], None]]]:
    network = MemoryNetwork(SystemClock())
    stopping = threading.Event()

    def pump() -> None:
        while not stopping.is_set():
            if not network.step():
                time.sleep(0.0002)

    thread = threading.Thread(target=pump)
    thread.start()
    here = network.transport("client")
    yield network.transport("server"), here, lambda: network.break_links(here)
    stopping.set()
    thread.join()


@contextmanager
def over_zmq() -> Iterator[tuple[Transport, Transport, Callable[[], None]]]:
    def cannot() -> None:
        pytest.skip("TCP does not break on command")

    there, here = (ZmqTransport(KeyPair.generate()) for _ in range(2))
    yield there, here, cannot


@pytest.fixture(params=[over_memory, over_zmq], ids=["memory", "zmq"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with request.param() as (there, here, cut):
        server = ActorSystem("server", transport=there)
        client = ActorSystem("client", transport=here)
        states: list[DownReason | None] = []
        gate, heard = threading.Event(), []  # type: ignore[var-annotated]
        server.spawn(ChildSpec("server", lambda: Server(gate, heard)))
        server.spawn(ChildSpec("secret", lambda: Server(gate, [])))
        server.spawn(ChildSpec("deaf", Actor))
        client.spawn(ChildSpec("client", lambda: Echo()))
        listener = server.listen(
            "tcp://127.0.0.1:0",
            Admission([here.public_key]),
            published=["server", "deaf", "nobody"],
        )
        connection = client.dial(
            listener.address, there.public_key, on_state=states.append, published=["client"]
        )
        made = Pair(server, client, listener, connection, states, cut, gate, heard)
        connection.wait_up(timeout=60)
        wait_until(lambda: made.state_is(None))
        yield made
        gate.set()
        client.stop()
        server.stop()


class Echo(Actor):
    accepts = Say

    def receive(self, message: Any) -> Any:
        return message.text if isinstance(message, Say) else message


def test_ask_and_tell_as_if_they_were_here(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    assert ref.ask(Add(1, 2), timeout=60) == Sum(3)
    futures = [ref.ask_future(Add(n, n), timeout=5) for n in range(20)]
    assert [future.result() for future in futures] == [Sum(2 * n) for n in range(20)]
    ref.tell(Do("listen"))
    assert ref.ask(Do("nothing"), timeout=60) is None
    assert Do("listen") in pair.heard
    assert ref.ask(Do("defer"), timeout=60) is None
    assert str(ref.address).endswith(":server")
    assert ref == pair.connection.ref("server")
    assert hash(ref) == hash(pair.connection.ref("server"))


def test_the_receiver_knows_who_sent_it_and_can_reach_back(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    assert ref.ask(Say("who"), timeout=60) == pair.client.transport.public_key  # type: ignore[union-attr]
    assert ref.ask(Say("back"), timeout=60) == "hello"


def test_a_refusal_crosses_whole(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    with pytest.raises(Refused, match="ask nicely") as refused:
        ref.ask(Do("refuse"), timeout=5)
    assert (refused.value.code, refused.value.data) == ("no", {"ask": "nicely", "n": 1})


@pytest.mark.parametrize("message", [Do("refuse oddly"), Do("junk"), Add(-1, -1)], ids=str)
def test_an_answer_that_cannot_be_sent_is_a_crash_over_there(
    pair: Pair, message: msgspec.Struct
) -> None:
    with pytest.raises(ActorCrashed):
        pair.connection.ref("server").ask(message, timeout=5)
    wait_until(lambda: not _alive(pair.server, "server"))


def test_an_answer_that_the_asker_cannot_take_costs_the_answerer_its_link(pair: Pair) -> None:
    with pytest.raises(InvalidMessage, match="answer"):
        pair.connection.ref("server").ask(Say("wrong type"), timeout=5)
    wait_until(lambda: pair.state_is(DownReason.PROTOCOL))


def test_a_crash_is_told_without_its_secrets(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    with pytest.raises(ActorCrashed, match="the log of its process says why") as crashed:
        ref.ask(Do("crash"), timeout=5)
    assert "secret" not in str(crashed.value)
    with pytest.raises(ActorDead):
        ref.ask(Do("anything"), timeout=5)
    pair.server.spawn(ChildSpec("server", lambda: Server(pair.gate, pair.heard)))
    assert ref.ask(Add(1, 1), timeout=60) == Sum(2), "by path, so the successor answers"


def test_an_address_with_an_incarnation_does_not_reach_the_successor(pair: Pair) -> None:
    first = pair.server.find("server")
    ref = pair.connection.ref("server", first.address.incarnation)
    assert ref.ask(Add(1, 1), timeout=60) == Sum(2)
    first.stop()
    first.wait(60)
    pair.server.spawn(ChildSpec("server", lambda: Server(pair.gate, pair.heard)))
    with pytest.raises(ActorDead, match="that incarnation of server is dead"):
        ref.ask(Add(1, 1), timeout=5)
    done: list[Any] = []
    ref.watch(done.append)
    wait_until(lambda: done)
    assert done[0].kind is ExitKind.UNKNOWN


@pytest.mark.parametrize("path", ["secret", "nobody", "deaf"])
def test_what_is_not_published_looks_like_nobody(pair: Pair, path: str) -> None:
    with pytest.raises(ActorDead, match=f"nobody lives at (server:)?{path}"):
        pair.connection.ref(path).ask(Add(1, 2), timeout=5)


def test_a_full_mailbox_over_there_is_told(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    ref = pair.connection.ref("server")
    ref.tell(Do("hang"))
    wait_until(lambda: Do("hang") in pair.heard)
    for _ in range(50):
        ref.tell(Do("x"))
    with pytest.raises(MailboxFull):
        ref.ask(Do("x"), timeout=5)
    ref.tell(Do("one too many"))
    wait_until(lambda: "a message to server was not handled (full)" in caplog.text)
    pair.gate.set()


def test_an_ask_that_expires_over_there_is_not_carried_out(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    ref.tell(Do("hang"))
    with pytest.raises(AskTimeout):
        ref.ask(Do("late"), timeout=0.05)
    with pytest.raises(AskTimeout):
        ref.ask_future(Do("late"), timeout=0.05).result()
    time.sleep(0.05)  # the time that it was on its way
    pair.gate.set()
    ref.ask(Do("on time"), timeout=60)
    assert Do("late") not in pair.heard


def test_a_tell_that_expires_is_reported_to_its_sender(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    ref = pair.connection.ref("server")
    ref.tell(Do("hang"))
    ref.tell(Do("late"), ttl=0.05)
    time.sleep(0.1)
    pair.gate.set()
    wait_until(lambda: "a message to server was not handled (expired)" in caplog.text)
    assert Do("late") not in pair.heard


def test_what_does_not_fit_on_the_wire_is_refused_here(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    with pytest.raises(TypeError, match=r"send a frozen msgspec\.Struct"):
        ref.tell({"not": "a struct"})
    with pytest.raises(ValueError, match="A path has 1 to 512"):
        pair.connection.ref("x" * 513)
    with pytest.raises(ValueError, match="A timeout is between"):
        ref.ask(Do("x"), timeout=float("inf"))
    with pytest.raises(ValueError, match="A timeout is between"):
        ref.tell(Do("x"), ttl=-1)
    assert ref.ask(Add(1, 1), timeout=60) == Sum(2), "and nothing is lost by it"


def test_a_message_that_is_not_accepted_costs_the_sender_its_link_and_the_receiver_nothing(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    ref = pair.connection.ref("server")
    with pytest.raises(Unreachable):
        ref.ask(Foreign(), timeout=5)
    wait_until(lambda: not pair.state_is(None))
    assert "broke the protocol and loses its link: invalid message to server" in caplog.text
    assert _alive(pair.server, "server")
    assert pair.server.find("server").ask(Add(2, 2), timeout=60) == Sum(4)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xc1",
        b"\x93\x00",
        msgspec.msgpack.encode([99, "x"]),
        msgspec.msgpack.encode([0, "server", 0, -1.0, None]),
        msgspec.msgpack.encode([0, "x" * 600, 0, 1.0, None]),
        msgspec.msgpack.encode([1, -1, "server", 0, 1.0, None]),
        msgspec.msgpack.encode([1, 1, "server", 0, 1.0, ["Add"]]),
        wire.encode(wire.Answer(77, msgspec.Raw(b"\x01"))),
        wire.encode(wire.Failure(77, "dead", "nobody asked")),
        wire.encode(wire.Gone(77, ExitKind.NORMAL, "nobody asked")),
        b"\x91" * 5_000,
    ],
)
def test_junk_costs_the_link(pair: Pair, junk: bytes) -> None:
    pending = pair.connection.ref("server").ask_future(Do("hang"), timeout=60)
    pair.connection.link.send([junk])
    wait_until(lambda: not pair.state_is(None))
    assert isinstance(pending.exception(60), Unreachable)
    assert _alive(pair.server, "server")
    pair.gate.set()


def test_asks_that_nobody_answers_are_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "ASKS_PER_LINK", 20)
    ref = pair.connection.ref("server")
    futures = [ref.ask_future(Do("hang"), timeout=60) for _ in range(20)]
    with pytest.raises(MailboxFull, match="20 asks of this link wait for their answers"):
        ref.ask(Do("x"), timeout=5)
    pair.gate.set()
    wait(futures, timeout=60)
    assert ref.ask(Add(1, 1), timeout=60) == Sum(2)


def test_asks_that_nobody_answers_are_bounded_in_bytes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ASKED_PER_LINK", 5000)
    ref = pair.connection.ref("server")
    first = ref.ask_future(Do("hang"), timeout=60)
    others = [ref.ask_future(Do("x" * 2000), timeout=60) for _ in range(2)]
    with pytest.raises(MailboxFull, match=r"asks of \d+ bytes of this link wait"):
        ref.ask(Do("x" * 2000), timeout=5)
    pair.gate.set()
    wait([first, *others], timeout=60)
    ref.ask(Do("x" * 20_000), timeout=60)  # alone it may be larger
    assert ref.ask(Add(1, 1), timeout=60) == Sum(2)


def test_many_threads_may_ask_over_one_link(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    wrong: list[Any] = []

    def ask(first: int) -> None:
        for number in range(first, first + 100):
            answer = ref.ask(Add(number, 0), timeout=60)
            if answer != Sum(number):
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(first * 1000,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert pair.connection.state is None


def test_two_frames_cost_the_link(pair: Pair) -> None:
    pair.connection.link.send([b"\xc0", b"\xc0"])
    wait_until(lambda: not pair.state_is(None))


def test_a_server_that_breaks_the_protocol_is_left(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    ref.ask(Add(1, 1), timeout=60)
    (peer,) = pair.listener.handler._peers.values()
    peer.link.send([b"\xc1"])
    wait_until(lambda: pair.state_is(DownReason.PROTOCOL))
    assert pair.connection.state is DownReason.PROTOCOL
    with pytest.raises(Unreachable):
        ref.tell(Do("x"))


def test_a_notification_does_not_mind_that_the_link_is_down(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    class Herald(Actor):
        def receive(self, message: Any) -> Any:
            return self.notify(*message)

    caplog.set_level("DEBUG")
    herald = pair.client.spawn(ChildSpec("herald", Herald))
    ref = pair.connection.ref("server")
    assert herald.ask((ref, Do("listen")), timeout=60)
    wait_until(lambda: Do("listen") in pair.heard)
    pair.connection.close()
    assert not herald.ask((ref, Do("listen")), timeout=5)
    assert "herald: Do was not delivered" in caplog.text


class Watcher(Actor):
    def __init__(self, downs: list[Down]) -> None:
        self.downs = downs

    def receive(self, message: Any) -> Any:
        match message:
            case Down():
                self.downs.append(message)
            case ("cancel", ref):
                self.monitor(ref).cancel()
            case _:
                self.monitor(message)


@pytest.fixture
def downs(pair: Pair) -> list[Down]:
    downs: list[Down] = []
    pair.client.spawn(ChildSpec("watcher", lambda: Watcher(downs)))
    return downs


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda pair: crash(pair.server.find("server")), ExitKind.CRASHED),
        (lambda pair: pair.server.find("server").stop(), ExitKind.SHUTDOWN),
        (lambda pair: pair.connection.ref("server").tell(Do("stop")), ExitKind.NORMAL),
        (lambda pair: pair.cut(), ExitKind.DISCONNECTED),
        (lambda pair: pair.connection.close(), ExitKind.DISCONNECTED),
        (lambda pair: pair.listener.close(), ExitKind.DISCONNECTED),
        (lambda pair: pair.listener.cut(pair.client.transport.public_key), ExitKind.DISCONNECTED),
    ],
    ids=["crash", "stop", "done", "broken link", "closed", "listener closed", "revoked"],
)
def test_a_monitor_over_the_wire_brings_exactly_one_down(
    pair: Pair, downs: list[Down], end: Callable[[Pair], None], kind: ExitKind
) -> None:
    ref = pair.connection.ref("server")
    watcher = pair.client.find("watcher")
    watcher.ask(ref, timeout=60)
    ref.ask(Add(1, 1), timeout=60)  # the monitor is in place
    end(pair)
    wait_until(lambda: downs)
    time.sleep(0.05)
    (down,) = downs
    assert (down.ref, down.reason.kind) == (ref, kind)


def test_monitoring_nobody_and_monitoring_without_a_link(pair: Pair, downs: list[Down]) -> None:
    watcher = pair.client.find("watcher")
    watcher.tell(pair.connection.ref("nobody"))
    wait_until(lambda: downs)
    assert downs.pop().reason.kind is ExitKind.UNKNOWN
    pair.connection.close()
    watcher.tell(pair.connection.ref("server"))
    wait_until(lambda: downs)
    assert downs.pop().reason.kind is ExitKind.DISCONNECTED


def test_a_cancelled_monitor_is_forgotten_over_there(pair: Pair, downs: list[Down]) -> None:
    ref = pair.connection.ref("server")
    pair.client.find("watcher").ask(("cancel", ref), timeout=60)
    ref.ask(Add(1, 1), timeout=60)
    assert pair.server.find("server")._cell._watchers == {}


def test_monitors_of_a_lost_peer_are_forgotten(pair: Pair, downs: list[Down]) -> None:
    ref = pair.connection.ref("server")
    pair.client.find("watcher").ask(ref, timeout=60)
    ref.ask(Add(1, 1), timeout=60)
    cell = pair.server.find("server")._cell
    assert len(cell._watchers) == 1
    pair.cut()
    wait_until(lambda: not cell._watchers)


def test_whoever_waits_when_the_link_breaks_is_told_at_once_and_it_heals(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    futures = [ref.ask_future(Do("hang"), timeout=60) for _ in range(5)]
    wait_until(lambda: Do("hang") in pair.heard)
    pair.cut()
    done, _ = wait(futures, timeout=60)
    assert len(done) == 5
    assert all(isinstance(future.exception(), Unreachable) for future in futures)
    pair.gate.set()
    wait_until(lambda: len(pair.states) > 2 and pair.state_is(None))
    assert ref.ask(Add(1, 1), timeout=60) == Sum(2)
    assert pair.connection.state is None


def test_a_revoked_peer_is_not_heard_any_more(pair: Pair) -> None:
    ref = pair.connection.ref("server")
    ref.tell(Do("hang"))
    wait_until(lambda: Do("hang") in pair.heard)
    for _ in range(20):
        ref.tell(Do("queued"))
    wait_until(lambda: len(pair.server.find("server")._cell.inbox) == 20)
    assert pair.listener.cut(pair.client.transport.public_key) == 1  # type: ignore[union-attr]
    pair.gate.set()
    assert pair.server.find("server").ask(Add(1, 1), timeout=60) == Sum(2)
    assert Do("queued") not in pair.heard


def test_a_failing_on_state_harms_nobody(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    def fail(state: DownReason | None) -> None:
        raise ValueError("boom")

    key = pair.server.transport.public_key  # type: ignore[union-attr]
    other = pair.client.dial(pair.listener.address, key, on_state=fail)
    wait_until(lambda: "on_state(None) of a connection failed: boom" in caplog.text)
    assert other.ref("server").ask(Add(1, 1), timeout=60) == Sum(2)


def test_what_an_actor_opened_ends_with_it(pair: Pair) -> None:
    address = "tcp://127.0.0.1:0"

    class Gateway(Actor):
        def on_start(self) -> None:
            nonlocal address
            address = self.system.listen(address, Admission(), published=["gateway"]).address

    class Fails(Gateway):
        def on_start(self) -> None:
            super().on_start()
            raise ValueError("after listening")

    for _ in range(2):
        gateway = pair.server.spawn(ChildSpec("gateway", Gateway))
        crash(gateway)
        assert gateway.wait(60) is not None
        wait_until(lambda: _is_free(address))
    for _ in range(2):
        with pytest.raises(StartFailed, match="after listening"):
            pair.server.spawn(ChildSpec("gateway", Fails))
        wait_until(lambda: _is_free(address))


def _is_free(address: str) -> bool:
    """Zmq closes a port a moment after it was told to."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        except OSError:
            return False
    return True


def test_a_system_without_a_transport_says_so() -> None:
    with ActorSystem("alone") as system:
        with pytest.raises(Unreachable, match="has no transport: give it one"):
            system.dial("tcp://127.0.0.1:1", "x" * 40)
        with pytest.raises(Unreachable, match="has no transport: give it one"):
            system.listen("tcp://127.0.0.1:0", Admission(), published=[])


def _alive(system: ActorSystem, path: str) -> bool:
    try:
        return system.find(path).is_alive
    except ActorDead:
        return False
