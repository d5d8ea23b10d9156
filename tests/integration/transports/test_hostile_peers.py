"""Peers that hold a key and keep to no rule: it costs them their connection, and nobody else."""

from __future__ import annotations

import contextlib
import random
import socket as std_socket
import struct
import threading
import time
from itertools import count

import pytest
import zmq

from manta.testing.curve import CurveClient
from manta.testing.transports import RecordingHandler, ZmqHarness, echo
from manta.transports import frames
from manta.transports.addresses import split_address
from manta.transports.errors import DownReason
from manta.transports.frames import Bye, Hello, Kind, Limits
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.strangers import StrangerLimits
from manta.transports.zeromq.links import LinkOptions
from manta.transports.zeromq.sockets import SocketOptions
from manta.transports.zeromq.transport import ZmqTransport

LIMITS = StrangerLimits(burst=1000, burst_per_source=1000)
HELLO = frames.encode_hello(Hello(Limits(), 8 * 1024 * 1024, 5000))


class Server:
    """A listener that takes guests, with one honest client."""

    def __init__(self, harness):
        self.harness = harness
        self.transport, self.client = harness.transport(), harness.transport()
        self.handler, self.at_client = RecordingHandler(echo), RecordingHandler()
        self.admission = Admission(guests=True, limits=LIMITS)
        self.listener = self.transport.listen("tcp://127.0.0.1:0", self.handler, self.admission)
        self.link = self.client.dial(
            self.listener.address, self.transport.public_key, self.at_client
        )
        harness.wait(lambda: self.link.state is None)
        self._numbers = count()

    @property
    def address(self):
        return self.listener.address, self.transport.public_key

    def check(self):
        """The honest client never lost its link, and is served."""
        word = b"still there? %d" % next(self._numbers)
        self.link.send([word])
        self.harness.wait(lambda: [word] in self.at_client.messages)
        assert self.at_client.downs == []


@pytest.fixture
def server(harness):
    return Server(harness)


def bye_of(dealer):
    """The reason of the first BYE that comes."""
    while True:
        head = frames.decode_head(dealer.recv_multipart()[0], Limits())
        if head.kind == Kind.BYE:
            return frames.decode_bye(head)


def monitored(dealer):
    return dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)


def wait_disconnected(monitor, timeout=5000):
    assert monitor.poll(timeout), "the connection was not ended"


