"""What an audit log holds after whatever ended its writer, and what is found of changes to it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from manta.audit import folder as files
from manta.audit import log as audit_log
from manta.audit.keys import SealKey
from manta.audit.log import AuditLog
from manta.audit.records import MOST_OF_A_RECORD, Head, Record
from manta.audit.verify import Anchor, What, read, verify

KEY, OTHER = SealKey(b"k" * 32), SealKey(b"o" * 32)


def written(
    folder: Path, count: int, *, key: SealKey = KEY, start: int = 0, **options: int
) -> Head:
    """Writes records one block each; returns the head."""
    log = AuditLog(folder, key, wall=lambda: 7.0, **options)
    for number in range(start, start + count):
        record_now(log, Record(float(number), "act", f"user-{number}", about={"n": number}))
    log.close()
    return log.head


def record_now(log: AuditLog, record: Record) -> bool:
    done, told = threading.Event(), []

    def then(is_stored: bool) -> None:
        told.append(is_stored)
        done.set()

    log.record(record, then)
    assert done.wait(60)
    return told[0]


def acts(folder: Path) -> list[str]:
    return [record.act for _, record in read(folder)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


# --- writing ------------------------------------------------------------------------------


def test_a_log_reads_as_it_was_written(folder: Path) -> None:
    head = written(folder, 5)
    found = verify(folder, KEY.public)
    assert (found.flaws, found.notes) == ([], [])
    assert (found.first, found.records, found.intact, found.head) == (1, 6, 6, head)
    numbers, records = zip(*read(folder), strict=True)
    assert numbers == (1, 2, 3, 4, 5, 6)
    assert [record.act for record in records] == ["log-begun", *["act"] * 5]
    assert records[2] == Record(1.0, "act", "user-1", about={"n": 1})
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_log_goes_on_where_it_ended(folder: Path) -> None:
    for start in (0, 3, 6):
        written(folder, 3, start=start)
    assert verify(folder, KEY.public).flaws == []
    assert [record.about["n"] for _, record in read(folder) if record.act == "act"] == [*range(9)]


def test_two_writers_take_turns(folder: Path) -> None:
    one, two = (AuditLog(folder, KEY) for _ in range(2))
    for number in range(20):
        assert record_now(one if number % 2 else two, Record(0.0, "act", about={"n": number}))
    one.close()
    two.close()
    assert verify(folder, KEY.public).flaws == []
    assert [r.about["n"] for _, r in read(folder) if r.act == "act"] == [*range(20)]


def test_what_comes_together_is_one_block(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "PAUSE", 30.0)
    log = AuditLog(folder, KEY)
    assert record_now(log, Record(0.0, "first"))
    for _ in range(500):
        log.record(Record(0.0, "act"))
    log.close()
    [path] = files.segments(folder)
    assert len(list(files.lines(path))) <= 4
    assert verify(folder, KEY.public).records == 502


def test_a_record_that_is_too_long_or_cannot_be_written_is_kept_without_what_it_is_about(
    folder: Path,
) -> None:
    log = AuditLog(folder, KEY)
    log.record(Record(1.0, "long", "ada", about={"x": "y" * MOST_OF_A_RECORD}))
    log.record(Record(1.0, "odd", "bo\udcff", about={"x": "\udcff"}))
    log.close()
    assert verify(folder, KEY.public).flaws == []
    _, long, odd = (record for _, record in read(folder))
    assert (long.act, long.who) == ("long", "ada")
    assert "more than a record may have" in long.about["left_out"]
    assert (odd.act, odd.who) == ("odd", "bo?")


def test_a_log_is_bounded_and_says_what_it_removed(folder: Path) -> None:
    head = written(folder, 200, segment=2000, kept=3)
    assert len(files.segments(folder)) == 3
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4 * 3000
    found = verify(folder, KEY.public)
    assert found.flaws == []
    assert found.first > 100
    assert found.head == head
    assert any("were removed to make room" in note for note in found.notes)


def test_segments_that_a_crash_left_are_no_flaw(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        written(folder, 60, segment=2000, kept=2)
    assert len(files.segments(folder)) > 2
    assert verify(folder, KEY.public).flaws == []
    written(folder, 20, segment=2000, kept=2)
    assert len(files.segments(folder)) == 2
    assert verify(folder, KEY.public).flaws == []


# --- crashes ------------------------------------------------------------------------------


def test_a_crash_at_every_byte_of_an_append_costs_at_most_that_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what counts is what is there
    written(tmp_path / "before", 3)
    written(shutil.copytree(tmp_path / "before", tmp_path / "after"), 1, start=3)
    name = files.segments(tmp_path / "before")[0].name
    before, after = ((tmp_path / one / name).read_bytes() for one in ("before", "after"))
    assert after.startswith(before)
    for length in range(len(before), len(after) + 1):
        folder = shutil.copytree(tmp_path / "before", tmp_path / f"at-{length}")
        (folder / name).write_bytes(after[:length])
        found = verify(folder, KEY.public)
        assert found.flaws == [], length
        assert found.records == (5 if length == len(after) else 4)
        is_torn = len(before) < length < len(after)
        assert bool(found.notes) == is_torn
        written(folder, 1, start=9)
        assert verify(folder, KEY.public).flaws == [], length
        assert ("line-torn" in acts(folder)) == is_torn
        shutil.rmtree(folder)


def test_a_crash_in_the_first_line_of_a_segment(folder: Path) -> None:
    head = written(folder, 3)
    files.segment_path(folder, head.number + 1).write_bytes(b'{"seal":"ab')
    assert verify(folder, KEY.public).flaws == []
    written(folder, 2)
    assert verify(folder, KEY.public).flaws == []
    assert acts(folder)[4:] == ["line-torn", "act", "act"]
    assert len(files.segments(folder)) == 2


def test_a_crash_between_the_lines_and_their_head_costs_nothing(folder: Path) -> None:
    written(folder, 3)
    older = (folder / files.HEAD).read_bytes()
    written(folder, 2, start=3)
    (folder / files.HEAD).write_bytes(older)
    assert verify(folder, KEY.public).flaws == []
    written(folder, 1, start=5)
    assert verify(folder, KEY.public).flaws == []
    assert acts(folder) == ["log-begun", *["act"] * 6]


# --- a disk that takes nothing ------------------------------------------------------------


def test_what_a_full_disk_does_not_take_is_recorded_later_and_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_log, "RETRY", 0.01)
    log = AuditLog(folder, KEY)
    assert record_now(log, Record(0.0, "before"))
    real, full = os.write, threading.Event()
    full.set()

    def write(fd: int, data: bytes) -> int:
        return real(fd, data[:20] if full.is_set() else data)

    monkeypatch.setattr(os, "write", write)
    assert not record_now(log, Record(0.0, "meanwhile"))
    assert f"the audit log {folder} cannot be written: No space left on device" in caplog.text
    assert not record_now(log, Record(0.0, "then"))
    assert verify(folder, KEY.public).records == 2
    full.clear()
    log.close()
    assert verify(folder, KEY.public).flaws == []
    assert acts(folder) == ["log-begun", "before", "meanwhile", "then"]


def test_what_waits_for_the_disk_is_bounded_and_its_loss_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "RETRY", 0.01)
    monkeypatch.setattr(audit_log, "MOST_WAITING", 1000)
    folder.parent.chmod(0o500)
    folder.write_bytes(b"")  # in the way of the folder
    log = AuditLog(folder, KEY)
    for _ in range(100):
        assert not record_now(log, Record(0.0, "act"))
    folder.parent.chmod(0o700)
    folder.unlink()
    log.close()
    found = verify(folder, KEY.public)
    assert found.flaws == []
    assert any("records were lost" in note for note in found.notes)
    assert found.records < 50


# --- changes ------------------------------------------------------------------------------


def changes(folder: Path, random: Random) -> str:
    """Changes the log as an attacker or a disk might; returns how."""
    paths = files.segments(folder)
    path = random.choice(paths)
    text = bytearray(path.read_bytes())
    lines = text.splitlines(keepends=True)
    at = random.randrange(len(lines))
    ways = ["flip", "remove", "repeat", "truncate", "insert", "segment", "rename", "head"]
    ways += ["tail", "rewrite", "empty", *["swap"] * (len(lines) > 1)]
    how = random.choice(ways)
    match how:
        case "flip":
            where = random.randrange(len(text))
            text[where] ^= 1 << random.randrange(8)
            path.write_bytes(text)
        case "remove":
            path.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
        case "swap":
            other = random.choice([one for one in range(len(lines)) if one != at])
            lines[at], lines[other] = lines[other], lines[at]
            path.write_bytes(b"".join(lines))
        case "repeat":
            lines.insert(random.randrange(len(lines) + 1), lines[at])
            path.write_bytes(b"".join(lines))
        case "truncate":
            path.write_bytes(text[: random.randrange(len(text))])
        case "insert":
            where = random.randrange(len(text))
            junk = random.randbytes(random.randrange(1, 20))
            path.write_bytes(text[:where] + junk + text[where:])
        case "segment":
            path.unlink()
        case "rename":
            path.rename(files.segment_path(folder, random.choice([0, 5, 10**6])))
        case "head":
            head = folder / files.HEAD
            text = bytearray(head.read_bytes())
            text[random.randrange(len(text))] ^= 1 << random.randrange(8)
            head.write_bytes(text)
        case "tail":
            paths[-1].write_bytes(b"".join(paths[-1].read_bytes().splitlines(True)[:-1]))
        case "rewrite":  # a digit or letter that keeps the form
            where = random.choice([i for i, byte in enumerate(text) if chr(byte).isalnum()])
            text[where] = random.choice([b for b in b"0123456789abcdef" if b != text[where]])
            path.write_bytes(text)
        case "empty":
            path.write_bytes(b"")
    return how


def test_a_thousand_random_changes_are_all_found(tmp_path: Path) -> None:
    original = tmp_path / "original"
    written(original, 40, segment=3000, kept=4)
    contents = {path.name: path.read_bytes() for path in original.iterdir()}
    assert len(contents) >= 6
    folder = tmp_path / "changed"
    folder.mkdir()
    unfound = []
    for seed in range(1000):
        for path in folder.iterdir():
            path.unlink()
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        how = changes(folder, Random(seed))
        is_changed = {path.name: path.read_bytes() for path in folder.iterdir()} != contents
        if not verify(folder, KEY.public).flaws and is_changed:
            unfound.append((seed, how))
    assert unfound == []


def lines_of(folder: Path) -> list[bytes]:
    [path] = files.segments(folder)
    return path.read_bytes().splitlines(keepends=True)


def put(folder: Path, lines: list[bytes]) -> None:
    [path] = files.segments(folder)
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("change", "what", "number", "sentence"),
    [
        (lambda one: [*one[:2], one[2].replace(b"user-2", b"user-7"), *one[3:]], What.EDITED, 4,
         "records 4 to 4 are not what was sealed"),
        (lambda one: [*one[:2], b"{}\n", *one[3:]], What.EDITED, 4,
         "the line after record 3 is not as it was written"),
        (lambda one: [*one[:2], *one[3:]], What.MISSING, 4, "records 4 to 4 are missing"),
        (lambda one: [*one[:2], one[3], one[2], *one[4:]], What.REORDERED, 4,
         "record 5 comes before record 4"),
        (lambda one: [*one[:3], *one[2:]], What.REPEATED, 4, "record 4 is there twice"),
        (lambda one: one[:-2], What.CUT, 5, "the end is cut: records 5 to 6 are missing"),
        (lambda one: one[1:], What.CUT, 1, "no record says that those before were removed"),
    ],
)  # fmt: skip
def test_the_first_wrong_record_is_named(
    folder: Path,
    change: Callable[[list[bytes]], list[bytes]],
    what: What,
    number: int,
    sentence: str,
) -> None:
    written(folder, 5)
    [path] = files.segments(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5  # the first has two records
    path.write_bytes(b"".join(change(lines)))
    found = verify(folder, KEY.public)
    flaw = found.flaws[0]
    assert (flaw.file, flaw.number, flaw.what) == (path.name, number, what)
    assert sentence in flaw.sentence
    assert found.intact == number - 1


def test_the_writer_does_not_heal_an_end_that_was_cut(folder: Path) -> None:
    written(folder, 5)
    [path] = files.segments(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    written(folder, 3, start=5)
    found = verify(folder, KEY.public)
    assert [flaw.what for flaw in found.flaws] == [What.MISSING, What.CUT]
    assert found.flaws[0].sentence == "records 5 to 6 are missing"
    assert found.intact == 4


def test_a_writer_that_runs_notices_an_end_that_was_cut(folder: Path) -> None:
    log = AuditLog(folder, KEY)
    for _ in range(4):
        record_now(log, Record(0.0, "act"))
    [path] = files.segments(folder)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    record_now(log, Record(0.0, "act"))
    log.close()
    assert verify(folder, KEY.public).flaws[0].sentence == "records 5 to 5 are missing"


@pytest.mark.parametrize("rest", ["log", "head", "nothing"])
def test_a_log_of_which_parts_were_removed_is_not_begun_anew_unseen(
    folder: Path, rest: str
) -> None:
    written(folder, 5)
    for path in folder.iterdir():
        if rest == "nothing" or (path.suffix == ".log") != (rest == "log"):
            path.unlink()
    if rest == "nothing":
        with pytest.raises(FileNotFoundError):
            verify(folder, KEY.public)
    else:
        assert verify(folder, KEY.public).flaws[0].what is What.CUT
    written(folder, 2, start=5)
    found = verify(folder, KEY.public)
    expected = {"log": What.CUT, "head": What.CUT, "nothing": None}[rest]
    assert (found.flaws[0].what if found.flaws else None) == expected


# --- keys and heads that were kept elsewhere ----------------------------------------------


def test_a_log_that_was_made_anew_without_the_key_is_found(folder: Path) -> None:
    written(folder, 3, key=OTHER)
    found = verify(folder, KEY.public)
    assert found.flaws[0].what is What.OTHER_KEY
    assert found.flaws[0].number == 1


def test_a_key_that_was_changed_is_told_and_the_former_one_has_to_be_named(folder: Path) -> None:
    written(folder, 3, key=OTHER)
    written(folder, 3, start=3)
    found = verify(folder, KEY.public)
    assert {flaw.what for flaw in found.flaws} == {What.OTHER_KEY}
    assert [flaw.number for flaw in found.flaws] == [1, 3, 4]
    found = verify(folder, KEY.public, [OTHER.public])
    assert found.flaws == []
    assert any(f"from here on the key {KEY.public} seals" in note for note in found.notes)


def test_heads_that_were_kept_elsewhere_show_a_log_that_was_made_anew_with_its_key(
    tmp_path: Path,
) -> None:
    kept = Anchor(written(tmp_path / "one", 5), "the manager")
    written(tmp_path / "one", 3, start=5)
    found = verify(tmp_path / "one", KEY.public, anchors=[kept])
    assert (found.flaws, found.anchors) == ([], 1)
    written(tmp_path / "remade", 9)
    found = verify(tmp_path / "remade", KEY.public, anchors=[kept])
    assert found.flaws[0].what is What.REPLACED
    assert "it is another log than the manager saw" in found.flaws[0].sentence
    written(tmp_path / "shorter", 2)
    found = verify(tmp_path / "shorter", KEY.public, anchors=[kept])
    assert found.flaws[0].what is What.CUT
    assert found.flaws[0].sentence == "the manager saw record 6: 4 to 6 are gone"


def test_an_end_that_was_cut_with_its_head_is_found_by_what_was_kept_elsewhere(
    folder: Path, tmp_path: Path
) -> None:
    written(folder, 3)
    older = shutil.copytree(folder, tmp_path / "older")
    kept = Anchor(written(folder, 3, start=3), "the manager")
    assert verify(older, KEY.public).flaws == []
    [flaw] = verify(older, KEY.public, anchors=[kept]).flaws
    assert (flaw.what, flaw.number) == (What.CUT, 5)


def test_copies_that_both_go_on_are_told_apart(tmp_path: Path) -> None:
    written(tmp_path / "one", 3)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    kept = Anchor(written(tmp_path / "one", 2, start=3), "the manager")
    written(tmp_path / "copy", 2, start=7)
    assert verify(tmp_path / "copy", KEY.public).flaws == []
    [flaw] = verify(tmp_path / "copy", KEY.public, anchors=[kept]).flaws
    assert (flaw.what, flaw.number) == (What.REPLACED, 6)


def test_what_was_kept_of_records_that_made_room_is_no_flaw(folder: Path) -> None:
    kept = Anchor(written(folder, 5, segment=1000, kept=2), "the manager")
    written(folder, 60, start=5, segment=1000, kept=2)
    found = verify(folder, KEY.public, anchors=[kept])
    assert (found.flaws, found.anchors) == ([], 0)
