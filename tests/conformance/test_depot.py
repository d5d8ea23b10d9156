"""One suite over all depots; below it, what is particular to each."""

from __future__ import annotations

import errno
import fcntl
import gc
import io
import mmap
import os
import resource
import subprocess
import sys
import threading

import pytest

from manta.node.blobs.tiered_depot import TieredDepot
from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.blobs.sealing import Sealer
from manta.transports.errors import BlobCorrupt, BlobMissing, BlobRefused, DepotFull

BLOB = bytes(range(256)) * 5000
DIGEST = digest_of(BLOB)
OTHER = digest_of(b"other")

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="memfds are Linux's")


@pytest.fixture(
    params=[
        "file",
        "encrypted file",
        pytest.param("memory", marks=linux_only),
        pytest.param("memory of two", marks=linux_only),
        pytest.param("file of two", marks=linux_only),
        pytest.param("encrypted file of two", marks=linux_only),
    ]
)
def depot(request, tmp_path):
    sealer = Sealer.passing() if request.param.startswith("encrypted") else None
    if request.param in ("file", "encrypted file"):
        yield FileDepot(tmp_path / "blobs", sealer=sealer)
        return
    memory = MemoryDepot(4 << 20)
    if request.param == "memory":
        yield memory
    else:
        largest = 4 << 20 if request.param == "memory of two" else 1000
        yield TieredDepot(memory, FileDepot(tmp_path / "values", sealer=sealer), largest)
    memory.close()


def content(depot, digest):
    source = depot.source(digest)
    try:
        return bytes(source.read(0, source.size))
    finally:
        source.close()


def write(depot, blob, digest=None, size=None):
    sink = depot.sink(digest or digest_of(blob), len(blob) if size is None else size)
    for start in range(0, len(blob), 300_000):
        sink.write(memoryview(blob)[start : start + 300_000])
    return sink


def test_the_digest_is_blake3_of_the_bytes():
    # From the test vectors of the BLAKE3 specification: the empty input.
    assert digest_of() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest_of(b"ab", bytearray(b"c")) == digest_of(memoryview(b"abc"))


def test_what_was_put_is_there(depot):
    assert depot.put(BLOB[:1000], bytearray(BLOB[1000:])) == DIGEST
    assert depot.put(BLOB) == DIGEST
    assert DIGEST in depot
    assert list(depot) == [DIGEST]
    assert depot.size(DIGEST) == len(BLOB)
    assert content(depot, DIGEST) == BLOB


@pytest.mark.parametrize("blob", [b"", b"x", BLOB])
def test_a_blob_written_in_pieces_is_published_at_the_end(depot, blob):
    digest = digest_of(blob)
    sink = write(depot, blob)
    assert digest not in depot
    sink.commit()
    assert digest in depot
    assert content(depot, digest) == blob
    assert depot.sink(digest, len(blob)) is None


def test_a_source_reads_anywhere_and_outlives_the_blob(depot):
    depot.put(BLOB)
    source = depot.source(DIGEST)
    piece = source.read(1000, 500)
    assert bytes(source.read(len(BLOB) - 3, 10)) == BLOB[-3:]
    assert depot.delete(DIGEST)
    assert not depot.delete(DIGEST)
    source.close()
    assert bytes(piece) == BLOB[1000:1500]
    with pytest.raises(BlobMissing, match=DIGEST[:12]):
        depot.source(DIGEST)
    with pytest.raises(BlobMissing):
        depot.size(DIGEST)


@pytest.mark.parametrize(
    ("blob", "digest", "size"), [(BLOB, OTHER, len(BLOB)), (BLOB[:-1], DIGEST, len(BLOB))]
)
def test_wrong_bytes_are_not_published(depot, blob, digest, size):
    sink = write(depot, blob, digest, size)
    with pytest.raises(BlobCorrupt, match=digest[:12]):
        sink.commit()
    assert list(depot) == []


def test_too_many_bytes_are_refused_at_once(depot):
    sink = depot.sink(DIGEST, 10)
    with pytest.raises(BlobCorrupt, match="more than"):
        sink.write(b"x" * 11)
    sink.abort()
    sink.abort()
    assert list(depot) == []


def test_two_writers_of_one_blob_are_fine(depot):
    first, second = write(depot, BLOB), write(depot, BLOB)
    first.commit()
    second.commit()
    assert content(depot, DIGEST) == BLOB


