"""Links over real sockets: what the conformance suite cannot ask of memory."""

from __future__ import annotations

import os
import signal
import socket as std_socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from manta.testing.transports import RecordingHandler, ZmqHarness, echo
from manta.transports.errors import DownReason, LocalTransportError
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.strangers import StrangerLimits
from manta.transports.zeromq.links import DROPPED, LinkOptions, drop_parts, receive_parts

ANY_PORT = "tcp://127.0.0.1:0"


def test_a_hundred_reconnects_leave_nothing_behind(harness):
    server, client = harness.transport(), harness.transport()
    handler = RecordingHandler(echo)
    listener = server.listen(ANY_PORT, handler, Admission([client.public_key]))
    files = threads = 0
    for number in range(100):
        heard = RecordingHandler()
        link = client.dial(listener.address, server.public_key, heard)
        harness.wait(lambda link=link: link.state is None)
        link.send([b"%d" % number])
        harness.wait(lambda heard=heard, n=number: heard.messages == [[b"%d" % n]])
        link.close()
        harness.wait(lambda n=number: len(handler.downs) == n + 1)
        if number == 10:
            files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    assert set(handler.reasons) == {DownReason.CLOSED}
    harness.wait(lambda: len(os.listdir("/proc/self/fd")) <= files + 5)
    assert threading.active_count() == threads
    assert not listener._links
    harness.wait(lambda: len(listener._connections) == 0)


def test_a_link_heals_a_hundred_times(harness):
    server, client = harness.transport(), harness.transport()
    handler, at_client = RecordingHandler(echo), RecordingHandler()
    listener = server.listen(ANY_PORT, handler, Admission([client.public_key]))
    link = client.dial(listener.address, server.public_key, at_client)
    for number in range(100):
        harness.wait(lambda n=number: len(handler.links) == n + 1)
        # As if the network had dropped the connection.
        link_at_server: Any = handler.link
        server.call_soon(link_at_server.tcp.kill)
        harness.wait(lambda n=number: len(handler.downs) == n + 1)
    harness.wait(lambda: link.state is None)
    assert set(at_client.reasons) == set(handler.reasons) == {DownReason.LOST}
    link.send([b"still the same link"])
    harness.wait(lambda: at_client.messages == [[b"still the same link"]])


CLIENT = """
import sys, time
from manta.testing.transports import RecordingHandler
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport
secret, address, server = sys.argv[1:]
link = ZmqTransport(KeyPair.from_secret(secret)).dial(address, server, RecordingHandler())
while True:
    time.sleep(1)
"""


def start_client(keys, address, server):
    return subprocess.Popen([sys.executable, "-c", CLIENT, keys.secret, address, server])


def test_a_process_that_is_killed_is_noticed_at_once_and_its_successor_served(harness):
    server, keys = harness.transport(), KeyPair.generate()
    handler = RecordingHandler()
    listener = server.listen(ANY_PORT, handler, Admission([keys.public]))
    for number in range(5):
        process = start_client(keys, listener.address, server.public_key)
        try:
            harness.wait(lambda n=number: len(handler.links) == n + 1)
            process.kill()
            killed = time.monotonic()
            harness.wait(lambda n=number: len(handler.downs) == n + 1)
            assert time.monotonic() - killed < 2.0
        finally:
            process.kill()
            process.wait()
    assert set(handler.reasons) == {DownReason.LOST}


def test_a_stopped_process_is_noticed_and_told_when_it_goes_on():
    harness = ZmqHarness(LinkOptions(heartbeat=0.2, silence=1.0))
    keys = KeyPair.generate()
    server, handler = harness.transport(), RecordingHandler()
    listener = server.listen(ANY_PORT, handler, Admission([keys.public]))
    process = start_client(keys, listener.address, server.public_key)
    try:
        harness.wait(lambda: len(handler.links) == 1)
        process.send_signal(signal.SIGSTOP)
        harness.wait(lambda: handler.reasons == [DownReason.SILENT])
        process.send_signal(signal.SIGCONT)
        harness.wait(lambda: len(handler.links) == 2)
    finally:
        process.kill()
        process.wait()
        harness.close()


def test_an_idle_link_stays_up():
    harness = ZmqHarness(LinkOptions(heartbeat=0.1, silence=0.4))
    try:
        server, client = harness.transport(), harness.transport()
        handler, at_client = RecordingHandler(), RecordingHandler()
        listener = server.listen(ANY_PORT, handler, Admission([client.public_key]))
        link = client.dial(listener.address, server.public_key, at_client)
        harness.wait(lambda: link.state is None)
        harness.rest(1.5)
        assert handler.downs == at_client.downs == []
    finally:
        harness.close()


