"""Blobs that arrive from several sources, and are served meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from manta.node.blobs.arriving import Arriving
from manta.node.blobs.tiered_depot import TieredDepot
from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.errors import BlobCorrupt, BlobMissing, BlobRefused

BLOB = bytes(range(256)) * 16
DIGEST = digest_of(BLOB)


@pytest.fixture(params=[1 << 20, 100], ids=["in memory", "in a file"])
def values(request, tmp_path: Path):
    depot = TieredDepot(
        MemoryDepot(1 << 20), FileDepot(tmp_path / "values", sync=False), largest=request.param
    )
    yield depot
    depot.close()


def test_a_transfer_goes_on_where_the_last_one_ended_and_what_came_is_read(values) -> None:
    grown: list[str] = []
    arriving = Arriving(values, DIGEST, len(BLOB), grown.append)
    source = arriving.source()
    assert (source.size, source.ready) == (len(BLOB), 0)
    arriving.write(BLOB[:1000])
    arriving.abort()
    assert arriving.written == source.ready == 1000
    assert bytes(source.read(0, 5000)) == BLOB[:1000]
    arriving.write(BLOB[1000:])
    arriving.commit()
    arriving.discard()
    assert grown == [DIGEST] * 2
    assert bytes(source.read(900, 200)) == BLOB[900:1100]
    source.close()
    assert values.size(DIGEST) == len(BLOB)


def test_wrong_bytes_are_never_kept_and_it_begins_anew(values) -> None:
    arriving = Arriving(values, DIGEST, len(BLOB), lambda _: None)
    arriving.write(bytes(len(BLOB)))
    with pytest.raises(BlobCorrupt):
        arriving.commit()
    assert DIGEST not in values
    with pytest.raises(BlobMissing):
        arriving.source()
    arriving.restart()
    assert arriving.written == 0
    arriving.write(BLOB)
    arriving.commit()
    assert DIGEST in values


def test_what_does_not_come_leaves_nothing(values) -> None:
    arriving = Arriving(values, DIGEST, len(BLOB), lambda _: None)
    arriving.write(BLOB[:10])
    arriving.discard()
    arriving.discard()
    assert list(values) == []


def test_a_full_disk_is_this_nodes_own_trouble(values, monkeypatch) -> None:
    arriving = Arriving(values, DIGEST, len(BLOB), lambda _: None)

    def full(_: object) -> None:
        raise BlobRefused("no room")

    monkeypatch.setattr(arriving._writer, "write", full)
    with pytest.raises(BlobRefused):
        arriving.write(BLOB)
    assert isinstance(arriving.trouble, BlobRefused)
    arriving.discard()
