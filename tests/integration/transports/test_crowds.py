"""Crowds of strangers: they leave, they are counted, and who is known does not wait behind them."""

from __future__ import annotations

import contextlib
import os
import socket as std_socket
import threading
import time

import pytest
import zmq

from manta.testing.curve import CurveClient
from manta.testing.transports import RecordingHandler, ZmqHarness, echo
from manta.transports import frames
from manta.transports.addresses import split_address
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import Verdict
from manta.transports.errors import DownReason
from manta.transports.frames import Hello, Limits
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.routing_ids import new_routing_id
from manta.transports.security.strangers import StrangerLimits
from manta.transports.zeromq.links import LinkOptions
from manta.transports.zeromq.sockets import SocketOptions
from manta.transports.zeromq.transport import ZmqTransport

HELLO = frames.encode_hello(Hello(Limits(), 8 * 1024 * 1024, 5000))
HERE = "tcp://127.0.0.1:0"
MANY = {"rate": 1e6, "burst": 1e6, "rate_per_source": 1e6, "burst_per_source": 1e6}


class Door:
    """A listener that takes guests and knows one key, whose link is up."""

    def __init__(self, harness: ZmqHarness, **limits) -> None:
        self.harness = harness
        self.handler, self.at_client = RecordingHandler(echo), RecordingHandler()
        self.transport, self.client = harness.transport(), harness.transport()
        self.admission = Admission(
            [self.client.public_key], guests=True, limits=StrangerLimits(**limits)
        )
        self.listener = self.transport.listen(HERE, self.handler, self.admission)
        self.server = self.listener.address, self.transport.public_key
        self.link = self.client.dial(*self.server, self.at_client)
        harness.wait(lambda: self.link.state is None)

    @property
    def counts(self) -> dict[str, int]:
        return self.admission.tally.counts()

    def check(self) -> None:
        """Who is known never lost its link, and is served."""
        said = len(self.at_client.messages)
        self.link.send([b"still there?"])
        self.harness.wait(lambda: len(self.at_client.messages) > said)
        assert self.at_client.downs == []


@pytest.fixture
def door(harness):
    return lambda **limits: Door(harness, **limits)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def said_by_the_door(caplog) -> list[str]:
    return [record.message for record in caplog.records if "strangers" in record.message]


def from_address(source: str, address: str) -> str:
    """What to connect to, so that the connection comes from that address of this machine."""
    host, port = split_address(address)
    return f"tcp://{source}:0;{host}:{port}"


def has_ended(connection: std_socket.socket) -> bool:
    """Waits for its end, as long as its timeout."""
    try:
        while connection.recv(100):
            pass  # the greeting
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


