"""Bulk transfers over real sockets: errors, cuts, frozen peers, revocation."""

from __future__ import annotations

import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, wait

import pytest

from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.options import BulkOptions, Verdict
from manta.transports.errors import (
    AddressInUse,
    BlobCorrupt,
    BlobMissing,
    BlobRefused,
    BulkError,
    BulkTimeout,
    LocalTransportError,
)
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from tests.support.children import freeze

MIB = 1 << 20
HERE = "tcp://127.0.0.1:0"
FAST = BulkOptions(repeat_after=1.0)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="memfds are Linux's")


class Side:
    """One process's bulk plane, and its depot."""

    def __init__(self, depot, options=FAST) -> None:
        self.keys = KeyPair.generate()
        self.depot = depot
        self.bulk = CurveBulk(self.keys, depot, options=options)
        self.admission = Admission()
        self.address = ""

    def listen(self, authorize=lambda *_: Verdict.GRANTED, address=HERE):
        self.address = self.bulk.listen(address, self.admission, authorize)
        return self

    def dial(self, other, address=None):
        other.admission.allow(self.keys.public)
        return self.bulk.dial(address or other.address, other.keys.public)

    def holds(self, blob) -> bool:
        try:
            source = self.depot.source(digest_of(blob))
        except BlobMissing:
            return False
        return bytes(source.read(0, source.size)) == blob


@pytest.fixture
def sides(tmp_path):
    made: list[Side] = []

    def make(options=FAST, depot=None):
        side = Side(depot or FileDepot(tmp_path / str(len(made)), sync=False), options)
        made.append(side)
        return side

    yield make
    for side in made:
        side.bulk.close()
        side.bulk.close()
        if isinstance(side.depot, MemoryDepot):
            side.depot.close()


@pytest.mark.parametrize("size", [0, 1, 600_000, 40 * MIB + 1])
def test_push_and_fetch(sides, size):
    far, near = sides().listen(), sides()
    peer = near.dial(far)
    out, back = os.urandom(size), os.urandom(size) + b"!"
    pushed = peer.push(near.depot.put(out), size, timeout=30)
    fetched = peer.fetch(far.depot.put(back), size + 1, timeout=30)
    assert pushed.result(30) is None
    assert fetched.result(30) is None
    assert far.holds(out)
    assert near.holds(back)


@linux_only
def test_between_memory_and_files(sides):
    far = sides().listen()
    near = sides(depot=MemoryDepot(64 * MIB))
    blob = b"0123456789" * 500_000  # compresses
    peer = near.dial(far)
    digest = near.depot.put(blob)
    peer.push(digest, len(blob), timeout=30).result(30)
    near.depot.delete(digest)
    peer.fetch(digest, len(blob), timeout=30).result(30)
    assert far.holds(blob)
    assert near.holds(blob)


def test_a_host_name_is_resolved(sides):
    far, near = sides().listen(), sides()
    peer = near.dial(far, far.address.replace("127.0.0.1", "localhost"))
    peer.push(near.depot.put(b"x"), 1, timeout=10).result(10)
    assert far.holds(b"x")


def test_what_is_missing_is_told_at_once(sides):
    far, near = sides().listen(), sides()
    peer = near.dial(far)
    start = time.monotonic()
    with pytest.raises(BlobMissing, match="aaaaaaaaaaaa is not here"):
        peer.fetch("a" * 64, 10, timeout=60).result(10)
    with pytest.raises(BlobMissing):
        peer.push("a" * 64, 10, timeout=60).result(10)
    assert time.monotonic() - start < 5


def test_a_corrupt_source(sides):
    far, near = sides().listen(), sides()
    blob = os.urandom(3 * MIB)
    digest = far.depot.put(blob)
    with open(far.depot.path(digest), "r+b") as file:
        file.seek(2 * MIB)
        file.write(b"flipped")
    with pytest.raises(BlobCorrupt, match=digest[:12]):
        near.dial(far).fetch(digest, len(blob), timeout=30).result(30)
    assert list(near.depot) == []


def test_who_may_do_what_is_asked(sides):
    near = sides()
    verdicts = {(near.keys.public, "fetch"): Verdict.GRANTED}
    far = sides().listen(lambda key, what, *_: verdicts.get((key, what), Verdict.REFUSED))
    peer = near.dial(far)
    with pytest.raises(BlobRefused, match="may not push"):
        peer.push(near.depot.put(b"a"), 1, timeout=30).result(30)
    peer.fetch(far.depot.put(b"b"), 1, timeout=30).result(30)


def test_an_unknown_key_gets_nothing_and_hears_why(sides):
    far, near = sides().listen(), sides()
    peer = near.bulk.dial(far.address, far.keys.public)
    with pytest.raises(BulkTimeout, match=r"not connected \(denied\)"):
        peer.fetch(far.depot.put(b"x"), 1, timeout=1.0).result(10)
    far.admission.allow(near.keys.public)  # and as soon as it is known, it is served
    peer.fetch(digest_of(b"x"), 1, timeout=10).result(10)


