"""Sealed bulk over TCP, and plain bulk over Unix sockets, between endpoints of one process."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import socket
import struct
import sys
import threading
import time
from contextlib import closing, suppress

import pytest

from manta.transports.addresses import split_address
from manta.transports.errors import (
    AddressInUse,
    BulkError,
    DownReason,
    KeyFileError,
    LocalTransportError,
    TransferCancelled,
    TransferRefused,
)
from manta.transports.sealed.in_file import InFile
from manta.transports.sealed.records import Head, Kind, SealedRecords
from manta.transports.sealed.tickets import CALL, GREETING, REPLY, Caller
from manta.transports.security.keys import KeyPair
from manta.transports.security.strangers import StrangerLimits
from tests.support.peers import QUICK, Outcome, Side, name, wait

MIB = 1 << 20
SIZE, CUTS = (1024 * MIB, 20) if os.environ.get("MANTA_FULL") else (160 * MIB, 3)
"""In full with MANTA_FULL=1."""
FORMS = [
    "sealed",
    "curve",
    pytest.param(
        "plain", marks=pytest.mark.skipif(sys.platform != "linux", reason="memfds and ucred")
    ),
]


@pytest.fixture
def sides():
    made = []

    def make(form="sealed", **options):
        side = Side(form, **options)
        made.append(side)
        return side

    yield make
    for side in made:
        side.endpoint.close()
        side.endpoint.close()


@pytest.fixture
def pair(sides, tmp_path):
    def make(form="sealed", **options):
        near, far = sides(form, **options), sides(form, **options)
        far.listen(tmp_path)
        near.meet(far)
        return near, far

    return make


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 3_000_001])
def test_both_ways(pair, form, size):
    near, far = pair(form)
    out, back = os.urandom(size), os.urandom(size)
    arriving, there = far.expect(near, 1, size)
    sending = near.send(far, 1, out)
    returning = far.send(near, 1, back)
    coming, here = near.expect(far, 1, size)
    for outcome in (arriving, sending, returning, coming):
        outcome.result()
    assert (there, here) == (out, back)
    assert arriving.upto == coming.upto == sending.upto == size
    assert near.peer(far).sent == near.peer(far).received == size
    assert near.peer(far).state is None


@pytest.mark.parametrize("form", FORMS)
def test_many_at_a_time_in_parts_that_become_ready(pair, form):
    near, far = pair(form)
    transfers = []
    for number in range(300):  # more than may be open
        data = os.urandom(5000 + number)
        arriving, there = far.expect(near, number, len(data))
        sending = Outcome()
        parts = [data[:1], bytearray(data[1:2000]), memoryview(data)[2000:], b""]
        near.peer(far).send(name(number), parts, done=sending.done, ready=0)
        transfers.append((data, there, arriving, sending))
    for number, (data, *_) in enumerate(transfers):
        near.peer(far).ready(name(number), 1500)
        near.peer(far).ready(name(number), len(data))
    for data, there, arriving, sending in transfers:
        sending.result()
        arriving.result()
        assert there == data


def memfd(data):
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
    return fd


@pytest.mark.skipif(sys.platform != "linux", reason="memfds")
@pytest.mark.parametrize("form", FORMS)
def test_a_memfd_is_passed_where_it_can_be(pair, form):
    near, far = pair(form)
    near.send(far, 99, b"")
    far.expect(near, 99, 0)[0].result()
    before = set(os.listdir("/proc/self/fd"))
    data = os.urandom(3 * MIB + 5)
    for number in range(20):
        fd = memfd(data)
        arriving, there = far.expect(near, number, len(data))
        near.send(far, number, data, memfd=fd).result()
        arriving.result()
        os.close(fd)
        assert there == data
    fd = memfd(data)
    arriving, there = far.expect(near, 40, MIB)
    near.send(far, 40, memoryview(data)[1234:][:MIB], memfd=fd, at=1234).result()
    os.close(fd)
    assert there == data[1234:][:MIB]
    # A cancelled one's is closed as well.
    fd = memfd(data)
    sending = near.send(far, 50, data, memfd=fd, ready=10)
    wait(lambda: far.peer(near)._transfers.has_open(name(50)))
    near.peer(far).cancel(name(50), "over")
    with pytest.raises(TransferCancelled):
        sending.result()
    os.close(fd)
    wait(lambda: len(set(os.listdir("/proc/self/fd")) - before) <= 1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("adopts", [True, False])
def test_memory_is_asked_for_once_it_is_needed_and_not_where_a_memfd_will_do(pair, form, adopts):
    near, far = pair(form)
    data = os.urandom(MIB)
    asked, memory, arriving = [], bytearray(MIB), Outcome()

    def place(fd):
        asked.append(fd >= 0)
        if fd < 0 or not adopts:
            return memoryview(memory)
        memory[:] = os.pread(fd, MIB, 0)
        return None

    far.peer(near).adopt(name(1), MIB, place, done=arriving.done, progress=arriving.progress)
    fd = memfd(data)
    near.send(far, 1, data, memfd=fd).result()
    arriving.result()
    os.close(fd)
    assert asked == [form == "plain"]
    assert memory == data
    assert arriving.upto == MIB


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("memory", [None, memoryview(bytearray(5)), memoryview(bytes(MIB))])
def test_where_there_is_no_memory_the_sender_is_told(pair, form, memory):
    near, far = pair(form)
    arriving = Outcome()
    far.peer(near).adopt(name(1), MIB, lambda _: memory, done=arriving.done)
    sending = near.send(far, 1, bytes(MIB))
    for outcome in (sending, arriving):
        with pytest.raises(TransferCancelled, match="no memory for 1048576 bytes"):
            outcome.result()
    arriving, _ = far.expect(near, 2, 1)
    near.send(far, 2, b"x").result()
    with pytest.raises(LocalTransportError, match="can be written"):
        far.peer(near).expect(name(3), memoryview(b"x"), done=print)


def test_what_nobody_expects_is_told(pair):
    near, far = pair()
    outcome = near.send(far, 1, b"x" * 1000)
    with pytest.raises(TransferRefused, match="did not expect it within 1 s"):
        outcome.result()
    far.peer(near).refuse(name(2), "its era is over")
    with pytest.raises(TransferRefused, match="its era is over"):
        near.send(far, 2, b"x").result()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shared", [True, False])
def test_what_arrives_may_be_written_into_a_file(pair, tmp_path, form, shared):
    near, far = pair(form)
    data, arriving = os.urandom(5 * MIB + 7), Outcome()
    fd = os.open(tmp_path / "value", os.O_RDWR | os.O_CREAT)

    def place(_):
        return InFile(fd, len(data))

    far.peer(near).adopt(name(1), len(data), place, done=arriving.done, progress=arriving.progress)
    source = memfd(data) if shared else -1
    near.send(far, 1, data, memfd=source).result()
    arriving.result()
    assert os.pread(fd, len(data) + 1, 0) == data
    assert arriving.upto == len(data)
    for each in (fd, source) if shared else (fd,):
        os.close(each)


@pytest.mark.parametrize("form", FORMS)
def test_what_the_system_does_not_write_is_refused_and_the_connection_goes_on(pair, form):
    near, far = pair(form)
    arriving = Outcome()
    fd = memfd(bytes(MIB))  # which is sealed
    far.peer(near).adopt(name(1), MIB, lambda _: InFile(fd, MIB), done=arriving.done)
    sending = near.send(far, 1, bytes(MIB))
    for outcome in (sending, arriving):
        with pytest.raises(TransferCancelled, match="Operation not permitted"):
            outcome.result()
    again, _ = far.expect(near, 2, 1)
    near.send(far, 2, b"x").result()
    again.result()
    assert far.peer(near).state is None
    os.close(fd)


@pytest.mark.parametrize("form", FORMS)
def test_either_end_cancels(pair, form):
    near, far = pair(form)
    for number, ends in ((1, near), (2, far)):
        arriving, _ = far.expect(near, number, 4 * MIB)
        sending = near.send(far, number, bytes(4 * MIB), ready=MIB)
        wait(lambda arriving=arriving: arriving.upto == MIB)
        if ends is near:
            near.peer(far).cancel(name(number), "no longer of use")
        else:
            far.peer(near).refuse(name(number), "no longer of use")
        for outcome in (arriving, sending):
            with pytest.raises(TransferCancelled, match="no longer of use"):
                outcome.result()
    arriving, _ = far.expect(near, 3, 10)
    near.send(far, 3, bytes(10)).result()
    arriving.result()


class Cutter:
    """A way through which connections go, until they are cut."""

    def __init__(self, address: str) -> None:
        self.target = split_address(address)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listening.getsockname()[1]}"
        self.ends: list[socket.socket] = []
        self.moved = 0
        self.change = -1
        """Flip a bit of the byte with this number, of those to the target."""
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        while True:
            try:
                here, _ = self.listening.accept()
            except OSError:
                return
            there = socket.create_connection(self.target)
            self.ends += [here, there]
            for source, sink, counted in ((here, there, True), (there, here, False)):
                thread = threading.Thread(target=self.pump, args=(source, sink, counted))
                self.threads.append(thread)
                thread.start()

    def pump(self, source, sink, counted):
        try:
            while data := source.recv(65536):
                if counted:
                    if self.moved <= self.change < self.moved + len(data):
                        data = bytearray(data)
                        data[self.change - self.moved] ^= 4
                        self.change = -1
                    self.moved += len(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            self.shut(end)

    @staticmethod
    def shut(end):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        for end in self.ends:
            self.shut(end)

    def close(self):
        self.shut(self.listening)
        self.listening.close()
        self.cut()
        for thread in self.threads:
            thread.join()
        for end in self.ends:
            end.close()


@pytest.mark.timeout(200)
def test_a_lost_connection_in_mid_transfer_is_resumed(sides, tmp_path):
    near, far = sides(), sides()
    with closing(Cutter(far.listen(tmp_path))) as way:
        near.meet(far, way.address)
        arriving, there = far.expect(near, 1, SIZE)
        returning, here = near.expect(far, 1, SIZE)
        data = os.urandom(SIZE)
        sending, back = near.send(far, 1, data), far.send(near, 1, data)
        for cut in range(1, CUTS + 1):
            wait(lambda cut=cut: min(arriving.upto, returning.upto) >= SIZE * cut // (CUTS + 1), 60)
            way.cut()
        for outcome in (sending, arriving, back, returning):
            outcome.result(60)
        assert there == here == data
        for peer in (near.peer(far), far.peer(near)):
            assert peer.received == SIZE
            assert peer.sent - SIZE <= 0.02 * SIZE
            print(f"{CUTS} cuts of {SIZE // MIB} MiB: {(peer.sent - SIZE) / SIZE:.2%} sent again")


def test_a_bit_that_flips_on_the_way_costs_the_connection_and_nothing_else(sides, tmp_path):
    near, far = sides(), sides()
    with closing(Cutter(far.listen(tmp_path))) as way:
        way.change = 3 * MIB
        near.meet(far, way.address)
        data = os.urandom(8 * MIB)
        arriving, there = far.expect(near, 1, len(data))
        near.send(far, 1, data).result()
        arriving.result()
        assert there == data
        assert way.change == -1


@pytest.mark.parametrize("form", FORMS)
def test_who_is_withdrawn_is_cut_off_at_once(pair, form):
    near, far = pair(form)
    arriving, _ = far.expect(near, 1, 64 * MIB)
    sending = near.send(far, 1, bytes(64 * MIB), ready=MIB)
    wait(lambda: arriving.upto == MIB)
    peer = far.peer(near)
    far.admission.forget(near.keys.public)
    handled = arriving.upto
    assert peer.state is DownReason.REVOKED
    near.peer(far).ready(name(1), 64 * MIB)
    with pytest.raises(BulkError, match="known here no longer"):
        arriving.result(1)
    wait(lambda: near.peer(far).state is DownReason.DENIED, 5)
    assert arriving.upto == handled
    assert not sending.ended.is_set()
    with pytest.raises(LocalTransportError, match="not known here"):
        far.peer(near)
    with pytest.raises(BulkError, match="known here no longer"):
        peer.send(name(2), [b"x"], done=print)
    # And it is a peer again once it is admitted.
    far.admission.allow(near.keys.public)
    again, there = far.expect(near, 1, 64 * MIB)
    near.meet(far)
    sending.result()
    again.result()
    assert there == bytes(64 * MIB)


@pytest.mark.parametrize("form", ["sealed", "curve"])
def test_both_dial(sides, tmp_path, form):
    near, far = sides(form), sides(form)
    near.listen(tmp_path)
    far.listen(tmp_path)
    near.meet(far)
    far.meet(near)
    for number in range(20):
        arriving, memory = far.expect(near, number, 100_000)
        near.send(far, number, bytes(100_000)).result()
        arriving.result()
        assert memory == bytes(100_000)


def test_a_stream_that_others_relay_is_sealed_from_end_to_end(sides):
    near, far = sides(), sides()
    for one, other in ((near, far), (far, near)):
        one.admission.allow(other.keys.public)
    (here, left), (right, there) = socket.socketpair(), socket.socketpair()
    seen = bytearray()

    def relay(source, sink):
        while data := source.recv(65536):
            seen.extend(data)
            sink.sendall(data)
        Cutter.shut(sink)

    threads = [threading.Thread(target=relay, args=ends) for ends in ((left, right), (right, left))]
    for thread in threads:
        thread.start()
    data = os.urandom(64) * 10_000
    arriving, memory = far.expect(near, 1, len(data))
    sending = near.send(far, 1, data)
    far.endpoint.accept(there)
    ticket = far.endpoint.ticket(near.keys.public)
    near.endpoint.call(far.keys.public, here, ticket)
    sending.result()
    arriving.result()
    assert memory == data
    near.endpoint.close()
    for thread in threads:
        thread.join()
    assert len(seen) > len(data)
    for secret in (data[:64], ticket.secret, near.keys.public.encode(), name(1)):
        assert secret not in seen
    for end in (left, right):
        end.close()


@pytest.mark.parametrize("form", FORMS)
def test_an_endpoint_that_ends_fails_what_is_in_progress(pair, form):
    near, far = pair(form)
    arriving, _ = far.expect(near, 1, MIB)
    sending = near.send(far, 1, bytes(MIB), ready=10)
    wait(lambda: arriving.upto == 10)
    far.endpoint.close()
    with pytest.raises(BulkError, match="the endpoint was closed"):
        arriving.result(1)
    assert not sending.ended.is_set()
    near.endpoint.close()
    with pytest.raises(BulkError, match="the endpoint was closed"):
        sending.result(1)
    with pytest.raises(LocalTransportError, match="closed"):
        near.endpoint.listen("tcp://127.0.0.1:0")
    with pytest.raises(LocalTransportError, match="closed"):
        near.endpoint.peer(far.keys.public)


def test_a_ticket_that_is_known_no_longer_is_denied_and_replaced(pair):
    near, far = pair()
    wait(lambda: near.peer(far).state is None)
    far.endpoint.ticket(near.keys.public)
    far.peer(near).close()
    wait(lambda: near.peer(far).state is DownReason.DENIED)
    near.meet(far)
    wait(lambda: near.peer(far).state is None)


@pytest.mark.parametrize("form", FORMS)
def test_the_state_is_told(sides, tmp_path, form):
    states: list[DownReason | None] = []
    near, far = sides(form, changed=lambda peer: states.append(peer.state)), sides(form)
    far.listen(tmp_path)
    near.meet(far)
    wait(lambda: states == [None])
    far.endpoint.close()
    wait(lambda: DownReason.UNREACHABLE in states)


def test_memory_that_cannot_be_read_ends_its_transfer_only(pair):
    near, far = pair()
    gone = memoryview(bytearray(MIB))
    arriving, _ = far.expect(near, 1, MIB)
    sending = near.send(far, 1, gone, ready=0)
    near.peer(far)._calls["sending", name(1)].source._parts[0].release()
    near.peer(far).ready(name(1), MIB)
    for outcome in (arriving, sending):
        with pytest.raises(TransferCancelled, match="its memory cannot be read"):
            outcome.result()
    arriving, _ = far.expect(near, 2, 1)
    near.send(far, 2, b"x").result()


@pytest.mark.parametrize("form", FORMS)
def test_a_callback_that_fails_or_closes_the_endpoint_harms_nothing(pair, form):
    near, far = pair(form)
    errors: list[Exception] = []

    def done(_):
        try:
            far.endpoint.close()
        except LocalTransportError as error:
            errors.append(error)
        raise RuntimeError("of a callback")

    far.peer(near).expect(name(1), memoryview(bytearray(5)), done=done)
    near.send(far, 1, b"hello").result()
    arriving, _ = far.expect(near, 2, 5)
    near.send(far, 2, b"hello").result()
    arriving.result()
    assert "cannot close its own" in str(errors)


@pytest.mark.skipif(sys.platform != "linux", reason="needs SO_PEERCRED")
def test_addresses_that_cannot_be(sides, tmp_path):
    side = sides()
    os.chmod(tmp_path, 0o755)
    with pytest.raises(KeyFileError):
        side.endpoint.listen(f"unix://{tmp_path}/bulk")
    os.chmod(tmp_path, 0o700)
    side.endpoint.listen(f"unix://{tmp_path}/bulk")
    with pytest.raises(AddressInUse):
        sides().endpoint.listen(f"unix://{tmp_path}/bulk")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(f"{tmp_path}/stale")
    stale.close()
    assert side.endpoint.listen(f"unix://{tmp_path}/stale") == f"unix://{tmp_path}/stale"
    taken = side.endpoint.listen("tcp://127.0.0.1:0")
    with pytest.raises(AddressInUse, match="choose another"):
        sides().endpoint.listen(taken)
    with pytest.raises(LocalTransportError):
        side.endpoint.listen("tcp://no.such.host.invalid:1")
    with pytest.raises(LocalTransportError, match="not known here"):
        side.endpoint.ticket(KeyPair.generate().public)


# --- peers that do what they may not --------------------------------------------------------------


class Bare:
    """A peer with a ticket, which says what it likes."""

    def __init__(self, far: Side, address: str) -> None:
        self.keys = KeyPair.generate()
        far.admission.allow(self.keys.public)
        ticket = far.endpoint.ticket(self.keys.public)
        self.stream = socket.create_connection(split_address(address), 5)
        caller = Caller(self.keys, far.keys.public, ticket, "sealed", os.urandom(32))
        self.stream.sendall(caller.call(self.read(GREETING)))
        session = caller.finish(self.read(REPLY))
        self.records = SealedRecords(session.send, session.receive)

    def read(self, size):
        got = b""
        while len(got) < size:
            new = self.stream.recv(size - len(got))
            if not new:
                raise EOFError
            got += new
        return got

    def say(self, head, payload=None):
        for part in self.records.frames(head, payload):
            self.stream.sendall(part)

    def hear(self):
        """The next message that is no PING."""
        while True:
            head = self.records.head(self.read(self.records.head_bytes))
            text = memoryview(bytearray(head.length))
            if head.length:
                self.records.payload(head, text, self._into)
            if head.kind is not Kind.PING:
                return head, bytes(text)

    def _into(self, view):
        view[:] = self.read(len(view))

    def is_cut(self):
        try:
            while True:
                self.read(1)
        except (EOFError, ConnectionError):
            return True


@pytest.fixture
def bare(sides, tmp_path):
    far = sides()
    address = far.listen(tmp_path)
    made = []

    def make():
        one = Bare(far, address)
        made.append(one)
        return far, one

    yield make
    for one in made:
        one.stream.close()


def test_garbage_costs_the_connection(bare):
    far, one = bare()
    one.stream.sendall(os.urandom(1000))
    assert one.is_cut()
    wait(lambda: far.endpoint.peer(one.keys.public).state is DownReason.PROTOCOL)


@pytest.mark.parametrize(
    ("heads", "why"),
    [
        ([Head(Kind.CHUNK, name(7), 0, 10, 10)], "a transfer that was not granted"),
        ([Head(Kind.OPEN, name(1), limit=MIB), Head(Kind.OPEN, name(1), limit=MIB)], "twice"),
        ([Head(Kind.OPEN, name(n), limit=1) for n in range(10_000)], "more than 256 transfers"),
    ],
)
def test_a_breach_is_told_and_costs_the_connection(bare, heads, why):
    _, one = bare()
    with pytest.raises((BrokenPipeError, ConnectionResetError, EOFError)):  # noqa: PT012
        for head in heads:
            one.say(head, bytes(head.length) if head.kind is Kind.CHUNK else None)
        head, text = one.hear()
        assert head.kind is Kind.BYE
        assert why in text.decode()
        one.hear()


def test_more_than_its_credit_costs_the_connection(bare):
    far, one = bare()
    outcome = Outcome()
    size = 64 * MIB
    far.endpoint.peer(one.keys.public).expect(
        name(1), memoryview(bytearray(size)), done=outcome.done, progress=outcome.progress
    )
    one.say(Head(Kind.OPEN, name(1), limit=size))
    head, _ = one.hear()
    assert (head.kind, head.offset, head.limit) == (Kind.CREDIT, 0, QUICK.pace.window)
    one.say(Head(Kind.CHUNK, name(1), QUICK.pace.window, size, 10), bytes(10))
    head, text = one.hear()
    assert head.kind is Kind.BYE
    assert b"beyond the limit" in text
    assert one.is_cut()
    assert outcome.upto == 0


def test_oversized_counts_cost_the_connection(bare):
    _, one = bare()
    one.say(Head(Kind.OPEN, name(1), limit=1 << 63))
    head, text = one.hear()
    assert head.kind is Kind.BYE
    assert b"beyond its bounds" in text
    assert one.is_cut()


def test_a_replayed_record_costs_the_connection(bare):
    _, one = bare()
    sealed = one.records.frames(Head(Kind.PING), None)[0]
    one.stream.sendall(bytes(sealed) * 2)
    head, text = one.hear()
    assert head.kind is Kind.BYE
    assert b"not the one that the peer sealed next" in text


def test_who_breaks_the_rules_too_often_is_told_that_this_side_is_busy(bare):
    far, one = bare()
    for _ in range(5):
        far.admission.offended(one.keys.public)
    ticket = far.endpoint.ticket(one.keys.public)
    side = socket.create_connection(one.stream.getpeername(), 5)
    with closing(side):
        caller = Caller(one.keys, far.keys.public, ticket, "sealed", os.urandom(32))
        side.sendall(caller.call(side.recv(GREETING)))
        assert side.recv(REPLY)[:1] == b"\2"


def test_who_never_reads_costs_one_chunk_of_memory_and_is_given_up(bare):
    far, one = bare()
    peer = far.endpoint.peer(one.keys.public)
    wait(lambda: peer.state is None)
    data = bytes(64 * MIB)
    outcome = Outcome()
    for number in range(200):
        peer.send(name(number), [data], done=outcome.done if number == 0 else lambda _: None)
    one.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(200):
        head, _ = one.hear()
        assert head.kind is Kind.OPEN
    for number in range(200):
        one.say(Head(Kind.CREDIT, name(number), 0, 8 * MIB))
    before = memory()
    wait(lambda: peer.state is DownReason.SILENT, 20)
    assert memory() - before < 4 * MIB
    assert not outcome.ended.is_set()


def memory() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_who_says_nothing_is_given_up(bare):
    far, one = bare()
    peer = far.endpoint.peer(one.keys.public)
    wait(lambda: peer.state is None)
    wait(lambda: peer.state is DownReason.SILENT, 5)


# --- strangers ------------------------------------------------------------------------------------


def test_strangers_are_read_as_far_as_a_ticket_goes_and_no_longer_than_they_may(sides, tmp_path):
    far = sides()
    address = split_address(far.listen(tmp_path))
    for call in (b"", os.urandom(CALL - 1), os.urandom(CALL), os.urandom(100_000)):
        with closing(socket.create_connection(address, 5)) as stranger:
            assert len(stranger.recv(GREETING)) == GREETING
            began = time.monotonic()
            try:
                stranger.sendall(call)
                answer = stranger.recv(1000)
                assert answer in (b"", bytes(REPLY))
            except ConnectionError:
                pass
            assert time.monotonic() - began < 4
    wait(lambda: not far.endpoint._arrivals._arriving)


def test_silent_strangers_keep_nobody_out(sides, tmp_path):
    limits = StrangerLimits(arriving=100, arriving_per_source=80)
    near, far = sides(), sides(limits=limits)
    address = far.listen(tmp_path)
    strangers = [socket.create_connection(split_address(address), 5) for _ in range(500)]
    try:
        near.meet(far, address)
        wait(lambda: near.peer(far).state is None, 3)
        assert len(far.endpoint._arrivals._arriving) <= 80
    finally:
        for stranger in strangers:
            stranger.close()


def test_where_descriptors_run_out_connections_are_accepted_later(pair, caplog):
    near, far = pair()
    wait(lambda: near.peer(far).state is None)
    listener = far.endpoint._listeners[0]
    real, refused = listener._listening, list[int]()

    class Full:
        def __getattr__(self, name):
            return getattr(real, name)

        def accept(self):
            if len(refused) < 3:
                refused.append(1)
                raise OSError(errno.EMFILE, "too many open files")
            return real.accept()

    listener._listening = Full()
    near.peer(far)._connection.end(DownReason.LOST)
    wait(lambda: len(refused) == 3 and near.peer(far).state is None)
    assert "no descriptor is left" in caplog.text


def test_every_socket_waits_for_a_bounded_time(pair):
    near, far = pair()
    wait(lambda: near.peer(far).state is None)
    wait(lambda: far.peer(near).state is None)
    for peer in (near.peer(far), far.peer(near)):
        stream = peer._connection._stream
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            seconds, rest = struct.unpack("@ll", stream.getsockopt(socket.SOL_SOCKET, option, 16))
            assert 0 < seconds + rest / 1e6 <= 5
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
