"""Messages that do not end, at both ends of both planes: they cost their sender the connection."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import closing

import pytest
import zmq

from manta.testing import curve
from manta.testing.curve import COMMAND, SEALED_COMMAND, CurveClient, Hangup
from manta.testing.transports import RecordingHandler, ZmqHarness, echo
from manta.transports import frames
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import BulkOptions, Verdict
from manta.transports.bulk.wire import Cancel, pack
from manta.transports.errors import DownReason, RemoteProtocolError
from manta.transports.frames import Hello, Kind, Limits
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.links import LinkOptions
from manta.transports.zeromq.sockets import SocketFactory, SocketOptions
from manta.transports.zeromq.transport import ZmqTransport

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")

MIB = 1 << 20
MOST = 400 * MIB
"""What an attack sends if nobody stops it."""
GROWTH = 190 * MIB
"""What it may cost: what comes from one look to the next, on a machine that is busy. Without an end
it would be MOST."""
HELLO = frames.encode_hello(Hello(Limits(), 8 * MIB, 5000))
CANCEL = pack(Cancel(bytes(16)))


def memory() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The most memory that this process took while it was entered, beyond what it had."""

    def __enter__(self):
        self.before = memory()
        self.grown = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.01):
            self.grown = max(self.grown, memory() - self.before)

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


class Server:
    """An echo that knows one key and takes guests, and an honest client."""

    def __init__(self, harness, on_message=echo):
        self.harness = harness
        self.known = KeyPair.generate()
        transport, self.client = harness.transport(), harness.transport()
        self.handler, self.heard = RecordingHandler(on_message), RecordingHandler()
        self.admission = Admission([self.known.public, self.client.public_key], guests=True)
        self.listener = transport.listen("tcp://127.0.0.1:0", self.handler, self.admission)
        self.address = self.listener.address, transport.public_key
        self.link = self.client.dial(*self.address, self.heard)
        harness.wait(lambda: self.link.state is None)

    def attacker(self, who):
        keys = self.known if who == "known" else None
        client = CurveClient(self.address[0], self.address[1], keys).connect()
        if who != "stranger":
            client.send(HELLO)
            assert frames.decode_head(client.receive()[0], Limits()).kind == Kind.HELLO
        return client

    def check(self):
        self.link.send([b"still there?"])
        self.harness.wait(lambda: [b"still there?"] in self.heard.messages)
        assert self.heard.downs == []


@pytest.fixture
def server(harness):
    return Server(harness)


WHO = ["stranger", "guest", "known"]
ENDLESS = {
    "large parts": lambda client: client.endless(bytes(60_000), batch=4),
    "small parts": lambda client: client.endless(b"x", batch=500),
    "empty parts": lambda client: client.endless(b"", batch=500),
    "pings": lambda client: (
        b"".join(client.sealed(curve.ping(), flags=SEALED_COMMAND) for _ in range(500))
        for _ in iter(int, 1)
    ),
}


@pytest.mark.parametrize("parts", ENDLESS.values(), ids=ENDLESS.keys())
@pytest.mark.parametrize("who", WHO)
def test_a_message_without_an_end(server, who, parts):
    with Peak() as peak, server.attacker(who) as client:
        sent = client.flood(parts(client), most=MOST)
        assert client.wait_cut()
    assert sent < MOST / 2
    assert peak.grown < GROWTH
    server.check()
    if who != "stranger":
        server.harness.wait(lambda: server.handler.reasons == [DownReason.PROTOCOL])


@pytest.mark.parametrize("who", WHO)
def test_a_frame_that_is_never_whole(server, who):
    """Its size is within the limit, and so many connections hold as many."""
    clients = [server.attacker(who) for _ in range(20)]
    with Peak() as peak:
        for client in clients:
            client.flood([curve.frame(bytes(3 * MIB), size=4 * MIB)], most=MOST)
        server.harness.wait(lambda: sum(client.wait_cut(0.0) for client in clients) >= 4, 20)
    assert peak.grown < GROWTH
    for client in clients:
        client.close()
    server.check()


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_handshake_command_that_is_never_whole(server, steps):
    client = CurveClient(*server.address)
    with client, Peak() as peak:
        for step in (client.greet, client.say_hello, client.await_welcome)[:steps]:
            step()
        endless = curve.frame(bytes(60_000), COMMAND, size=4 * MIB) + bytes(3 * MIB)
        client.flood(iter(lambda: endless, None), most=MOST)
        assert client.wait_cut(20)
    assert peak.grown < GROWTH
    server.check()


