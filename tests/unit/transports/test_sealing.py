"""Encrypted blobs: what is on the disk, and what becomes of files that were changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.file_depot import SEALED, FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.blobs.sealing import CHUNK, HEAD, TAG, Sealer
from manta.transports.errors import BlobCorrupt, BlobMissing

MARKER = b"the patient's name"
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17]


def value(size: int) -> bytes:
    return (MARKER * (size // len(MARKER) + 1))[:size]


@pytest.fixture
def key() -> bytes:
    return AESGCM.generate_key(256)


@pytest.fixture
def depot(tmp_path: Path, key: bytes) -> FileDepot:
    return FileDepot(tmp_path / "blobs", sync=False, sealer=Sealer(key))


def content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def read(depot: FileDepot, digest: str) -> bytes:
    source = depot.source(digest)
    try:
        return bytes(source.read(0, source.size))
    finally:
        source.close()


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_is_read_and_is_in_no_file(depot: FileDepot, tmp_path: Path, size: int) -> None:
    digest = depot.put(value(size))
    assert read(depot, digest) == value(size)
    assert depot.size(digest) == size
    assert list(depot) == [digest]
    assert depot.is_whole(digest)
    assert MARKER not in content(tmp_path)


def test_each_file_has_a_key_of_its_own(depot: FileDepot, tmp_path: Path) -> None:
    digest = depot.put(value(CHUNK + 1))
    one = depot.path(digest).read_bytes()
    depot.delete(digest)
    assert depot.put(value(CHUNK + 1)) == digest
    other = depot.path(digest).read_bytes()
    assert one[HEAD:] != other[HEAD:]
    assert one[:HEAD] != other[:HEAD]


def test_without_a_key_it_is_in_a_file(tmp_path: Path) -> None:
    FileDepot(tmp_path / "blobs", sync=False).put(value(1000))
    assert MARKER in content(tmp_path)


@pytest.mark.parametrize("piece", [1, 1000, CHUNK - 1, CHUNK + 1, 2 * CHUNK])
def test_pieces_of_any_length_are_written_and_any_part_is_read(
    depot: FileDepot, piece: int
) -> None:
    whole = os.urandom(min(3 * CHUNK + 5, 200 * piece))
    draft = depot.draft(digest_of(whole), len(whole))
    for at in range(0, len(whole), piece):
        draft.write(whole[at : at + piece])
        before = draft.source()
        assert bytes(before.read(0, draft.readable)) == whole[: draft.readable]
        before.close()
    assert draft.readable == len(whole)
    draft.commit()
    source = depot.source(digest_of(whole))
    for offset in (0, 1, CHUNK - 1, CHUNK, len(whole) - 1, len(whole)):
        for length in (0, 1, CHUNK, CHUNK + 2, len(whole)):
            assert bytes(source.read(offset, length)) == whole[offset : offset + length]
    source.close()


def test_sealed_memory_is_encrypted_on_its_way_to_the_disk(
    depot: FileDepot, tmp_path: Path
) -> None:
    memory = MemoryDepot(1 << 20)
    digest = memory.put(value(2 * CHUNK + 1))
    memory.copy_to(depot, digest)
    memory.close()
    assert read(depot, digest) == value(2 * CHUNK + 1)
    assert MARKER not in content(tmp_path)


def test_any_byte_that_is_changed_is_found(depot: FileDepot) -> None:
    digest = depot.put(value(2 * CHUNK + 9))
    path = depot.path(digest)
    whole = path.read_bytes()
    step = len(whole) // 300
    for at in [*range(HEAD), *range(HEAD, len(whole), step), len(whole) - 1]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BlobCorrupt):
            read(depot, digest)
        assert not depot.is_whole(digest)


def test_any_length_that_is_cut_or_added_is_found(depot: FileDepot) -> None:
    digest = depot.put(value(2 * CHUNK + 9))
    path = depot.path(digest)
    whole = path.read_bytes()
    record = CHUNK + TAG
    for length in (0, 1, HEAD - 1, HEAD, HEAD + record, HEAD + 2 * record, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BlobCorrupt):
            depot.source(digest)
    path.write_bytes(whole + b"0")
    with pytest.raises(BlobCorrupt):
        depot.source(digest)


def test_chunks_that_changed_places_are_found(depot: FileDepot) -> None:
    digest = depot.put(os.urandom(2 * CHUNK))
    path = depot.path(digest)
    whole, record = path.read_bytes(), CHUNK + TAG
    path.write_bytes(whole[:HEAD] + whole[HEAD + record :] + whole[HEAD : HEAD + record])
    with pytest.raises(BlobCorrupt, match="was changed"):
        read(depot, digest)


def test_files_that_changed_places_are_found(depot: FileDepot) -> None:
    one, other = depot.put(b"one"), depot.put(b"two")
    held = depot.path(one).read_bytes()
    os.replace(depot.path(other), depot.path(one))
    with pytest.raises(BlobCorrupt, match="put in the place of another"):
        depot.source(one)
    depot.path(other).write_bytes(held)
    assert not depot.is_whole(other)


def test_under_another_key_nothing_is_read(depot: FileDepot, tmp_path: Path) -> None:
    digest = depot.put(b"one")
    other = FileDepot(tmp_path / "blobs", sealer=Sealer(AESGCM.generate_key(256)))
    with pytest.raises(BlobCorrupt):
        other.source(digest)


def test_what_was_there_before_is_read_and_what_comes_is_encrypted(
    tmp_path: Path, key: bytes
) -> None:
    before = FileDepot(tmp_path / "blobs", sync=False).put(b"from before")
    depot = FileDepot(tmp_path / "blobs", sync=False, sealer=Sealer(key))
    after = depot.put(value(100))
    assert sorted(depot) == sorted([before, after])
    assert read(depot, before) == b"from before"
    assert depot.size(before) == len(b"from before")
    assert depot.sink(before, 11) is None
    assert MARKER not in content(tmp_path)
    assert depot.delete(before)
    assert before not in depot


def test_the_same_bytes_that_come_again_take_the_place_of_the_plain_ones(
    tmp_path: Path, key: bytes
) -> None:
    digest = FileDepot(tmp_path / "blobs", sync=False).put(value(100))
    depot = FileDepot(tmp_path / "blobs", sync=False, sealer=Sealer(key))
    draft = depot.draft(digest, 100)
    draft.write(value(100))
    draft.commit()
    assert MARKER not in content(tmp_path)
    assert list(depot) == [digest]
    assert read(depot, digest) == value(100)


class Recovered:
    """A deleted file as it lies on the disk: an open descriptor keeps its blocks."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def opens(self, key: bytes, digest: str) -> bool:
        try:
            Sealer(key).open(os.dup(self.fd), digest).close()
        except BlobCorrupt:
            return False
        return True