def test_a_server_that_never_speaks_is_told_apart_from_a_busy_one(harness):
    """Both accept the connection and then say nothing of use."""
    client = harness.transport()
    busy = harness.transport()
    crowded = Admission(guests=True, limits=StrangerLimits(rate=0, burst=0))
    listener = busy.listen(ANY_PORT, RecordingHandler(), crowded)
    with std_socket.socket() as frozen:
        frozen.bind(("127.0.0.1", 0))
        frozen.listen()
        start = time.monotonic()
        at_frozen = client.dial(
            f"tcp://127.0.0.1:{frozen.getsockname()[1]}", busy.public_key, RecordingHandler()
        )
        at_busy = client.dial(listener.address, busy.public_key, RecordingHandler())
        harness.wait(lambda: at_frozen.state is DownReason.SILENT)
        harness.wait(lambda: at_busy.state is DownReason.BUSY)
        assert time.monotonic() - start < 5.0


def test_a_server_that_closes_during_a_handshake_is_not_taken_for_a_stranger(harness):
    client, server = harness.transport(), harness.transport()
    crowded = Admission(guests=True, limits=StrangerLimits(rate=0, burst=0))
    listener = server.listen(ANY_PORT, RecordingHandler(), crowded)
    handler = RecordingHandler()
    link = client.dial(listener.address, server.public_key, handler)
    harness.rest(0.3)
    listener.close()
    harness.wait(lambda: link.state is DownReason.UNREACHABLE)
    assert DownReason.WRONG_KEY not in handler.reasons


def test_a_name_is_resolved_without_holding_up_the_links(harness, monkeypatch):
    asked, answer = threading.Event(), threading.Event()
    real = std_socket.getaddrinfo

    def slow(host, *args, **options):
        if host != "server.test":
            return real(host, *args, **options)
        asked.set()
        assert answer.wait(10)
        return real("127.0.0.1", *args, **options)

    monkeypatch.setattr(std_socket, "getaddrinfo", slow)
    server, client = harness.transport(), harness.transport()
    handler = RecordingHandler(echo)
    listener = server.listen(ANY_PORT, handler, Admission([client.public_key]))
    port = listener.address.rpartition(":")[2]
    named = client.dial(f"tcp://server.test:{port}", server.public_key, RecordingHandler())
    assert asked.wait(5)
    other = client.dial(f"tcp://localhost:{port}", server.public_key, RecordingHandler())
    harness.wait(lambda: other.state is None)
    assert named.state is DownReason.CONNECTING
    answer.set()
    harness.wait(lambda: named.state is None)


def test_a_name_that_nobody_knows_is_told_as_that(harness, monkeypatch):
    def unknown(*args, **options):
        raise std_socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(std_socket, "getaddrinfo", unknown)
    handler = RecordingHandler()
    link = harness.transport().dial("tcp://nobody.test:1", KeyPair.generate().public, handler)
    harness.wait(lambda: link.state is DownReason.UNKNOWN_HOST, timeout=2)


