"""What the peers of a bulk listener share."""

from __future__ import annotations

import os

from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.options import BulkOptions, Verdict
from manta.transports.bulk.server import BulkServer
from manta.transports.bulk.transfers import Statistics
from manta.transports.bulk.wire import Accept, Chunk, Credit, Done, OpenPush, unpack
from manta.transports.security.admission import Admission


def test_what_all_peers_may_have_on_their_way_is_bounded_and_nobody_waits_for_it():
    """33 nodes that push at the end of a round, four blobs each."""
    options = BulkOptions(chunk=100, window=400, small_window=20, peer_budget=1600, total=8000)
    keys = [f"node {number}" for number in range(33)]
    limits: dict[tuple[str, bytes], int] = {}
    received: dict[tuple[str, bytes], int] = {}
    blob = os.urandom(1000)

    def told(route, frames):
        message = unpack(frames[0])
        if isinstance(message, Accept | Credit):
            limits[(route.decode(), message.id)] = message.limit
        return True

    depot, admission = MemoryDepot(1 << 20), Admission(keys)
    server = BulkServer(
        depot,
        admission,
        lambda *_: Verdict.GRANTED,
        lambda *_: None,
        told,
        options,
        Statistics(),
    )
    transfers = [(key, bytes([n]) * 16) for n in range(4) for key in keys]
    for key, id in transfers:
        digest = digest_of(blob, key.encode(), id)  # of none that it has
        server.received(key.encode(), key, OpenPush(id, digest, 1000), None, 0.0)
        received[key, id] = 0
    while min(received.values()) < 800:
        on_their_way = sum(limits[one] - received[one] for one in transfers)
        assert on_their_way <= options.total // 2 + len(keys) * 4 * options.small_window
        for key, id in transfers:
            offset = received[key, id]
            length = min(100, limits[key, id] - offset, 800 - offset)
            if length:
                chunk = Chunk(id, offset, length, False)
                server.received(key.encode(), key, chunk, bytes(length), 0.0)
                received[key, id] += length
    # What ends makes room for the whole window of those that came later.
    later = transfers[-1]
    assert limits[later] - received[later] == options.small_window
    for key in keys[:31]:
        server.drop(key)
    assert limits[later] - received[later] == 200, "all that is left of it"
    for key in keys:
        server.drop(key)
    assert not server._windows.granted
    assert not server._windows.waiting
    assert depot.used == 0


def test_a_peer_with_many_transfers_has_few_small_windows_and_all_end() -> None:
    """What ends passes its window on, within the peer and to others."""
    options = BulkOptions(
        chunk=100, window=400, small_window=20, peer_budget=100_000, total=1600, max_served=30
    )
    limits: dict[bytes, int] = {}
    done: list[bytes] = []

    def told(route, frames):
        message = unpack(frames[0])
        if isinstance(message, Accept | Credit):
            limits[message.id] = message.limit
        elif isinstance(message, Done):
            done.append(message.id)
        return True

    depot, admission = MemoryDepot(1 << 20), Admission(["node"])
    server = BulkServer(
        depot,
        admission,
        lambda *_: Verdict.GRANTED,
        lambda *_: None,
        told,
        options,
        Statistics(),
    )
    blobs = {bytes([n]) * 16: bytes([n]) * 1000 for n in range(30)}
    received = dict.fromkeys(blobs, 0)
    for id, blob in blobs.items():
        server.received(b"1", "node", OpenPush(id, digest_of(blob), 1000), None, 0.0)
    granted = sorted(limits.values())
    assert granted == [0] * 24 + [20] * 4 + [400] * 2
    while len(done) < 30:
        on_their_way = sum(limits[id] - received[id] for id in blobs if id not in done)
        assert on_their_way <= options.total // 2 + 4 * options.small_window
        moved = False
        for id, blob in blobs.items():
            length = min(100, limits[id] - received[id])
            if id not in done and length:
                chunk = Chunk(id, received[id], length, False)
                received[id] += length
                piece = blob[chunk.offset : chunk.offset + length]
                server.received(b"1", "node", chunk, piece, 0.0)
                moved = True
        assert moved
    assert not server.busy
    assert (server._windows.granted, server._windows.waiting) == (0, False)
    depot.close()