@contextlib.contextmanager
def crowd(count, address, server_key):
    """So many who prove a key of their own, say HELLO, and then nothing."""
    with contextlib.ExitStack() as undo:
        contexts = [zmq.Context() for _ in range(1 + count // 500)]
        for context in contexts:
            undo.callback(context.term)
        dealers = []
        for number in range(count):
            dealer = contexts[number // 500].socket(zmq.DEALER)
            undo.callback(dealer.close, 0)
            public, dealer.curve_secretkey = zmq.curve_keypair()
            dealer.curve_publickey, dealer.curve_serverkey = public, server_key.encode()
            dealer.reconnect_ivl, dealer.routing_id = -1, new_routing_id()
            dealer.connect(address)
            dealer.send(HELLO)
            dealers.append(dealer)
        yield dealers


@pytest.mark.timeout(180)
def test_1200_silent_guests_leave_in_time_and_are_told_in_one_line_of_each_kind(door, caplog):
    it = door(patience=4.0, **MANY)
    before, begin = descriptors(), time.monotonic()
    most = 0

    def count() -> None:
        nonlocal most
        up = [link for link in it.handler.links if link.state is None]
        most = max(most, len(up) - 1)

    def all_left() -> bool:
        it.transport.call_soon(count)  # where nothing changes meanwhile
        # A busy machine sees some only when they are gone already: those are not counted. The
        # known one stays.
        return sum(it.counts.values()) >= 1000 and len(it.listener._connections) == 1

    with crowd(1200, *it.server):
        it.harness.wait(all_left, 120)
        it.check()
    limits = it.admission.limits
    # The newest comes before the oldest goes.
    assert most <= limits.guests_per_source + 1
    it.harness.wait(lambda: descriptors() <= before)
    assert all(reason is DownReason.CLOSED for reason in it.handler.reasons)
    lines = said_by_the_door(caplog)
    minutes = 1 + (time.monotonic() - begin) // 60
    assert 1 <= len(lines) <= 3 * minutes
    assert any("strangers cut, after whom too many others came: " in line for line in lines)
    it.check()


def test_a_guest_that_says_all_it_should_has_to_sign_in_all_the_same(door, harness):
    it = door(patience=1.0)
    guest, at_guest = harness.transport(), RecordingHandler()
    link = guest.dial(*it.server, at_guest)
    harness.wait(lambda: at_guest.reasons == [DownReason.CLOSED])
    assert it.counts["late"] == 1
    # It may come again; and once its key is known, it stays.
    harness.wait(lambda: link.state is None)
    it.admission.allow(guest.public_key)
    downs = len(at_guest.downs)
    harness.rest(2.5)
    assert len(at_guest.downs) == downs
    # Until it is not any more.
    it.admission.forget(guest.public_key)
    harness.wait(lambda: len(at_guest.downs) > downs)
    it.check()


def test_a_guest_that_waits_for_this_side_is_not_cut_for_that(door, harness):
    it = door(patience=0.5)
    guest, at_guest = harness.transport(), RecordingHandler()
    decided: list[bool] = []

    def is_checked() -> bool:
        return bool(decided)

    guest.dial(*it.server, at_guest)
    harness.wait(lambda: guest.public_key in {link.peer_key for link in it.handler.links})
    its = next(link for link in it.handler.links if link.peer_key == guest.public_key)
    its.excuse(is_checked)
    other = harness.transport()
    other.dial(*it.server, RecordingHandler())
    harness.wait(lambda: it.counts["late"] >= 3)  # the other's, which comes again and again
    assert at_guest.downs == []
    decided.append(True)
    harness.wait(lambda: at_guest.reasons[:1] == [DownReason.CLOSED])


def test_guests_that_wait_for_this_side_leave_in_the_end_and_are_no_more_than_others(door):
    it = door(patience=1.0, longest=2.0, guests=8, guests_per_source=4, **MANY)
    guest = KeyPair.generate()
    with contextlib.ExitStack() as undo:
        clients = []
        for number in range(30):
            client = undo.enter_context(CurveClient(it.server[0], it.server[1], guest).connect())
            client.send(HELLO)
            client.receive()
            it.harness.wait(lambda number=number: len(it.handler.links) == number + 2)
            it.handler.link.excuse(lambda: False)
            clients.append(client)
        it.harness.wait(lambda: it.counts["crowded"] >= 26)
        it.harness.wait(lambda: it.counts["late"] >= 4 or it.counts["crowded"] == 30)
        assert all(client.wait_cut(5.0) for client in clients)
    it.check()


def test_new_keys_of_one_address_keep_out_neither_known_ones_nor_other_addresses(door, bare):
    it = door(rate_per_source=0.01, burst_per_source=10)
    host = it.server[0]
    known = KeyPair.generate()
    it.admission.allow(known.public)
    flood = [bare(*it.server, reconnect_ivl=-1) for _ in range(60)]
    it.harness.wait(lambda: it.counts["put_off"] >= 50)
    for dealer in (
        bare(host, it.server[1], known),
        bare(from_address("127.0.0.2", host), it.server[1]),
    ):
        dealer.send(HELLO)
        assert dealer.recv(), "it was answered"
    assert it.counts["put_off"] < 60  # those of the flood that were first
    assert flood
    it.check()


def test_connections_that_say_nothing_are_few_at_a_time_and_do_not_keep_others_out(door, harness):
    it = door(arriving=50, arriving_per_source=40)
    host, port = split_address(it.server[0])
    with contextlib.ExitStack() as undo:
        silent = [
            undo.enter_context(std_socket.create_connection((host, port), timeout=5))
            for _ in range(300)
        ]
        for connection in silent[:260]:
            assert has_ended(connection)
        newcomer, handler = harness.transport(), RecordingHandler()
        it.admission.allow(newcomer.public_key)
        link = newcomer.dial(*it.server, handler)
        harness.wait(lambda: link.state is None)
        assert it.counts["crowded"] >= 260
        it.check()


@pytest.mark.parametrize(
    "said",
    [b"", b"\xff", b"\xff" + bytes(8) + b"\x7f\x03", b"GET / HTTP/1.1\r\n"],
    ids=["nothing", "a byte", "half a greeting", "another protocol"],
)
def test_who_begins_a_handshake_and_does_not_go_on_is_ended_however_slowly_it_speaks(said):
    options = LinkOptions(hello=0.5)
    transport = ZmqTransport(
        KeyPair.generate(), options=options, sockets=SocketOptions(handshake=500)
    )
    try:
        listener = transport.listen(HERE, RecordingHandler(), Admission(guests=True))
        with std_socket.create_connection(split_address(listener.address), 30) as connection:
            trickle = iter(said)
            connection.settimeout(0.2)
            deadline = time.monotonic() + 20
            while not has_ended(connection):
                assert time.monotonic() < deadline
                with contextlib.suppress(OSError):
                    connection.sendall(bytes([next(trickle, 0)]) if said else b"")
    finally:
        transport.close()


def test_a_guest_that_leaves_its_link_and_stays_connected_is_ended(door, bare):
    it = door(patience=1.0)
    dealer = bare(*it.server, reconnect_ivl=-1)
    with dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED) as monitor:
        dealer.send(HELLO)
        dealer.recv()
        dealer.send(frames.encode_bye(frames.Bye.CLOSING))
        it.harness.wait(lambda: it.handler.reasons == [DownReason.CLOSED])
        assert monitor.poll(20_000), "its connection was ended"
        dealer.disable_monitor()
    assert it.counts["late"] == 1
    it.check()


def test_connections_of_one_address_do_not_push_out_those_of_another(door):
    it = door(arriving=30, arriving_per_source=30)
    host, port = split_address(it.server[0])
    with contextlib.ExitStack() as undo:

        def connect(source: str) -> std_socket.socket:
            made = std_socket.create_connection((host, port), 5, (source, 0))
            return undo.enter_context(made)

        quiet = connect("127.0.0.3")
        quiet.settimeout(0.5)
        for _ in range(100):
            connect("127.0.0.1")
        it.harness.wait(lambda: it.counts["crowded"] >= 71)
        assert not has_ended(quiet)
        it.check()


@pytest.mark.timeout(120)
def test_what_says_nothing_on_the_bulk_port_goes_and_transfers_go_on(tmp_path, harness):
    keys, near_keys = KeyPair.generate(), KeyPair.generate()
    far, near = FileDepot(tmp_path / "far", sync=False), FileDepot(tmp_path / "near", sync=False)
    admission = Admission(
        [near_keys.public], limits=StrangerLimits(arriving=50, arriving_per_source=40)
    )
    with contextlib.ExitStack() as undo:
        server, client = CurveBulk(keys, far), CurveBulk(near_keys, near)
        undo.callback(server.close)
        undo.callback(client.close)
        address = server.listen(HERE, admission, lambda *_: Verdict.GRANTED)
        host, port = split_address(address)
        for _ in range(300):
            undo.enter_context(std_socket.create_connection((host, port), timeout=5))
        blob = os.urandom(1 << 20)
        peer = client.dial(address, keys.public)
        peer.push(near.put(blob), len(blob), timeout=30).result(30)
        counts = admission.tally.counts
        harness.wait(lambda: counts()["crowded"] >= 250)
        # The others are ended by libzmq, and by the listener where it does not.
        harness.wait(lambda: counts()["crowded"] + counts()["unfinished"] == 300, 30)
        again = os.urandom(1 << 20)
        peer.push(near.put(again), len(again), timeout=30).result(30)


def test_a_guest_beyond_the_last_descriptors_costs_an_older_one(bare):
    harness = ZmqHarness(LinkOptions())
    try:
        it = Door(harness, last_descriptor=0)
        first = bare(*it.server, reconnect_ivl=-1)
        first.send(HELLO)
        assert first.recv()
        assert it.counts["crowded"] == 0
        second = bare(*it.server, reconnect_ivl=-1)
        second.send(HELLO)
        assert second.recv()
        harness.wait(lambda: it.counts["crowded"] == 1)
        assert frames.decode_bye(frames.decode_head(first.recv(), Limits())) is frames.Bye.CLOSING
        it.check()
    finally:
        harness.close()


def test_where_descriptors_run_out_the_known_key_with_most_connections_gives_way(door, bare):
    it = door(last_descriptor=0, last_of_known=0)
    greedy = KeyPair.generate()
    it.admission.allow(greedy.public)
    for surplus in (0, 0, 1, 2):
        dealer = bare(*it.server, greedy, reconnect_ivl=-1)
        dealer.send(HELLO)
        assert dealer.recv(), "the newest is served"
        it.harness.wait(lambda surplus=surplus: it.counts["surplus"] == surplus)
    it.check()


def fill_reports(address: str) -> None:
    """Connect until libzmq accepts no more: nobody reads what it reports."""
    host, port = split_address(address)
    with contextlib.suppress(TimeoutError):
        for _ in range(5000):  # each is reported twice
            std_socket.create_connection((host, port), timeout=2).close()
        pytest.fail("libzmq holds more reports than this test makes")


def test_a_listener_closes_while_libzmq_waits_for_who_reads_its_reports(harness):
    transport = harness.transport()
    listener = transport.listen(HERE, RecordingHandler(), Admission(guests=True))
    with harness.frozen(transport):
        fill_reports(listener.address)
        closing = threading.Thread(target=transport.close)
        closing.start()
    closing.join(30)
    assert not closing.is_alive()
    assert not transport._io._thread.is_alive()


def test_a_bulk_listener_closes_while_libzmq_waits_for_who_reads_its_reports(tmp_path):
    server = CurveBulk(KeyPair.generate(), FileDepot(tmp_path, sync=False))
    address = server.listen(HERE, Admission(), lambda *_: Verdict.GRANTED)
    thawed = threading.Event()
    server._loop.call(lambda: thawed.wait(30))
    fill_reports(address)
    closing = threading.Thread(target=server.close)
    closing.start()
    thawed.set()
    closing.join(30)
    assert not closing.is_alive()