def test_what_is_deleted_cannot_be_read_with_the_key_either(depot: FileDepot, key: bytes) -> None:
    digest = depot.put(value(1000))
    recovered = Recovered(depot.path(digest))
    assert recovered.opens(key, digest)
    assert depot.delete(digest)
    assert digest not in depot
    assert os.fstat(recovered.fd).st_nlink == 0
    assert not recovered.opens(key, digest)
    os.close(recovered.fd)


def test_who_reads_a_blob_that_is_deleted_reads_on(depot: FileDepot) -> None:
    digest = depot.put(value(3 * CHUNK))
    source = depot.source(digest)
    depot.delete(digest)
    assert bytes(source.read(0, source.size)) == value(3 * CHUNK)
    source.close()


def test_what_is_replaced_cannot_be_read_with_the_key_either(depot: FileDepot, key: bytes) -> None:
    digest = depot.put(value(1000))
    recovered = Recovered(depot.path(digest))
    draft = depot.draft(digest, 1000)
    draft.write(value(1000))
    draft.commit()
    assert not recovered.opens(key, digest)
    assert read(depot, digest) == value(1000)
    os.close(recovered.fd)


def test_a_shredding_that_was_cut_off_goes_on_at_the_next_opening(
    depot: FileDepot, tmp_path: Path, key: bytes
) -> None:
    digest = depot.put(value(1000))
    recovered = Recovered(depot.path(digest))
    os.rename(depot.path(digest), tmp_path / "blobs" / "incoming" / f"0123{SEALED}")
    FileDepot(tmp_path / "blobs", sealer=Sealer(key))
    assert not recovered.opens(key, digest)
    assert os.fstat(recovered.fd).st_nlink == 0
    os.close(recovered.fd)


def test_a_replacement_that_was_cut_off_leaves_the_blob(
    depot: FileDepot, tmp_path: Path, key: bytes
) -> None:
    digest = depot.put(value(1000))
    os.link(depot.path(digest), tmp_path / "blobs" / "incoming" / f"0123{SEALED}")
    again = FileDepot(tmp_path / "blobs", sealer=Sealer(key))
    assert read(again, digest) == value(1000)
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_depots_with_other_keys_copy_what_others_would_link(
    depot: FileDepot, tmp_path: Path
) -> None:
    passing = FileDepot(tmp_path / "values", sync=False, sealer=Sealer.passing())
    digest = passing.put(value(CHUNK + 1))
    depot.put_link(passing, digest)
    assert read(depot, digest) == value(CHUNK + 1)
    assert os.stat(depot.path(digest)).st_nlink == 1
    passing.delete(digest)
    assert digest not in passing
    with pytest.raises(BlobMissing):
        passing.source(digest)
    assert MARKER not in content(tmp_path)
