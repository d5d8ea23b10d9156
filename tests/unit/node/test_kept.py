from __future__ import annotations

import os
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
from manta.transports.blobs.sealing import HEAD, Sealer
from manta.transports.codec.stored import Damaged
from tests.support.damage import damaged

SIZES = (0, 10, INLINE_LIMIT, INLINE_LIMIT + 1, 300_000)


@pytest.fixture(params=["plain", "encrypted"])
def sealer(request: pytest.FixtureRequest) -> Sealer | None:
    return Sealer(bytes(32)) if request.param == "encrypted" else None


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


def store(values: TieredDepot, path: Path, data: bytes, sealer: Sealer | None) -> None:
    small = len(data) <= INLINE_LIMIT
    value = Inline(data) if small else BlobRef(values.put(data), len(data))
    kept.store(path, value, values, "session", sealer)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_kept_is_read_again(
    values: TieredDepot, tmp_path: Path, sealer: Sealer | None, size: int
) -> None:
    path = tmp_path / "swarm" / "name"
    assert kept.load(path, "key", values, sealer) is None
    for data in (b"before", Random(size).randbytes(size)):
        store(values, path, data, sealer)
        assert content(values, kept.load(path, "key", values, sealer)) == data
    assert [each.name for each in path.parent.iterdir()] == ["name.kept"]


@pytest.mark.parametrize("size", [10, 90_000])
def test_a_disk_that_is_full_keeps_what_was_kept(
    values: TieredDepot, tmp_path: Path, sealer: Sealer | None, size: int
) -> None:
    path = tmp_path / "name"
    store(values, path, b"before", sealer)
    value = Inline(bytes(size)) if size == 10 else BlobRef(values.put(bytes(size)), size)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            kept.store(path, value, values, "session", sealer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(values, kept.load(path, "key", values, sealer)) == b"before"
    assert [each.name for each in tmp_path.glob("name*")] == ["name.kept"]


@pytest.mark.parametrize("size", SIZES)
def test_what_an_earlier_version_kept(
    values: TieredDepot, tmp_path: Path, sealer: Sealer | None, size: int
) -> None:
    path = tmp_path / "name"
    path.write_bytes(data := Random(size).randbytes(size))
    assert content(values, kept.load(path, "key", values, sealer)) == data
    store(values, path, b"after", sealer)
    assert content(values, kept.load(path, "key", values, sealer)) == b"after"
    assert not path.exists()


@pytest.mark.parametrize("seed", range(25))
def test_damage_is_told_and_costs_that_key_alone(
    values: TieredDepot, tmp_path: Path, sealer: Sealer | None, seed: int
) -> None:
    data = Random(seed).randbytes(SIZES[seed % len(SIZES)])
    for name in ("name", "other"):
        store(values, tmp_path / name, data, sealer)
    before = set(values)
    path = tmp_path / "name.kept"
    path.write_bytes(damaged(path.read_bytes(), Random(seed)))
    with pytest.raises(Damaged, match=r"The state 'key' of this node is damaged .*set_state\)\."):
        kept.load(tmp_path / "name", "key", values, sealer)
    assert set(values) <= before
    assert content(values, kept.load(tmp_path / "other", "key", values, sealer)) == data
    store(values, tmp_path / "name", b"anew", sealer)
    assert content(values, kept.load(tmp_path / "name", "key", values, sealer)) == b"anew"


MARKER = b"the patient's name"


def test_an_encrypted_state_is_in_no_file(
    values: TieredDepot, tmp_path: Path, sealer: Sealer | None
) -> None:
    for data in (MARKER, MARKER * 10_000):
        store(values, tmp_path / "state" / "name", data, sealer)
        kept_as = (tmp_path / "state" / "name.kept").read_bytes()
        assert (MARKER in kept_as) == (sealer is None)


def test_a_state_from_before_is_read_and_the_next_one_is_encrypted(
    values: TieredDepot, tmp_path: Path
) -> None:
    path, sealer = tmp_path / "name", Sealer(bytes(32))
    store(values, path, MARKER, None)
    assert content(values, kept.load(path, "key", values, sealer)) == MARKER
    store(values, path, MARKER, sealer)
    assert MARKER not in path.with_suffix(".kept").read_bytes()
    assert content(values, kept.load(path, "key", values, sealer)) == MARKER


def test_encrypted_states_that_changed_places_are_not_given(
    values: TieredDepot, tmp_path: Path
) -> None:
    sealer = Sealer(bytes(32))
    store(values, tmp_path / "one" / "name", MARKER, sealer)
    for place in (tmp_path / "one" / "other", tmp_path / "two" / "name"):
        place.parent.mkdir(exist_ok=True)
        place.with_suffix(".kept").write_bytes((tmp_path / "one" / "name.kept").read_bytes())
        with pytest.raises(Damaged, match="put in the place of another"):
            kept.load(place, "key", values, sealer)


def test_states_that_are_replaced_or_deleted_cannot_be_read_with_the_key_either(
    values: TieredDepot, tmp_path: Path
) -> None:
    path, sealer = tmp_path / "state" / "name", Sealer(bytes(32))
    store(values, path, MARKER, sealer)
    former = os.open(path.with_suffix(".kept"), os.O_RDONLY)
    store(values, path, b"after", sealer)
    assert os.pread(former, HEAD, 0) == bytes(HEAD)
    latter = os.open(path.with_suffix(".kept"), os.O_RDONLY)
    assert os.pread(latter, HEAD, 0) != bytes(HEAD)
    (path.parent / "plain").write_bytes(b"as it is")
    sealer.erase_all(path.parent)
    assert os.pread(latter, HEAD, 0) == bytes(HEAD)
    assert (path.parent / "plain").read_bytes() == b"as it is"
    os.close(former)
    os.close(latter)
