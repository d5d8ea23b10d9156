"""Results that stay on the disk of the node that made them."""

from __future__ import annotations

from pathlib import Path

import pytest

from manta.node.blobs.held_results import HeldResults
from manta.node.blobs.tiered_depot import TieredDepot
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.errors import BlobMissing, BlobRefused


@pytest.fixture
def values(tmp_path: Path):
    depot = TieredDepot(
        MemoryDepot(1 << 20), FileDepot(tmp_path / "values", sync=False), largest=1000
    )
    yield depot
    depot.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    path.mkdir()
    return path


@pytest.mark.parametrize("size", [500, 5000])
def test_they_outlive_the_value_and_the_daemon(values, folder, size: int) -> None:
    held = HeldResults(folder, 1 << 20)
    digest = values.put(bytes(size))
    held.keep("swarm", digest, values)
    values.delete(digest)
    held = HeldResults(folder, 1 << 20)
    assert held.swarms == ["swarm"]
    assert held.named() == [("swarm", digest)]
    assert held.has("swarm", digest)
    assert not held.has("other", digest)
    values.take_from(held.depot_of(digest), digest)
    assert values.size(digest) == size


def test_they_are_freed_with_their_swarm(values, folder) -> None:
    held = HeldResults(folder, 10_000)
    digest = values.put(bytes(8000))
    held.keep("one", digest, values)
    with pytest.raises(BlobRefused, match="8000 of the 10000 bytes are used"):
        held.keep("two", digest, values)
    held.free("one")
    held.free("never there")
    assert digest not in held
    with pytest.raises(BlobMissing):
        held.depot_of(digest)
    assert list(folder.iterdir()) == []
    held.keep("two", digest, values)
    assert digest in held


def test_the_bound_counts_what_is_there_at_the_start(values, folder) -> None:
    HeldResults(folder, 10_000).keep("swarm", values.put(bytes(8000)), values)
    with pytest.raises(BlobRefused, match="result_disk_mb"):
        HeldResults(folder, 10_000).keep("swarm", values.put(bytes(3000)), values)


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 300])
def test_no_name_leads_out_of_the_folder(values, folder, name: str) -> None:
    with pytest.raises(BlobRefused, match="no swarm's id"):
        HeldResults(folder, 10_000).keep(name, values.put(b"x"), values)
