from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from manta.node.blobs.tiered_depot import TieredDepot
from manta.node.tasks import kept
from manta.protocol.values import INLINE_LIMIT, BlobRef, Inline, Payload
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.codec.stored import Damaged
from tests.support.damage import damaged

SIZES = (0, 10, INLINE_LIMIT, INLINE_LIMIT + 1, 300_000)


@pytest.fixture
def values(tmp_path: Path) -> Iterator[TieredDepot]:
    depot = TieredDepot(MemoryDepot(1 << 20), FileDepot(tmp_path / "values"), largest=100_000)
    yield depot
    depot.close()


def content(values: TieredDepot, payload: Payload | None) -> bytes:
    if isinstance(payload, Inline):
        return payload.data
    assert isinstance(payload, BlobRef)
    source = values.source(payload.digest)
    assert source.size == payload.size
    return bytes(source.read(0, source.size))


def store(values: TieredDepot, path: Path, data: bytes) -> None:
    small = len(data) <= INLINE_LIMIT
    value = Inline(data) if small else BlobRef(values.put(data), len(data))
    kept.store(path, value, values, "session")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_kept_is_read_again(values: TieredDepot, tmp_path: Path, size: int) -> None:
    path = tmp_path / "swarm" / "name"
    assert kept.load(path, "key", values) is None
    for data in (b"before", Random(size).randbytes(size)):
        store(values, path, data)
        assert content(values, kept.load(path, "key", values)) == data
    assert [each.name for each in path.parent.iterdir()] == ["name.kept"]


@pytest.mark.parametrize("size", [10, 90_000])
def test_a_disk_that_is_full_keeps_what_was_kept(
    values: TieredDepot, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "name"
    store(values, path, b"before")
    value = Inline(bytes(size)) if size == 10 else BlobRef(values.put(bytes(size)), size)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            kept.store(path, value, values, "session")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(values, kept.load(path, "key", values)) == b"before"
    assert [each.name for each in tmp_path.glob("name*")] == ["name.kept"]


@pytest.mark.parametrize("size", SIZES)
def test_what_an_earlier_version_kept(values: TieredDepot, tmp_path: Path, size: int) -> None:
    path = tmp_path / "name"
    path.write_bytes(data := Random(size).randbytes(size))
    assert content(values, kept.load(path, "key", values)) == data
    store(values, path, b"after")
    assert content(values, kept.load(path, "key", values)) == b"after"
    assert not path.exists()


@pytest.mark.parametrize("seed", range(25))
def test_damage_is_told_and_costs_that_key_alone(
    values: TieredDepot, tmp_path: Path, seed: int
) -> None:
    data = Random(seed).randbytes(SIZES[seed % len(SIZES)])
    for name in ("name", "other"):
        store(values, tmp_path / name, data)
    before = set(values)
    path = tmp_path / "name.kept"
    path.write_bytes(damaged(path.read_bytes(), Random(seed)))
    with pytest.raises(Damaged, match=r"The state 'key' of this node is damaged .*set_state\)\."):
        kept.load(tmp_path / "name", "key", values)
    assert set(values) <= before
    assert content(values, kept.load(tmp_path / "other", "key", values)) == data
    store(values, tmp_path / "name", b"anew")
    assert content(values, kept.load(tmp_path / "name", "key", values)) == b"anew"