GARBAGE = {
    "nothing": [b""],
    "noise": [b"\x93\x01\x17 noise"],
    "http": [b"GET / HTTP/1.1\r\n"],
    "unknown kind": [bytes((1, 0, 9, 0, 0, 0))],
    "two hellos": [HELLO, HELLO],
    "hello and a part": [[HELLO, b"part"]],
    "an empty hello": [bytes((1, 0, 1, 1, 0, 0))],
    "a pong for what was not sent": [HELLO, frames.encode_pong(10**9)],
    "a part too many": [HELLO, [*frames.encode([b"x" * 9000], Limits())[0], b"more"]],
    "a part that is missing": [HELLO, [frames.encode([b"x" * 9000], Limits())[0][0]]],
    "too many parts": [HELLO, struct.pack("!BBBBH", 1, 0, 5, 0, 60000)],
    "a part too large": [HELLO, struct.pack("!BBBBHI", 1, 0, 5, 0, 1, 2**31)],
    "a hundred parts": [HELLO, [b"x"] * 100],
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_costs_its_sender_the_connection(server, bare, garbage):
    dealer = bare(*server.address, reconnect_ivl=-1)
    monitor = monitored(dealer)
    for message in garbage:
        dealer.send_multipart(message if isinstance(message, list) else [message])
    assert bye_of(dealer) is Bye.PROTOCOL
    wait_disconnected(monitor)
    dealer.disable_monitor()
    monitor.close()
    server.check()
    strangers = [link for link, _ in server.handler.downs]
    assert all(reason is DownReason.PROTOCOL for reason in server.handler.reasons)
    assert all(link.state is DownReason.PROTOCOL for link in strangers)


def test_random_messages_do_no_harm(server, bare):
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for _ in range(20):
        dealer = bare(*server.address, reconnect_ivl=-1)
        if rng.random() < 0.7:
            dealer.send(HELLO)
        for _ in range(10):
            kind = bytes((1, 0, rng.randrange(7)))
            parts = [rng.randbytes(rng.randrange(100)) for _ in range(rng.randrange(1, 5))]
            dealer.send_multipart([kind + parts[0], *parts[1:]])
        dealer.close(200)
    server.check()


def test_a_frame_beyond_the_limit_ends_the_connection_unread(server, bare):
    """zmq itself does this, and says nothing to either side."""
    dealer = bare(*server.address, reconnect_ivl=-1)
    monitor = monitored(dealer)
    dealer.send(HELLO)
    dealer.recv()
    dealer.send(bytes(5 * 1024 * 1024))
    wait_disconnected(monitor)
    dealer.disable_monitor()
    monitor.close()
    server.harness.wait(lambda: server.handler.reasons == [DownReason.LOST])
    server.check()


def test_many_frames_within_the_limit_are_refused_as_one_message(server, bare):
    """MAXMSGSIZE would let this pass."""
    keys = KeyPair.generate()
    server.admission.allow(keys.public)
    dealer = bare(*server.address, keys, reconnect_ivl=-1)
    monitor = monitored(dealer)
    sizes = [1024 * 1024] * 6
    head = struct.pack(f"!BBBBH{len(sizes)}I", 1, 0, 5, 0, len(sizes), *sizes)
    dealer.send(HELLO)
    dealer.recv()
    dealer.send_multipart([head, *map(bytes, sizes)])
    wait_disconnected(monitor)  # after a BYE, unless it was cut before its end
    dealer.disable_monitor()
    monitor.close()
    server.check()
    assert server.handler.messages == [m for m in server.handler.messages if len(m) == 1]


@pytest.mark.parametrize("hello_first", [False, True])
def test_another_major_version_is_told_so(server, bare, hello_first):
    dealer = bare(*server.address)
    if hello_first:
        dealer.send(HELLO)
        dealer.recv()
    future = bytearray(HELLO)
    future[0] = 2
    dealer.send(bytes(future) + b"as version 2 has it")
    assert bye_of(dealer) is Bye.VERSION
    server.check()


def test_a_server_of_another_version_is_told_apart(context, zap, harness):
    """What a client of today sees of tomorrow's server."""
    from manta.transports.zeromq.sockets import SocketFactory

    keys = KeyPair.generate()
    zap.register("home", Admission(guests=True))
    factory = SocketFactory(context, keys, zap=zap)
    router = factory.server(zmq.ROUTER, "home")
    address = factory.bind(router, "tcp://127.0.0.1:0")
    link = harness.transport().dial(address, keys.public, RecordingHandler())
    name = router.recv_multipart()[0]
    router.send_multipart([name, bytes((2, 0, Kind.BYE, Bye.VERSION)) + b"and more"])
    harness.wait(lambda: link.state is DownReason.VERSION)


def test_a_server_that_talks_before_hello_loses_the_link(context, zap, harness):
    from manta.transports.zeromq.sockets import SocketFactory

    keys = KeyPair.generate()
    zap.register("home", Admission(guests=True))
    factory = SocketFactory(context, keys, zap=zap)
    router = factory.server(zmq.ROUTER, "home")
    address = factory.bind(router, "tcp://127.0.0.1:0")
    handler = RecordingHandler()
    link = harness.transport().dial(address, keys.public, handler)
    name = router.recv_multipart()[0]
    router.send_multipart([name, *frames.encode([b"data"], Limits())[0]])
    harness.wait(lambda: link.state is DownReason.PROTOCOL)
    assert handler.messages == []


def test_who_says_no_hello_is_cut_off():
    harness = ZmqHarness(LinkOptions(hello=0.2))
    transport = ZmqTransport(
        KeyPair.generate(), options=LinkOptions(hello=0.2), sockets=SocketOptions(handshake=300)
    )
    try:
        listener = transport.listen("tcp://127.0.0.1:0", RecordingHandler(), Admission(guests=True))
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            keys = KeyPair.generate()
            dealer.linger = 0
            dealer.curve_serverkey = transport.public_key.encode()
            dealer.curve_publickey = keys.public.encode()
            dealer.curve_secretkey = keys.secret.encode()
            dealer.reconnect_ivl = -1
            with dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
                dealer.connect(listener.address)
                wait_disconnected(monitor)
                dealer.disable_monitor()
    finally:
        transport.close()
        harness.close()


def test_silent_connections_do_not_keep_others_out(server):
    """Ten of them come while 500 connections say nothing."""
    host, port = split_address(server.listener.address)
    silent = []
    try:
        for _ in range(500):
            silent.append(std_socket.create_connection((host, port), timeout=5))
        for _ in range(10):
            start = time.monotonic()
            newcomer = server.harness.transport()
            link = newcomer.dial(*server.address, RecordingHandler())
            server.harness.wait(lambda link=link: link.state is None)
            assert time.monotonic() - start < 3.0
        server.check()
    finally:
        for connection in silent:
            connection.close()


def test_after_a_cut_nothing_is_handled_and_nothing_sent(server, bare):
    """Under a steady stream, from a peer that does not stop talking."""
    keys = KeyPair.generate()
    dealer = bare(*server.address, keys, reconnect_ivl=-1, sndtimeo=0)
    monitor = monitored(dealer)
    dealer.send(HELLO)
    dealer.recv()
    server.harness.wait(lambda: len(server.handler.links) == 2)
    accepted = server.handler.link
    stop = threading.Event()
    handled = []
    server.handler.on_message = lambda link, message: handled.append(link)

    def talk():
        message = frames.encode([b"x"], Limits())[0][0]
        while not stop.wait(0.001):
            with contextlib.suppress(zmq.Again):
                dealer.send(message)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        server.harness.wait(lambda: len(handled) > 20)
        assert server.listener.cut(keys.public) == 1
        at_cut = len(handled)
        assert accepted.state is DownReason.REVOKED
        wait_disconnected(monitor, 1000)  # the connection itself, and not only its messages
        time.sleep(0.3)
        assert len(handled) == at_cut
    finally:
        stop.set()
        talker.join()
        dealer.disable_monitor()
        monitor.close()
    server.handler.on_message = echo
    server.check()


def test_a_denial_alone_is_checked_with_every_message(server, bare):
    """ZAP decides only at the handshake."""
    keys = KeyPair.generate()
    dealer = bare(*server.address, keys, reconnect_ivl=-1)
    dealer.send(HELLO)
    dealer.recv()
    server.harness.wait(lambda: len(server.handler.links) == 2)
    server.admission.deny(keys.public)
    dealer.send(frames.encode([b"x"], Limits())[0][0])
    server.harness.wait(lambda: server.handler.reasons == [DownReason.REVOKED])
    assert server.handler.messages == []
    server.check()


@pytest.mark.parametrize("hello_first", [True, False])
def test_a_message_without_an_end_is_not_waited_for(caplog, hello_first):
    """zmq holds all of a message until its last part, whatever its limits."""
    limits = Limits(frame_bytes=65_536, message_bytes=65_536, parts=4)
    options = LinkOptions(limits=limits, window=200_000, heartbeat=0.02, silence=5.0)
    harness = ZmqHarness(options)
    try:
        server = Server(harness)
        with CurveClient(*server.address).connect() as client:
            if hello_first:
                client.send(HELLO)
                client.receive()
            client.flood(client.endless(bytes(60_000), batch=4), most=400 << 20)
            assert client.wait_cut()
        server.check()
        if hello_first:
            harness.wait(lambda: server.handler.reasons == [DownReason.PROTOCOL])
            assert "a message without an end" in caplog.text
        else:
            assert caplog.text == ""
    finally:
        harness.close()


def test_a_large_message_over_a_slow_line_is_no_silence():
    """Its heartbeats wait behind it; what counts is that it moves."""
    options = LinkOptions(heartbeat=0.1, silence=0.4)
    harness = ZmqHarness(options)
    server, client = harness.transport(), harness.transport()
    handler, at_client = RecordingHandler(), RecordingHandler()
    listener = server.listen("tcp://127.0.0.1:0", handler, Admission([client.public_key]))
    line = SlowLine(listener.address, 1_000_000)
    try:
        link = client.dial(line.address, server.public_key, at_client)
        harness.wait(lambda: link.state is None)
        large = bytes(1_500_000)
        link.send([large])
        harness.wait(lambda: handler.messages == [[large]])
        assert handler.downs == at_client.downs == []
    finally:
        harness.close()
        line.close()


class SlowLine:
    """A relay that passes so many bytes a second to the server, and all of them back."""

    def __init__(self, address, rate):
        self._server = split_address(address)
        self._rate = rate
        self._listening = std_socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        self.address = f"tcp://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        client, _ = self._listening.accept()
        server = std_socket.create_connection(self._server)
        # Small, so that what is on its way is not taken for what has arrived.
        client.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_RCVBUF, 65536)
        self._sockets += [client, server]
        for route in ((client, server, True), (server, client, False)):
            self._threads.append(threading.Thread(target=self._relay, args=route))
            self._threads[-1].start()

    def _relay(self, source, target, slow):
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                target.sendall(data)
                if slow:
                    time.sleep(len(data) / self._rate)

    def close(self):
        for socket in self._sockets:
            with contextlib.suppress(OSError):
                socket.shutdown(std_socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        for socket in self._sockets:
            socket.close()