def test_many_threads(depot):
    blobs = [bytes([number]) * 50_000 for number in range(8)]
    failures = []

    def work():
        try:
            for blob in blobs:
                assert content(depot, depot.put(blob)) == blob
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert sorted(depot) == sorted(map(digest_of, blobs))


def test_names_that_are_no_digests_reach_no_file(depot):
    for name in ("", "../../etc/passwd", DIGEST.upper(), DIGEST + "0"):
        with pytest.raises((BlobRefused, BlobMissing)):
            depot.source(name)
        with pytest.raises(BlobRefused):
            depot.sink(name, 1)


# Files


def test_drafts_of_a_crashed_process_are_deleted_and_live_ones_kept(tmp_path):
    depot = FileDepot(tmp_path)
    live = write(depot, BLOB)
    (tmp_path / "incoming" / "left-behind").write_bytes(b"half")
    FileDepot(tmp_path)
    assert len(list((tmp_path / "incoming").iterdir())) == 1
    live.commit()
    assert content(depot, DIGEST) == BLOB
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_killed_writer_leaves_no_half_blob(tmp_path):
    code = f"""
import os, signal
from manta.transports.blobs.file_depot import FileDepot
sink = FileDepot({str(tmp_path)!r}).sink({DIGEST!r}, {len(BLOB)})
sink.write(bytes(100_000))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], timeout=60)
    assert list(FileDepot(tmp_path)) == []
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_put_file(tmp_path):
    depot = FileDepot(tmp_path / "blobs", sync=False)
    (tmp_path / "model").write_bytes(BLOB)
    assert depot.put_file(tmp_path / "model") == DIGEST
    assert depot.put_file(tmp_path / "model") == DIGEST
    assert content(depot, DIGEST) == BLOB
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_a_full_disk_refuses_and_leaves_nothing(tmp_path):
    depot = FileDepot(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = depot.sink(DIGEST, len(BLOB))
    assert sink is not None
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(BlobRefused, match=r"could not keep the blob .* too large"):
            sink.write(BLOB)
        with pytest.raises(BlobRefused, match="could not keep"):
            depot.put(BLOB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.abort()
    assert list((tmp_path / "incoming").iterdir()) == []
    assert depot.put(BLOB) == DIGEST


def test_a_blob_beyond_the_free_space_is_refused_before_it_is_sent(tmp_path):
    with pytest.raises(BlobRefused, match="no room for a blob"):
        FileDepot(tmp_path).sink(DIGEST, 1 << 60)


def test_names_of_blobs_are_not_interned(tmp_path, monkeypatch):
    """As the parts of a Path are: the table of interned strings would be made anew by ever new
    names, in the heap of whichever thread is at it."""
    depot, seen, real = FileDepot(tmp_path), [], sys.intern

    def intern(text):
        seen.append(text)
        return real(text)

    monkeypatch.setattr(sys, "intern", intern)
    digest = depot.put(BLOB)
    assert digest in depot
    assert list(depot) == [digest]
    assert depot.size(digest) == len(BLOB)
    assert content(depot, digest) == BLOB
    assert depot.is_whole(digest)
    assert depot.delete(digest)
    assert not depot.delete(digest)
    assert not {digest, digest[:2]} & {*seen}


@pytest.mark.parametrize("damage", ["flipped", "cut", "whole"])
def test_damage_of_a_file_is_seen(tmp_path, damage):
    depot = TieredDepot(MemoryDepot(4 << 20), FileDepot(tmp_path), largest=1000)
    depot.put(BLOB)
    assert not depot.drop_damaged(DIGEST)
    path = FileDepot(tmp_path).path(DIGEST)
    data = bytearray(BLOB)
    if damage == "flipped":
        data[len(data) // 2] ^= 4
    path.write_bytes(data[:-1] if damage == "cut" else data)
    os.utime(path, ns=(1, 1))
    assert FileDepot(tmp_path).is_whole(DIGEST) == (damage == "whole")
    assert depot.drop_damaged(DIGEST) == (damage != "whole")
    assert (DIGEST in depot) == (damage == "whole")
    assert not depot.drop_damaged(DIGEST)
    depot.close()


# Memory


@pytest.fixture
def memory():
    depot = MemoryDepot(3_000_000)
    yield depot
    depot.close()


@linux_only
def test_where_the_machine_gives_no_memory_blobs_are_files(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", refused)
    with pytest.raises(DepotFull, match="Operation not permitted"):
        MemoryDepot(3_000_000).put(BLOB)
    files = FileDepot(tmp_path)
    tiers = TieredDepot(MemoryDepot(3_000_000), files, largest=3_000_000)
    assert tiers.put(BLOB) == DIGEST
    write(tiers, b"y" * 1000).commit()
    assert len(list(files)) == 2
    assert content(tiers, DIGEST) == BLOB
    tiers.close()


def filled_memfd(data):
    fd = os.memfd_create("task", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    return fd


@linux_only
def test_memory_is_bounded_in_number_and_lets_go_of_descriptors():
    depot = MemoryDepot(3_000_000, most=4)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        assert content(depot, depot.put(bytes([number]) * 1000)) == bytes([number]) * 1000
    assert list(depot) == [digest_of(bytes([number]) * 1000) for number in range(46, 50)]
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 4
    for digest in depot:
        depot.pin(digest)
    with pytest.raises(DepotFull, match="4 of 4 places"):
        depot.put(b"more")
    depot.unpin(digest_of(bytes([48]) * 1000))
    draft = depot.sink(DIGEST, len(BLOB))
    with pytest.raises(DepotFull, match="4 of 4 places"):  # a draft counts, too
        depot.put(b"more")
    assert draft is not None
    draft.abort()
    depot.put(b"more")
    depot.close()
    assert len(os.listdir("/proc/self/fd")) == before


@linux_only
@pytest.mark.parametrize("depot", ["memory", "memory of two", "file of two"], indirect=True)
def test_what_is_let_go_is_not_pinned(depot):
    depot.put(BLOB)
    depot.pin(DIGEST)
    assert not depot.let_go(DIGEST)
    assert content(depot, DIGEST) == BLOB
    depot.unpin(DIGEST)
    assert depot.let_go(DIGEST)
    assert DIGEST not in depot
    assert not depot.let_go(DIGEST)


@linux_only
def test_published_memory_is_sealed(memory):
    memory.put(BLOB)
    fd = memory.open(DIGEST)
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        assert seals & (fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        private = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        private[0] = 77
        private.close()
    finally:
        os.close(fd)
    assert content(memory, DIGEST) == BLOB


@linux_only
def test_adopting_what_a_task_filled(memory, tmp_path):
    assert memory.adopt(filled_memfd(BLOB), len(BLOB)) == DIGEST
    assert memory.adopt(filled_memfd(BLOB), len(BLOB)) == DIGEST
    assert memory.used == len(BLOB)
    assert content(memory, DIGEST) == BLOB
    files = FileDepot(tmp_path)
    memory.copy_to(files, DIGEST)
    memory.copy_to(files, DIGEST)
    assert content(files, DIGEST) == BLOB
    with pytest.raises(BlobMissing):
        memory.copy_to(files, OTHER)


@linux_only
def test_what_is_not_adopted_is_closed_and_told(memory, tmp_path):
    with pytest.raises(BlobRefused, match="bytes, and 9 were announced"):
        memory.adopt(filled_memfd(b"x"), 9)
    with pytest.raises(BlobRefused, match="not of a memfd"):
        memory.adopt(os.open(tmp_path, os.O_RDONLY), 1)
    with pytest.raises(BlobRefused, match="must allow sealing"):
        memory.adopt(os.memfd_create("no-sealing"), 0)
    fd = filled_memfd(b"x" * 100)
    mapped = mmap.mmap(fd, 100)
    with pytest.raises(BlobRefused, match="unmap it first"):
        memory.adopt(os.dup(fd), 100)
    mapped.close()
    os.close(fd)
    with pytest.raises(BlobRefused, match="no room"):
        memory.adopt(filled_memfd(bytes(3_000_001)), 3_000_001)
    assert memory.used == 0


@linux_only
def test_the_longest_unused_makes_room_unless_pinned(memory):
    first, second, third = (memory.put(bytes([n]) * 1_000_000) for n in range(3))
    memory.pin(second)
    memory.source(first).close()
    fourth = memory.put(b"4" * 1_000_000)  # evicts the third
    assert sorted(memory) == sorted([first, second, fourth])
    assert third not in memory
    memory.put(b"5" * 2_000_000)
    assert second in memory
    assert memory.used == 3_000_000
    with pytest.raises(BlobRefused, match="no room for a blob of 2500000 bytes in memory"):
        memory.sink(OTHER, 2_500_000)
    memory.unpin(second)
    sink = memory.sink(OTHER, 2_500_000)
    assert list(memory) == []
    assert memory.used == 2_500_000
    sink.abort()
    assert memory.used == 0


@linux_only
def test_trimmed_to_what_was_used_last_and_what_is_pinned(memory):
    first, second, third = (memory.put(bytes([n]) * 1000) for n in range(3))
    memory.pin(first)
    memory.trim(3000)
    assert len(list(memory)) == 3
    memory.trim(2000)
    assert set(memory) == {first, third}
    memory.trim(0)
    assert list(memory) == [first]
    assert second not in memory
    assert memory.used == 1000


@linux_only
class TestTiers:
    """What is large, or finds the memory taken, lies in a file; the rest is as in memory."""

    @pytest.fixture
    def files(self, tmp_path):
        return FileDepot(tmp_path / "values")

    @pytest.fixture
    def tiers(self, files):
        tiers = TieredDepot(MemoryDepot(3_000_000), files, 1_500_000)
        yield tiers
        tiers.close()
        assert not list(files)

    def test_files_are_bounded_in_number(self, tiers, files, monkeypatch):
        monkeypatch.setattr("manta.node.blobs.tiered_depot.MOST_FILES", 3)
        digests = []
        for number in range(6):
            digests.append(tiers.put(bytes([number]) * 1_600_000))
            os.utime(files.path(digests[-1]), (number, number))
        tiers.pin(digests[0])
        tiers.trim(0, 1 << 40)
        assert set(files) == {digests[0], *digests[-2:]}

    def test_what_is_large_lies_in_a_file_and_what_is_small_does_not(self, tiers, files):
        small, large = tiers.put(BLOB), tiers.put(b"x" * 2_000_000)
        assert list(files) == [large]
        assert sorted(tiers) == sorted([small, large])
        for digest, blob in ((small, BLOB), (large, b"x" * 2_000_000)):
            fd = tiers.open(digest)
            with mmap.mmap(fd, len(blob), flags=mmap.MAP_PRIVATE) as view:
                assert view[:] == blob
                view[0] = 0  # a task's own
            os.close(fd)
            assert content(tiers, digest) == blob

    def test_of_an_encrypted_file_memory_is_handed_out_within_its_bounds(self, tmp_path):
        memory = MemoryDepot(2 << 20)
        files = FileDepot(tmp_path / "sealed", sealer=Sealer.passing())
        tiers = TieredDepot(memory, files, 1000)
        digest = tiers.put(BLOB)
        assert digest in files
        assert BLOB[:1000] not in files.path(digest).read_bytes()
        fd = tiers.open(digest)
        try:
            assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
            assert os.pread(fd, len(BLOB), 0) == BLOB
        finally:
            os.close(fd)
        large = tiers.put(bytes(3 << 20))
        with pytest.raises(DepotFull, match="no room for a blob of 3145728 bytes in memory"):
            tiers.open(large)
        path = files.path(digest)
        path.write_bytes(path.read_bytes()[:-1])
        memory.delete(digest)
        with pytest.raises(BlobCorrupt):
            tiers.open(digest)
        tiers.close()

    def test_a_memory_whose_blobs_are_all_in_use_is_not_the_end(self, tiers, files):
        blobs = [bytes([n]) * 1_200_000 for n in range(5)]
        digests = []
        for blob in blobs:
            digests.append(tiers.put(blob))
            tiers.pin(digests[-1])
        fd = os.memfd_create("value", os.MFD_ALLOW_SEALING)
        os.write(fd, BLOB)
        digests.append(tiers.adopt(fd, len(BLOB)))
        sink = write(tiers, b"y" * 1_200_000)
        sink.commit()
        assert len(list(files)) == 5
        for digest, blob in zip(digests, [*blobs, BLOB], strict=True):
            assert content(tiers, digest) == blob

    def test_files_go_when_nobody_reads_them_any_more(self, tiers, files):
        kept, other = tiers.put(b"x" * 2_000_000), tiers.put(b"y" * 2_000_000)
        tiers.pin(kept)
        tiers.pin(kept)
        tiers.trim(0, 4_000_000)
        assert len(list(files)) == 2
        tiers.trim(0, 3_000_000)
        assert list(files) == [kept]
        with pytest.raises(BlobMissing):
            tiers.pin(other)
        tiers.unpin(kept)
        tiers.trim(0, 0)
        assert list(files) == [kept]
        tiers.unpin(kept)
        with pytest.raises(BlobMissing):
            tiers.unpin(kept)
        tiers.trim(0, 0)
        assert not list(files)

    def test_a_full_disk_takes_first_what_nobody_reads(self, tiers, files, monkeypatch):
        read, idle = tiers.put(b"x" * 2_000_000), tiers.put(b"y" * 2_000_000)
        tiers.pin(read)
        monkeypatch.setattr(
            FileDepot, "free", property(lambda d: 1_000_000 if idle in d else 3_000_000)
        )
        third = tiers.put(b"z" * 2_000_000)
        assert sorted(files) == sorted([read, third])
        with pytest.raises(BlobRefused, match="no room"):
            tiers.put(b"w" * 3_500_000)

    def test_a_copy_in_the_journals_folder_outlives_the_value(self, tiers, files, tmp_path):
        spool = FileDepot(tmp_path / "spool", sync=False)
        for blob in (BLOB, b"x" * 2_000_000):
            digest = tiers.put(blob)
            tiers.copy_to(spool, digest)
            tiers.copy_to(spool, digest)
            tiers.delete(digest)
            assert digest not in tiers
            assert content(spool, digest) == blob
        with pytest.raises(BlobMissing):
            tiers.copy_to(spool, OTHER)

    def test_what_a_stream_brings(self, tiers, tmp_path):
        blob = b"x" * 2_000_000
        (tmp_path / "value").write_bytes(blob)
        with open(tmp_path / "value", "rb") as file:
            digest = tiers.put_stream(file.read, len(blob))
        assert (digest, content(tiers, digest)) == (digest_of(blob), blob)
        with open(tmp_path / "value", "rb") as file, pytest.raises(BlobCorrupt, match="too soon"):
            tiers.put_stream(file.read, len(blob) + 1)
        assert list(tiers) == [digest]

    def test_values_are_kept_as_files(self, tiers, tmp_path):
        for blob in (b"", BLOB, b"x" * 2_500_000):
            with (tmp_path / "kept").open("wb") as file:
                tiers.save(tiers.put(blob), file.write)
            assert (tmp_path / "kept").read_bytes() == blob

    def test_nothing_is_remembered_of_a_file_that_is_gone(self, tiers):
        for number in range(4):
            digest = tiers.put(bytes([number]) * 2_000_000)
            assert not tiers.drop_damaged(digest)
            if number == 0:
                assert tiers.let_go(digest)
            elif number == 1:
                assert tiers.delete(digest)
        assert len(tiers._whole) == 2
        tiers.trim(0, 0)
        assert tiers._whole == {}

    def test_a_file_that_is_cut_short_is_an_error_and_not_the_end(self, tiers, files):
        digest = tiers.put(b"x" * 2_000_000)
        source = tiers.source(digest)
        os.truncate(files.path(digest), 1000)
        with pytest.raises(BlobCorrupt, match="cut short"):
            source.read(0, 2_000_000)
        source.close()

    def test_what_a_killed_node_left_is_deleted(self, tiers, files):
        tiers.put(b"x" * 2_000_000)
        TieredDepot(MemoryDepot(1000), files, 100)
        assert not list(files)

    def test_threads_that_put_pin_and_trim_at_once(self, tiers, files):
        failed = []

        def work(number):
            try:
                for turn in range(15):
                    blob = bytes([number, turn]) * 800_000
                    digest = tiers.put_stream(io.BytesIO(blob).read, len(blob))
                    try:
                        tiers.pin(digest)
                    except BlobMissing:  # trimmed by another in between
                        continue
                    assert content(tiers, digest) == blob
                    tiers.unpin(digest)
                    tiers.trim(0, 0)
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        tiers.trim(0, 0)
        assert not list(files)