def test_a_handshake_takes_its_time_and_no_more():
    transport = ZmqTransport(KeyPair.generate(), sockets=SocketOptions(handshake=500))
    try:
        admission = Admission(guests=True)
        listener = transport.listen("tcp://127.0.0.1:0", RecordingHandler(), admission)
        client = CurveClient(listener.address, transport.public_key)
        with client, pytest.raises(Hangup):
            client.trickle(curve.greeting() + curve.frame(client.hello(), COMMAND), 0.01)
    finally:
        transport.close()


def test_a_message_takes_its_time_and_no_more():
    harness = ZmqHarness(LinkOptions(message=1.0))
    try:
        server = Server(harness)
        with server.attacker("known") as client, pytest.raises(Hangup):
            client.trickle(curve.frame(bytes(4 * MIB)), 0.01, size=100)
        server.check()
    finally:
        harness.close()


def test_more_than_the_window_is_refused_though_each_message_ends(harness):
    """The reader is slower than the peer, who does not wait for it."""
    server = Server(harness, on_message=lambda *_: time.sleep(0.02))
    message = frames.encode([bytes(200_000)], Limits())[0]
    with server.attacker("known") as client:
        one = (
            client.sealed(bytes(message[0]), more=True) + client.sealed(bytes(message[1]))
            for _ in iter(int, 1)
        )
        with Peak() as peak:
            sent = client.flood(one, most=MOST)
            assert client.wait_cut(20)
    assert sent < MOST / 2
    assert peak.grown < GROWTH
    server.harness.wait(lambda: server.handler.reasons == [DownReason.PROTOCOL])


def test_an_honest_peer_may_fill_its_window(harness):
    server = Server(harness, on_message=lambda *_: time.sleep(0.02))
    for _ in range(38):
        server.link.send([bytes(200_000)])
    harness.wait(lambda: len(server.handler.messages) == 38, 20)
    assert server.handler.downs == []


def test_a_handshake_that_leaves_much_behind_is_no_handshake(server):
    """libzmq keeps the properties of an INITIATE as long as the connection lives."""
    address, server_key = server.address
    with CurveClient(address, server_key, server.known) as client:
        client.greet()
        client.say_hello()
        client.await_welcome()
        properties = [(b"Socket-Type", b"DEALER"), (b"X-Much", bytes(2 * MIB))]
        client.send_raw(curve.frame(client.initiation(properties), COMMAND) + client.sealed(HELLO))
        assert client.wait_cut()
    assert len(server.handler.links) == 1
    server.check()


def test_a_large_message_of_a_guest_is_refused(server):
    encoded = frames.encode([bytes(2 * MIB)], Limits())[0]
    with server.attacker("guest") as client:
        client.send(*map(bytes, encoded))
        assert client.wait_cut()
    assert server.handler.messages == []
    with server.attacker("known") as client:
        client.send(*map(bytes, encoded))
        server.harness.wait(lambda: [bytes(2 * MIB)] in server.handler.messages)
    server.check()


def test_a_connection_that_says_goodbye_and_stays_is_cut():
    harness = ZmqHarness(LinkOptions(hello=0.2))
    try:
        server = Server(harness)
        with server.attacker("known") as client:
            client.send(frames.encode_bye(frames.Bye.CLOSING))
            assert client.wait_cut(15)
        server.check()
    finally:
        harness.close()


@pytest.fixture
def false_server(context, zap):
    """A ROUTER that says what it likes to who dials it."""
    keys = KeyPair.generate()
    zap.register("home", Admission(guests=True))
    router = SocketFactory(context, keys, zap=zap).server(zmq.ROUTER, "home")
    router.sndhwm = 0
    address = SocketFactory(context, keys, zap=zap).bind(router, "tcp://127.0.0.1:0")
    return router, address, keys.public


@pytest.mark.parametrize("hello_first", [True, False])
def test_a_server_cannot_fill_who_dials_it(false_server, harness, hello_first):
    router, *server = false_server
    handler = RecordingHandler()
    link = harness.transport().dial(*server, handler)
    name = router.recv_multipart()[0]
    if hello_first:
        router.send_multipart([name, HELLO])
        harness.wait(lambda: link.state is None)
    router.send_multipart([name, *[bytes(60_000)] * 1500])
    harness.wait(lambda: link.state is DownReason.PROTOCOL)
    assert handler.messages == []