def test_a_guest_is_admitted_but_not_served(sides):
    far, near = sides(), sides()
    far.admission = Admission(guests=True)
    far.listen()
    peer = near.bulk.dial(far.address, far.keys.public)
    with pytest.raises(BulkTimeout):
        peer.fetch(far.depot.put(b"x"), 1, timeout=0.5).result(10)


def test_a_server_with_another_key_is_told_apart(sides):
    far, near = sides().listen(), sides()
    far.admission.allow(near.keys.public)
    peer = near.bulk.dial(far.address, KeyPair.generate().public)
    with pytest.raises(BulkTimeout, match="wrong-key"):
        peer.fetch(far.depot.put(b"x"), 1, timeout=1.0).result(10)


def test_nobody_there(sides):
    near = sides()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    peer = near.bulk.dial(address, KeyPair.generate().public)
    start = time.monotonic()
    with pytest.raises(BulkTimeout, match=r"within \d\.\d s.*unreachable"):
        peer.push(near.depot.put(b"x"), 1, timeout=0.7).result(10)
    assert 0.7 <= time.monotonic() - start < 2


def test_a_server_that_is_away_for_long_is_found(sides, caplog):
    far, near = sides(), sides()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    peer = near.dial(far, address)
    peer._connection._failures = 2000  # as after an hour
    with pytest.raises(BulkTimeout, match="unreachable"):
        peer.push(near.depot.put(b"x"), 1, timeout=0.5).result(10)
    assert not caplog.records
    far.listen(address=address)
    assert peer.push(near.depot.put(b"x"), 1, timeout=20).result(20) is None


def test_a_server_that_comes_late_is_found(sides):
    far, near = sides(), sides()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    future = near.dial(far, address).push(near.depot.put(b"x"), 1, timeout=20)
    time.sleep(0.5)
    far.listen(address=address)
    assert future.result(20) is None


def test_a_taken_port_and_a_bad_address(sides):
    far, near = sides().listen(), sides()
    with pytest.raises(AddressInUse):
        near.bulk.listen(far.address, Admission(), lambda *_: Verdict.GRANTED)
    with pytest.raises(LocalTransportError, match="not an address"):
        near.bulk.dial("nowhere", far.keys.public)
    with pytest.raises(LocalTransportError, match="not a CURVE key"):
        near.bulk.dial(far.address, "short")
    assert near.bulk.listen(HERE, Admission(), lambda *_: Verdict.GRANTED)  # after a failure


def test_a_listener_that_was_inherited(sides):
    far, near = sides(), sides()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        far.address = far.bulk.listen(
            address, far.admission, lambda *_: Verdict.GRANTED, fd=listening.fileno()
        )
        near.dial(far).push(near.depot.put(b"x"), 1, timeout=10).result(10)
    assert far.holds(b"x")


def test_several_peers_push_one_blob_at_once(sides):
    far = sides().listen()
    blob = os.urandom(8 * MIB)
    futures = []
    for _ in range(3):
        near = sides()
        futures.append(near.dial(far).push(near.depot.put(blob), len(blob), timeout=30))
    for future in futures:
        assert future.result(30) is None
    assert far.holds(blob)
    assert list((far.depot.path(digest_of(blob)).parents[1] / "incoming").iterdir()) == []


def test_a_revoked_peer_gets_no_more(sides):
    far, near = sides().listen(), sides()
    blob = os.urandom(64 * MIB)
    future = near.dial(far).fetch(far.depot.put(blob), len(blob), timeout=2.0)
    while not near.bulk.statistics.received:
        time.sleep(0.001)
    far.admission.deny(near.keys.public)
    time.sleep(0.2)
    before = near.bulk.statistics.received
    with pytest.raises(BulkTimeout):
        future.result(10)
    assert near.bulk.statistics.received == before < len(blob)


def test_a_full_disk_here_and_there(sides):
    far, near = sides().listen(), sides()
    peer = near.dial(far)
    out, back = os.urandom(3 * MIB), os.urandom(3 * MIB)
    near.depot.put(out)
    far.depot.put(back)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        for future in (
            peer.push(digest_of(out), len(out), timeout=30),
            peer.fetch(digest_of(back), len(back), timeout=30),
        ):
            with pytest.raises(BlobRefused, match="too large; make room there"):
                future.result(30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    peer.push(digest_of(out), len(out), timeout=30).result(30)
    assert far.holds(out)


def test_cancelled_and_closed(sides):
    far, near = sides().listen(), sides()
    blob = os.urandom(64 * MIB)
    peer = near.dial(far)
    cancelled = peer.fetch(far.depot.put(blob), len(blob), timeout=60)
    assert cancelled.cancel()
    with pytest.raises(CancelledError):
        cancelled.result(1)
    pending = peer.fetch(digest_of(blob), len(blob), timeout=60)
    peer.close()
    peer.close()
    with pytest.raises(BulkError, match="closed"):
        pending.result(10)
    with pytest.raises(BulkError, match="closed"):
        peer.fetch(digest_of(blob), len(blob), timeout=60).result(10)
    other = near.dial(far)
    pending = other.fetch(digest_of(blob), len(blob), timeout=60)
    near.bulk.close()
    with pytest.raises(BulkError, match="closed"):
        pending.result(10)
    with pytest.raises(BulkError, match="closed"):
        other.fetch(digest_of(blob), len(blob), timeout=60).result(10)
    with pytest.raises(BulkError, match="closed"):
        near.bulk.dial(far.address, far.keys.public)


def test_garbage_does_not_stop_the_listener(sides):
    far, near = sides().listen(), sides()
    port = int(far.address.rpartition(":")[2])
    for data in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(5000), b"\xff" + bytes(8) + b"\x7f"):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(data)
    near.dial(far).push(near.depot.put(b"x"), 1, timeout=10).result(10)


