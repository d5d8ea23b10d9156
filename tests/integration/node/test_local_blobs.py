"""Blobs are passed between nodes of one user on one machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from manta.node.blobs.arriving import Arriving
from manta.node.blobs.held_results import HeldResults
from manta.node.blobs.tiered_depot import TieredDepot
from manta.node.link import local_blobs
from manta.node.link.local_blobs import LocalBlobs, LocalFetches
from manta.node.link.node_depot import NodeDepot
from manta.protocol.values import BlobRef
from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.errors import BlobCorrupt, BlobMissing, BlobRefused, LocalTransportError
from manta.transports.security.keys import KeyPair

LARGEST = 100_000
BLOB = os.urandom(50_000)
LARGE = os.urandom(200_000)


class Side:
    def __init__(self, folder: Path, undo: ExitStack) -> None:
        folder.mkdir()
        (folder / "results").mkdir()
        self.key = KeyPair.generate().public
        files = FileDepot(folder / "values", sync=False)
        self.values = TieredDepot(MemoryDepot(1 << 20), files, largest=LARGEST)
        undo.callback(self.values.close)
        held = HeldResults(folder / "results", 1 << 20)
        self.depot = NodeDepot(self.values, FileDepot(folder / "spool", sync=False), held)
        self.knows: set[str] = set()
        self.comes: Arriving | None = None
        self.blobs = LocalBlobs(self.key, self.depot, self.given)
        undo.callback(self.blobs.close)
        self.fetches = LocalFetches(self.key, self.values)
        undo.callback(self.fetches.close)

    def given(self, key: str, _: str) -> Arriving | None:
        if key not in self.knows:
            raise BlobMissing("it is not for who asks")
        return self.comes

    def arrives(self, blob: bytes) -> Arriving:
        self.comes = Arriving(self.values, digest_of(blob), len(blob), lambda _: None)
        return self.comes

    def fetch(self, other: Side, blob: bytes) -> None:
        ref = BlobRef(digest_of(blob), len(blob))
        self.fetches.fetch(other.key, ref).result(60)


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side]]:
    with ExitStack() as undo:
        one, two = Side(tmp_path / "one", undo), Side(tmp_path / "two", undo)
        one.knows.add(two.key)
        yield one, two


@pytest.mark.parametrize("blob", [BLOB, LARGE], ids=["shared", "copied"])
def test_a_value_is_passed(sides, blob: bytes) -> None:
    one, two = sides
    digest = one.values.put(blob)
    two.fetch(one, blob)
    source = two.values.source(digest)
    assert bytes(source.read(0, len(blob))) == blob
    source.close()


def test_a_memfd_is_one_and_the_same(sides) -> None:
    one, two = sides
    digest = one.values.put(BLOB)
    two.fetch(one, BLOB)
    stats = []
    for side in sides:
        fd = side.values.open(digest)
        stats.append(os.fstat(fd).st_ino)
        os.close(fd)
    assert stats[0] == stats[1]


def test_what_arrives_is_waited_for(sides) -> None:
    one, two = sides
    digest = digest_of(BLOB)
    arriving = one.arrives(BLOB)
    fetched = two.fetches.fetch(one.key, BlobRef(digest, len(BLOB)))
    arriving.write(BLOB)
    assert not fetched.done()
    arriving.commit()
    arriving.discard()
    fetched.result(60)
    assert not two.values.let_go(digest)  # nobody takes its place before it is read
    two.values.unpin(digest)
    assert two.values.let_go(digest)


def test_what_does_not_arrive_is_not_waited_for(sides) -> None:
    one, two = sides
    arriving = one.arrives(BLOB)
    fetched = two.fetches.fetch(one.key, BlobRef(digest_of(BLOB), len(BLOB)))
    one.values.put(BLOB)  # by another swarm: it is not what comes for this one
    arriving.discard()
    with pytest.raises(BlobMissing):
        fetched.result(20)


def test_who_may_not_have_it_or_asks_a_node_elsewhere_gets_nothing(sides) -> None:
    one, two = sides
    two.values.put(BLOB)
    with pytest.raises(BlobMissing, match="does not have it"):
        one.fetch(two, BLOB)
    two.key = KeyPair.generate().public
    with pytest.raises(BlobMissing, match="not on this machine"):
        one.fetch(two, BLOB)


@pytest.mark.parametrize("blob", [BLOB, LARGE], ids=["memfd", "file"])
def test_wrong_bytes_are_not_kept(sides, monkeypatch, blob: bytes) -> None:
    one, two = sides
    other = one.values.put(bytes(len(blob)))
    monkeypatch.setattr(one.depot, "open", lambda *_: one.values.open(other))
    with pytest.raises(BlobCorrupt):
        two.fetch(one, blob)
    assert list(two.values) == []


def test_another_size_is_refused(sides, monkeypatch) -> None:
    one, two = sides
    other = one.values.put(b"short")
    monkeypatch.setattr(one.depot, "open", lambda *_: one.values.open(other))
    with pytest.raises(BlobCorrupt, match="another size"):
        two.fetch(one, BLOB)


def test_no_room_is_the_receivers_own_trouble(sides, monkeypatch) -> None:
    one, two = sides
    one.values.put(BLOB)

    def full(fd: int, size: int) -> str:
        os.close(fd)
        raise BlobRefused("no room")

    monkeypatch.setattr(two.values, "adopt", full)
    with pytest.raises(BlobRefused):
        two.fetch(one, BLOB)


@pytest.mark.parametrize("said", [b"", b"x", b"\xff" * 104, b"0" * 104, b"0" * 5000])
def test_garbage_costs_its_connection(sides, said: bytes) -> None:
    one, two = sides
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(20)
        stream.connect(local_blobs._name(one.key))
        stream.sendall(said)
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(10) in (b"", b"0")
    one.values.put(BLOB)
    two.fetch(one, BLOB)


def test_a_key_has_one_socket(sides) -> None:
    one, _ = sides
    with pytest.raises(LocalTransportError):
        LocalBlobs(one.key, one.depot, lambda *_: None)


def test_an_end_waits_for_nobody(tmp_path: Path) -> None:
    with ExitStack() as undo:
        one, two = Side(tmp_path / "one", undo), Side(tmp_path / "two", undo)
        one.knows.add(two.key)
        undo.callback(one.arrives(BLOB).discard)
        undo.callback(one.blobs.close)
        fetched = two.fetches.fetch(one.key, BlobRef(digest_of(BLOB), len(BLOB)))
    with pytest.raises(BlobMissing):
        fetched.result(20)


def test_who_ends_does_not_wait_for_what_it_fetches(sides) -> None:
    one, two = sides
    arriving = one.arrives(BLOB)
    fetched = two.fetches.fetch(one.key, BlobRef(digest_of(BLOB), len(BLOB)))
    two.fetches.close()
    with pytest.raises(BlobMissing):
        fetched.result(0)
    arriving.discard()
    with pytest.raises(BlobMissing, match="this node ends"):
        two.fetch(one, BLOB)