def test_many_threads_send_on_one_link(harness):
    server, client = harness.transport(), harness.transport()
    handler = RecordingHandler()
    listener = server.listen(ANY_PORT, handler, Admission([client.public_key]))
    link = client.dial(listener.address, server.public_key, RecordingHandler())
    harness.wait(lambda: link.state is None)

    def send(name):
        for number in range(300):
            link.send([name, b"%d" % number])

    threads = [threading.Thread(target=send, args=(b"%d" % n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    harness.wait(lambda: len(handler.messages) == 1800)
    for name in range(6):
        numbers = [int(number) for who, number in handler.messages if int(who) == name]
        assert numbers == list(range(300))


@pytest.fixture
def patient() -> Iterator[ZmqHarness]:
    """With windows wider than what zmq and the kernel's buffers take together."""
    harness = ZmqHarness(LinkOptions(window=64 * 1024 * 1024))
    yield harness
    harness.close()


def test_more_than_zmq_takes_is_kept_and_sent_later(patient):
    """Past the high-water marks of both sides, within the window; nothing is lost or reordered."""
    harness = patient
    server, client = harness.transport(), harness.transport()
    handler, at_client = RecordingHandler(), RecordingHandler()
    listener = server.listen(ANY_PORT, handler, Admission([client.public_key]))
    link = client.dial(listener.address, server.public_key, at_client)
    harness.wait(lambda: link.state is None and bool(handler.links))
    routes: list[tuple[Any, Any, RecordingHandler]] = [
        (link, server, handler),
        (handler.link, client, at_client),
    ]
    for sender, receiver, heard in routes:
        with harness.frozen(receiver):
            count = 0
            while len(sender._backlog) < 100:
                sender.send([b"%06d" % count, bytes(500)])
                count += 1
        harness.wait(lambda heard=heard, count=count: len(heard.messages) == count, timeout=30)
        assert [int(message[0]) for message in heard.messages] == list(range(count))


def test_heartbeats_tell_what_was_received(harness):
    """Without them a trickle of small messages would fill the window for good."""
    server, client = harness.transport(), harness.transport()
    listener = server.listen(ANY_PORT, RecordingHandler(), Admission([client.public_key]))
    link = client.dial(listener.address, server.public_key, RecordingHandler())
    harness.wait(lambda: link.state is None)
    link.send([b"a trickle"])
    harness.wait(lambda: link._acknowledged == link._sent > 0, timeout=5)


def test_a_socket_of_the_parent_is_listened_on(harness):
    server, client = harness.transport(), harness.transport()
    with std_socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        admission = Admission([client.public_key])
        listener = server.listen(address, RecordingHandler(), admission, fd=listening.fileno())
        assert listener.address == address
        link = client.dial(address, server.public_key, RecordingHandler())
        harness.wait(lambda: link.state is None)


def test_a_handler_cannot_close_its_own_transport(harness):
    server, client = harness.transport(), harness.transport()
    errors = []

    def close(link, message):
        try:
            server.close()
        except LocalTransportError as error:
            errors.append(str(error))

    handler = RecordingHandler(close)
    listener = server.listen(ANY_PORT, handler, Admission([client.public_key]))
    link = client.dial(listener.address, server.public_key, RecordingHandler())
    harness.wait(lambda: link.state is None)
    link.send([b"close"])
    harness.wait(lambda: bool(errors))
    assert "use another thread" in errors[0]
    assert link.state is None


@pytest.mark.parametrize("address", ["localhost:1", "ipc:///tmp/x", "tcp://host"])
def test_an_address_that_cannot_be_is_refused_at_once(harness, address):
    transport = harness.transport()
    with pytest.raises(LocalTransportError, match="write tcp://HOST:PORT"):
        transport.dial(address, KeyPair.generate().public, RecordingHandler())
    with pytest.raises(LocalTransportError, match="write tcp://HOST:PORT"):
        transport.listen(address, RecordingHandler(), Admission())


def test_last_words_are_heard_even_from_a_connection_that_is_gone(harness):
    server, client = harness.transport(), harness.transport()
    handler, at_client = RecordingHandler(), RecordingHandler()
    listener = server.listen(ANY_PORT, handler, Admission([client.public_key]))
    link = client.dial(listener.address, server.public_key, at_client)
    harness.wait(lambda: link.state is None and bool(handler.links))
    routes: list[tuple[Any, Any, RecordingHandler]] = [
        (handler.link, client, at_client),
        (link, server, handler),
    ]
    for sender, receiver, heard in routes:
        with harness.frozen(receiver):
            for number in range(700):
                sender.send([b"%d" % number])
            sender.close()
            harness.rest(0.3)
        harness.wait(lambda heard=heard: bool(heard.downs))
        assert len(heard.messages) == 700
        assert heard.reasons[0] is DownReason.CLOSED
        if sender is not link:  # closed by the server: it dials again
            harness.wait(lambda: link.state is None and len(handler.links) == 2)
            handler.downs.clear()


@pytest.mark.parametrize(
    "surplus", [0, 1, DROPPED - 1, DROPPED, DROPPED + 1, 2 * DROPPED, 3 * DROPPED + 5]
)
def test_of_a_message_with_too_many_parts_the_rest_is_dropped_and_the_next_one_read(
    context, surplus
):
    near, far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    near.sndhwm = far.rcvhwm = 0
    near.bind("inproc://parts")
    far.connect("inproc://parts")
    near.send_multipart([b"%d" % number for number in range(5 + surplus)])
    near.send_multipart([b"the", b"next"])
    parts = receive_parts(far, 5)
    assert [part.bytes for part in parts] == [b"0", b"1", b"2", b"3", b"4"]
    turns = 0
    while parts[-1].more and drop_parts(far):
        turns += 1
    assert turns == max(0, surplus - 1) // DROPPED
    assert [part.bytes for part in receive_parts(far, 5)] == [b"the", b"next"]