class CuttingProxy:
    """Relays TCP, and cuts every connection after each of the given numbers of bytes."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.server.getsockname()[1]}"
        self.port = port
        self.cuts = cuts
        self.moved = 0
        self.stopping = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        self.server.settimeout(0.1)
        while not self.stopping:
            try:
                near, _ = self.server.accept()
            except TimeoutError:
                continue
            with near, socket.create_connection(("127.0.0.1", self.port)) as far:
                self.relay(near, far)

    def relay(self, near, far):
        while not self.stopping:
            for ready in select.select([near, far], [], [], 0.1)[0]:
                data = ready.recv(256 * 1024)
                if not data:
                    return
                (far if ready is near else near).sendall(data)
                self.moved += len(data)
                if self.cuts and self.moved >= self.cuts[0]:
                    self.cuts.pop(0)
                    return

    def close(self):
        self.stopping = True
        self.thread.join()
        self.server.close()


@pytest.mark.parametrize("operation", ["push", "fetch"])
def test_cut_connections_are_resumed(sides, operation):
    """A cut costs no more than the window."""
    far, near = sides().listen(), sides()
    size, cuts = 96 * MIB, [20 * MIB, 45 * MIB, 70 * MIB]
    blob = os.urandom(size)
    proxy = CuttingProxy(int(far.address.rpartition(":")[2]), cuts)
    try:
        peer = near.dial(far, proxy.address)
        if operation == "push":
            peer.push(near.depot.put(blob), size, timeout=50).result(50)
            sender, receiver = near, far
        else:
            peer.fetch(far.depot.put(blob), size, timeout=50).result(50)
            sender, receiver = far, near
    finally:
        proxy.close()
    assert cuts == []
    assert receiver.holds(blob)
    again = sender.bulk.statistics.sent - size
    assert again <= 3 * FAST.window


FROZEN = """
import os, sys, threading
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.blobs.digests import digest_of
from manta.transports.bulk.curve import CurveBulk
from manta.transports.security.keys import KeyPair

keys = KeyPair.from_secret(sys.argv[1])
bulk = CurveBulk(keys, MemoryDepot(1 << 30))
peer = bulk.dial(sys.argv[2], sys.argv[3])
print("fetching", flush=True)
peer.fetch(sys.argv[4], int(sys.argv[5]), timeout=100).result()
"""


def rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@linux_only
def test_a_frozen_receiver_costs_bounded_memory_and_stops_nobody(sides):
    far = sides(depot=MemoryDepot(300 * MIB)).listen()
    near = sides()
    frozen = KeyPair.generate()
    far.admission.allow(frozen.public)
    big, small = os.urandom(200 * MIB), os.urandom(4 * MIB)
    big_digest, small_digest = far.depot.put(big), far.depot.put(small)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            FROZEN,
            frozen.secret,
            far.address,
            far.keys.public,
            big_digest,
            str(len(big)),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"fetching\n"
        while not far.bulk.statistics.sent:
            time.sleep(0.005)
        freeze(process.pid)
        sent, memory = far.bulk.statistics.sent, rss()
        peer = near.dial(far)
        for _ in range(5):
            peer.fetch(small_digest, len(small), timeout=20).result(20)
            near.depot.delete(small_digest)
        assert far.bulk.statistics.sent - sent - 5 * len(small) <= FAST.peer_budget
        assert rss() - memory < 50 * MIB
    finally:
        process.kill()
        process.communicate()


def test_many_at_once(sides):
    far, near = sides().listen(), sides()
    peer = near.dial(far)
    blobs = [os.urandom(200_000) for _ in range(40)]
    futures = [peer.push(near.depot.put(blob), len(blob), timeout=30) for blob in blobs]
    assert not wait(futures, 30).not_done
    assert all(future.result(0) is None for future in futures)
    assert all(far.holds(blob) for blob in blobs)


def test_an_unused_data_plane_starts_nothing():
    threads = threading.active_count()
    bulk = CurveBulk(KeyPair.generate(), FileDepot.__new__(FileDepot))
    assert threading.active_count() == threads
    bulk.close()
