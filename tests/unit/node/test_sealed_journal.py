"""Encrypted journals: what is on the disk, and what becomes of files that were changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manta.node.journal.files import Journals
from manta.node.journal.record_file import RecordFile
from manta.node.journal.records import decode
from manta.node.journal.sealed_records import SealedRecords
from manta.protocol.node import (
    GlobalWritten,
    Instance,
    JournalAck,
    JournalBatch,
    LogBatch,
    LogLine,
    ResultWritten,
    TaskStarted,
)
from manta.protocol.values import Inline
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.sealing import HEAD, Sealer
from manta.transports.errors import BlobCorrupt

I0 = Instance("s", "worker", 0, 0)
MARKER = b"the patient's name"
KEY = bytes(range(32))


def written(number: int, data: bytes = MARKER) -> GlobalWritten:
    return GlobalWritten(I0, f"tag {number}", Inline(data))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[bytes | None], Journals]]:
    """Opens the folder anew, as a restarted daemon does, with a key or without."""
    made: list[Journals] = []

    def open_(key: bytes | None = KEY) -> Journals:
        for journals in made:
            journals.close()
        sealer = None if key is None else Sealer(key)
        spool = FileDepot(tmp_path / "spool", sealer=sealer)
        made.append(Journals(tmp_path / "journal", spool, lambda: 100.0))
        return made[-1]

    yield open_
    for journals in made:
        journals.close()


def entries(journals: Journals) -> list[object]:
    journals.sync()
    batches = [batch for batch in journals.due() if isinstance(batch, JournalBatch)]
    return [entry for batch in batches for entry in batch.entries]


def content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def fill(journals: Journals) -> list[object]:
    appended: list[object] = [TaskStarted(I0, 1.0), *(written(number) for number in range(5))]
    for entry in appended:
        journals.append(entry)  # type: ignore[arg-type]
    journals.append_lines("s", [LogLine(I0, 1.0, "stdout", MARKER.decode())])
    return appended


def test_values_and_lines_are_in_no_file(make, tmp_path: Path) -> None:
    appended = fill(make())
    again = make()
    assert entries(again) == appended
    [batch] = [batch for batch in make().due() if isinstance(batch, LogBatch)]
    assert [line.text for line in batch.lines] == [MARKER.decode()]
    assert MARKER not in content(tmp_path)
    assert b"worker" not in content(tmp_path)


def test_without_a_key_they_are(make, tmp_path: Path) -> None:
    fill(make(None))
    assert content(tmp_path).count(MARKER) == 6


def test_a_journal_from_before_is_read_and_encrypted(make, tmp_path: Path) -> None:
    appended = fill(make(None))
    again = make()
    assert MARKER not in content(tmp_path)
    assert entries(again) == appended
    again.append(written(9))
    assert entries(make()) == [*appended, written(9)]
    assert MARKER not in content(tmp_path)


def test_a_file_that_is_torn_anywhere_loses_what_was_torn_and_goes_on(make, tmp_path: Path) -> None:
    appended = fill(make())
    path = tmp_path / "journal" / "s.journal"
    whole = path.read_bytes()
    before = 0
    for length in range(HEAD, len(whole), 11):
        make().close()
        path.write_bytes(whole[:length])
        found = entries(make())
        assert found == appended[: len(found)]
        assert len(found) >= before
        before = len(found)
        again = make()
        again.append(written(100))
        assert entries(make()) == [*found, written(100)]
    assert before >= len(appended) - 1


def test_from_the_first_byte_that_is_changed_on_nothing_is_believed(make, tmp_path: Path) -> None:
    appended = fill(make())
    path = tmp_path / "journal" / "s.journal"
    make().close()
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = entries(make())
        assert found == appended[: len(found)]
        assert len(found) < len(appended)
        make().close()


def test_frames_and_files_that_changed_places_are_not_believed(tmp_path: Path) -> None:
    sealer = Sealer(KEY)
    sealed = SealedRecords.new(sealer, "a.journal")
    one = sealed.frame(b"one", HEAD)
    two = sealed.frame(b"two", HEAD + len(one))
    whole = sealed.head + one + two
    assert [records for records, _ in sealed.frames(whole)] == [b"one", b"two"]
    for changed in (sealed.head + two + one, sealed.head + two, sealed.head + one + one):
        with pytest.raises(BlobCorrupt):
            list(sealed.frames(changed))
    with pytest.raises(BlobCorrupt, match="put in the place of another"):
        SealedRecords.of(sealer, "b.journal", whole)
    assert SealedRecords.of(sealer, "a.journal", whole).head == sealed.head


def opens(fd: int) -> bool:
    """Whether who has the key reads what remains of a file."""
    try:
        SealedRecords.of(Sealer(KEY), "s.journal", os.pread(fd, 1 << 20, 0))
    except BlobCorrupt:
        return False
    return True


def test_what_is_acknowledged_and_cut_off_cannot_be_read_with_the_key_either(
    tmp_path: Path,
) -> None:
    file = RecordFile(tmp_path / "s.journal", decode, Sealer(KEY))
    file.rewrite([b"all"])
    former = os.open(file.path, os.O_RDONLY)
    assert opens(former)
    file.rewrite([b"what is left"])
    assert not opens(former)
    os.close(former)
    latter = os.open(file.path, os.O_RDONLY)
    file.delete()
    assert os.fstat(latter).st_nlink == 0
    assert not opens(latter)
    os.close(latter)


def test_the_journal_of_a_swarm_that_is_done_is_shredded(make, tmp_path: Path) -> None:
    journals = make()
    journals.append(ResultWritten(I0, "t", Inline(MARKER)))
    held = os.open(tmp_path / "journal" / "s.journal", os.O_RDONLY)
    journals.sync()
    assert opens(held)
    journals.acknowledge(JournalAck("s", 1))
    journals.keep_only(frozenset())
    assert not (tmp_path / "journal" / "s.journal").exists()
    assert not opens(held)
    os.close(held)


def test_a_file_whose_records_are_many_has_frames_of_many(tmp_path: Path) -> None:
    sealer = Sealer(KEY)
    file = RecordFile(tmp_path / "s.journal", lambda data: ([data], len(data), ""), sealer)
    records = [bytes([number % 256]) * 100 for number in range(3000)]
    file.rewrite(records)
    assert file.size == file.path.stat().st_size < 300_000 + 5 * 100
    file.add(b"more")
    file.close()
    again = RecordFile(tmp_path / "s.journal", lambda data: ([data], len(data), ""), sealer)
    assert again.read("") == [b"".join(records) + b"more"]
    again.close()