class Bulk:
    """A bulk listener, and who attacks it with a key that it knows."""

    def __init__(self, **options):
        self.keys, self.known, self.admission = KeyPair.generate(), KeyPair.generate(), Admission()
        self.admission.allow(self.known.public)
        self.depot = MemoryDepot(10 * MIB)
        self.plane = CurveBulk(self.keys, self.depot, options=BulkOptions(**options))
        self.address = self.plane.listen(
            "tcp://127.0.0.1:0", self.admission, lambda *_: Verdict.GRANTED
        )

    def attacker(self):
        client = CurveClient(self.address, self.keys.public, self.known).connect()
        client.send(CANCEL)
        return client

    def check(self):
        keys, depot = KeyPair.generate(), MemoryDepot(10 * MIB)
        self.admission.allow(keys.public)
        with closing(CurveBulk(keys, depot)) as near, closing(depot):
            peer = near.dial(self.address, self.keys.public)
            peer.push(depot.put(b"word"), 4, timeout=20).result(20)

    def close(self):
        self.plane.close()
        self.depot.close()


@pytest.fixture
def bulk():
    made = Bulk()
    yield made
    made.close()


@pytest.mark.parametrize("parts", ENDLESS.values(), ids=ENDLESS.keys())
def test_a_message_without_an_end_on_the_bulk_port(bulk, parts):
    with Peak() as peak, bulk.attacker() as client:
        sent = client.flood(parts(client), most=MOST)
        assert client.wait_cut()
    assert sent < MOST / 2
    assert peak.grown < GROWTH
    bulk.check()


def test_who_says_nothing_on_the_bulk_port_is_cut():
    bulk = Bulk(first=0.5, idle=0.5)
    try:
        with CurveClient(bulk.address, bulk.keys.public, bulk.known) as client:
            client.connect()
            assert client.wait_cut(20)
        with bulk.attacker() as client:
            assert client.wait_cut(20), "after its first message"
        bulk.check()
    finally:
        bulk.close()


WITHDRAWALS = {
    "denied": lambda bulk: bulk.admission.deny(bulk.known.public),
    "forgotten": lambda bulk: bulk.admission.forget(bulk.known.public),
    "replaced": lambda bulk: bulk.admission.replace_known([]),
}


@pytest.mark.parametrize("withdraw", WITHDRAWALS.values(), ids=WITHDRAWALS.keys())
def test_a_revoked_key_loses_its_bulk_connections_at_once(bulk, withdraw):
    clients = [bulk.attacker() for _ in range(3)]
    for client in clients:
        client.send_raw(client.sealed(b"begun", more=True))  # in the middle of a message, too
    assert not any(client.wait_cut(0.2) for client in clients)
    withdraw(bulk)
    assert all(client.wait_cut() for client in clients)
    for client in clients:
        client.close()
    bulk.check()


def test_a_server_cannot_fill_who_fetches_from_it(false_server):
    router, address, server_key = false_server
    depot = MemoryDepot(10 * MIB)
    with closing(CurveBulk(KeyPair.generate(), depot)) as near, closing(depot):
        fetch = near.dial(address, server_key).fetch("a" * 64, 1000, timeout=50)
        name = router.recv_multipart()[0]
        with Peak() as peak:
            router.send_multipart([name, *[bytes(60_000)] * 1500])
            with pytest.raises(RemoteProtocolError, match="without an end"):
                fetch.result(30)
    assert peak.grown < 90 * MIB + GROWTH


@pytest.mark.parametrize("parts", ["large parts", "small parts"])
def test_a_slow_disk_does_not_hold_up_the_end_of_a_message_without_one(bulk, parts):
    """The thread of the sockets syncs a blob meanwhile."""
    synced = threading.Event()
    with bulk.attacker() as client, bulk.attacker() as other:
        bulk.plane._loop.call(lambda: synced.wait(30))
        try:
            with Peak() as peak:
                sent = client.flood(ENDLESS[parts](client), most=MOST)
                assert client.wait_cut()
            assert not other.wait_cut(0.2)
        finally:
            synced.set()
    assert sent < MOST / 2
    assert peak.grown < GROWTH
    bulk.check()
    assert len(bulk.admission._offences._times[bulk.known.public]) == 1
