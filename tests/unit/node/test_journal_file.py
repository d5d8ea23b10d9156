from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from manta.node.errors import StorageError
from manta.node.journal import files as journal_file
from manta.node.journal import record_file, swarm_files
from manta.node.journal.files import Journals
from manta.node.journal.record_file import RecordFile
from manta.node.journal.swarm import linger
from manta.protocol.node import (
    GlobalWritten,
    Instance,
    JournalAck,
    JournalBatch,
    LogAck,
    LogBatch,
    LogLine,
    Progressed,
    ResultWritten,
    TaskEnded,
    TaskStarted,
)
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef, Inline
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.blobs.sealing import Sealer
from tests.support.damage import damaged

I0 = Instance("s", "worker", 0, 0)
STARTED = TaskStarted(I0, 1.0)
ENDED = TaskEnded(I0, AttemptState.FINISHED, 2.0)


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def memory() -> Iterator[MemoryDepot]:
    depot = MemoryDepot(10_000_000)
    yield depot
    depot.close()


@pytest.fixture(params=["plain", "encrypted"])
def sealer(request: pytest.FixtureRequest) -> Sealer | None:
    return Sealer(bytes(32)) if request.param == "encrypted" else None


@pytest.fixture
def make(tmp_path: Path, time: Time, sealer: Sealer | None) -> Iterator[Callable[[], Journals]]:
    """Opens the folder anew, as a restarted daemon does."""
    made: list[Journals] = []

    def open_() -> Journals:
        for journals in made:
            journals.close()
        spool = FileDepot(tmp_path / "spool", sealer=sealer)
        made.append(Journals(tmp_path / "journal", spool, time))
        return made[-1]

    yield open_
    for journals in made:
        journals.close()


def spooled(tmp_path: Path) -> set[str]:
    return set(FileDepot(tmp_path / "spool"))


def test_what_is_appended_is_sent_after_a_sync_and_survives_a_restart(make) -> None:
    journals = make()
    assert journals.append(STARTED) == 1
    assert journals.append(ENDED) == 2
    assert journals.due() == []
    journals.sync()
    assert journals.due() == [JournalBatch("s", 1, (STARTED, ENDED))]
    again = make()
    assert again.due() == [JournalBatch("s", 1, (STARTED, ENDED))]
    assert again.unacknowledged_ends() == (I0,)
    again.acknowledge(JournalAck("s", 2))
    assert again.due() == []


def test_what_comes_after_the_close_is_kept_and_leaves_no_file_open(make, tmp_path: Path) -> None:
    """A container's last lines may, of a node that stops."""
    journals = make()
    journals.append(STARTED)
    journals.close()
    line, other = (
        LogLine(I0, 1.0, "stdout", "late"),
        LogLine(msgspec.structs.replace(I0, swarm_id="t"), 1.0, "stdout", "x"),
    )
    journals.append_lines("s", [line])
    journals.append_lines("t", [other])
    journals.append(ENDED)
    held = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    assert [path for path in held if path.startswith(str(tmp_path))] == []
    again = make()
    assert again.due() == [
        LogBatch("s", 1, (line,)),
        JournalBatch("s", 1, (STARTED, ENDED)),
        LogBatch("t", 1, (other,)),
    ]


def test_open_attempts_survive_cutting(make, monkeypatch) -> None:
    monkeypatch.setattr(journal_file, "COMPACT_AFTER", 0)
    journals = make()
    journals.append(STARTED)
    journals.sync()
    journals.due()
    journals.acknowledge(JournalAck("s", 1))
    again = make()
    assert again.all_open() == (I0,)
    assert again.append(ENDED) == 2
    assert again.all_open() == ()


def test_a_torn_tail_is_cut(make, tmp_path: Path) -> None:
    journals = make()
    journals.append(STARTED)
    journals.append(ENDED)
    journals.close()
    path = tmp_path / "journal" / "s.journal"
    path.write_bytes(path.read_bytes()[:-3])
    again = make()
    assert again.all_open() == (I0,)
    assert again.append(ENDED) == 2
    assert make().unacknowledged_ends() == (I0,)


def test_what_is_sent_after_a_restart_is_bounded(make) -> None:
    """A batch beyond what a link takes would never arrive."""
    journals = make()
    for number in range(120):
        journals.append(ResultWritten(I0, f"tag-{number}", Inline(bytes(60_000))))
    journals.append_lines("s", [LogLine(I0, 1.0, "stdout", "x" * 60_000)] * 120)
    journals.sync()

    def sizes(batches: list[JournalBatch | LogBatch]) -> list[int]:
        return [len(msgspec.msgpack.encode(batch)) for batch in batches]

    before = sizes(journals.due())
    again = make()
    again.sync()
    assert sizes(again.due()) == before
    assert max(before) < 512 * 1024
    assert sum(before) < 9 * 1024 * 1024


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_file_costs_what_is_in_it_and_is_told(make, tmp_path, caplog, seed) -> None:
    journals = make()
    for swarm in ("s", "other"):
        instance = msgspec.structs.replace(I0, swarm_id=swarm)
        journals.append(TaskStarted(instance, 1.0))
        for number in range(5):
            journals.append(ResultWritten(instance, f"{number}", Inline(b"x" * 20)))
        journals.append_lines(swarm, [LogLine(instance, 1.0, "stdout", f"{n}") for n in range(5)])
    journals.close()
    random = Random(seed)
    path = tmp_path / "journal" / random.choice(["s.journal", "s.lines"])
    path.write_bytes(damaged(path.read_bytes(), random))
    again = make()
    again.sync()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith(f"{path} is damaged (")
    assert " lost" in said[0].partition("): ")[2]
    assert said[0].endswith("; nothing is to be done, but check this disk if it happens again.")
    kept = {(type(batch), batch.swarm_id): batch for batch in again.due()}
    assert len(kept[JournalBatch, "other"].entries) == 6
    assert len(kept[LogBatch, "other"].lines) == 5
    whole = kept[LogBatch, "s"].lines if "journal" in path.name else kept[JournalBatch, "s"].entries
    assert len(whole) == 5 + ("lines" in path.name)
    again.append(TaskStarted(msgspec.structs.replace(I0, index=1), 2.0))
    again.append_lines("s", [LogLine(I0, 2.0, "stdout", "after")])
    caplog.clear()
    make()
    assert not caplog.records


def test_lines_after_damage_follow_what_the_manager_has(make, tmp_path) -> None:
    journals = make()
    journals.append_lines("s", [LogLine(I0, 1.0, "stdout", f"{n}") for n in range(5)])
    journals.close()
    (tmp_path / "journal" / "s.lines").write_bytes(b"\x00" * 40)
    journals = make()
    after = LogLine(I0, 2.0, "stdout", "after")
    journals.append_lines("s", [after])
    assert journals.due() == [LogBatch("s", 1, (after,))]
    journals.acknowledge_lines(LogAck("s", 5))  # the manager takes it for a repeat
    assert journals.due() == [LogBatch("s", 6, (after,))]
    journals = make()
    assert journals.due() == [LogBatch("s", 6, (after,))]
    journals.acknowledge_lines(LogAck("s", 6))
    assert journals.due() == []


def test_a_node_that_enrols_as_another_begins_its_numbers_anew(make, tmp_path, memory) -> None:
    """Of one that it does not know, the manager takes nothing that does not begin with 1."""
    blob = BlobRef(memory.put(b"value"), 5)
    journals = make()
    journals.append(STARTED)
    journals.append_lines("s", [LogLine(I0, 1.0, "stdout", "before")] * 3)
    journals.sync()
    journals.due()
    journals.acknowledge(JournalAck("s", 1))
    journals.acknowledge_lines(LogAck("s", 2))
    journals.append(ResultWritten(I0, "a", blob), memory)
    journals.begin_anew()
    assert spooled(tmp_path) == set()
    before = LogLine(I0, 1.0, "stdout", "before")
    for again in (journals, make()):
        assert again.all_open() == (I0,)
        again.sync()
        assert again.due() == [LogBatch("s", 1, (before,))]
    assert again.append(ENDED) == 1
    again.sync()
    assert again.due() == [JournalBatch("s", 1, (ENDED,))]


def test_an_acknowledgement_for_a_swarm_that_is_over_is_no_news(make, tmp_path, caplog) -> None:
    journals = make()
    journals.acknowledge(JournalAck("s", 7))
    journals.acknowledge_lines(LogAck("s", 7))
    journals.keep_only(frozenset())
    assert not caplog.records
    assert list((tmp_path / "journal").iterdir()) == []


def test_an_acknowledgement_beyond_what_is_there_moves_what_is_new_behind_it(make) -> None:
    journals = make()
    journals.registered({})
    journals.append(STARTED)
    journals.sync()
    assert journals.due() == [JournalBatch("s", 1, (STARTED,))]
    journals.acknowledge(JournalAck("s", 7))  # the manager took it for a repeat
    assert journals.due() == [JournalBatch("s", 8, (STARTED,))]
    again = make()
    assert again.due() == [JournalBatch("s", 8, (STARTED,))]
    again.acknowledge(JournalAck("s", 8))
    assert again.due() == []
    assert again.append(ENDED) == 9
    again.sync()
    assert again.due() == [JournalBatch("s", 9, (ENDED,))]
    again.acknowledge(JournalAck("s", 20))
    assert again.due() == [JournalBatch("s", 21, (ENDED,))]
    again.acknowledge(JournalAck("s", 30))  # nothing is left of what it took for repeats
    again.acknowledge(JournalAck("s", 31))
    assert again.append(STARTED) == 32
    line = LogLine(I0, 1.0, "stdout", "x")
    again.append_lines("s", [line])
    again.acknowledge_lines(LogAck("s", 1))
    again.append_lines("s", [line])
    again.acknowledge_lines(LogAck("s", 7))
    assert again.due() == [LogBatch("s", 8, (line,))]


def test_who_waits_for_a_write_goes_neither_early_nor_in_vain(make) -> None:
    journals = make()
    journals.registered({})
    write = ResultWritten(I0, "a", Inline(b"1"))
    journals.append(STARTED)
    journals.append(write)
    awaited = journals.last_write(I0)
    journals.acknowledge(JournalAck("s", 5))  # the manager took both for repeats: they follow
    assert not journals.is_acknowledged("s", awaited)
    journals.acknowledge(JournalAck("s", 6))
    assert not journals.is_acknowledged("s", awaited)
    journals.acknowledge(JournalAck("s", 7))
    assert journals.is_acknowledged("s", awaited)
    journals.append(write)
    awaited = journals.last_write(I0)
    journals.begin_anew()  # nobody takes it any more
    assert journals.is_acknowledged("s", awaited)
    journals.append(write)
    awaited = journals.last_write(I0)
    assert not journals.is_acknowledged("s", awaited)
    journals.acknowledge(JournalAck("s", 1))
    assert journals.is_acknowledged("s", awaited)


def test_who_waits_when_the_manager_has_more_than_the_file(make) -> None:
    """A daemon that has just begun is told how much the manager has."""
    journals = make()
    journals.append(STARTED)
    journals.append(ResultWritten(I0, "a", Inline(b"1")))
    awaited = journals.last_write(I0)
    journals.registered({"s": 40})
    assert not journals.is_acknowledged("s", awaited)
    journals.acknowledge(JournalAck("s", 42))
    assert journals.is_acknowledged("s", awaited)


def test_a_file_that_cannot_be_read_costs_its_swarm_alone(make, tmp_path, caplog) -> None:
    journals = make()
    journals.append(STARTED)
    journals.close()
    (tmp_path / "journal" / "a.journal").mkdir()
    assert make().all_open() == (I0,)
    assert "a.journal is left out: Is a directory" in caplog.text


def test_an_unfinished_file_is_thrown_away(make, tmp_path: Path) -> None:
    make().close()
    (tmp_path / "journal" / "s.journal").write_bytes(b"\x01")
    (tmp_path / "journal" / "s.lines").write_bytes(b"")
    (tmp_path / "journal" / "t.journal.new").write_bytes(b"x")
    journals = make()
    assert list((tmp_path / "journal").iterdir()) == []
    assert journals.append(STARTED) == 1


def test_blobs_stay_in_the_spool_until_acknowledged(make, tmp_path, memory) -> None:
    data = os.urandom(100_000)
    blob = BlobRef(memory.put(data), len(data))
    journals = make()
    journals.append(ResultWritten(I0, "a", blob), memory)
    journals.append(GlobalWritten(I0, "b", blob), memory)
    memory.delete(blob.digest)
    journals = make()
    journals.sync()
    assert journals.due() == []
    assert journals.blobs_to_push() == [blob]
    journals.pushed(blob.digest)
    assert journals.blobs_to_push() == []
    [batch] = journals.due()
    assert len(batch.entries) == 2
    journals.acknowledge(JournalAck("s", 1))
    assert spooled(tmp_path) == {blob.digest}
    journals.acknowledge(JournalAck("s", 2))
    assert spooled(tmp_path) == set()


def test_blobs_that_nothing_names_are_swept_at_the_start(make, tmp_path) -> None:
    FileDepot(tmp_path / "spool").put(b"left over")
    make()
    assert spooled(tmp_path) == set()


def test_a_lost_blob_ends_its_attempt(make, memory) -> None:
    blob = BlobRef(memory.put(b"value"), 5)
    journals = make()
    journals.append(STARTED)
    journals.append(ResultWritten(I0, "a", blob), memory)
    journals.sync()
    journals.blob_lost(blob.digest, 3.0)
    [batch] = journals.due()
    assert batch.entries[-1].state == AttemptState.INTERRUPTED


def test_a_blob_that_is_refused_for_good_fails_its_attempt_also_after_a_restart(
    make, memory, tmp_path
) -> None:
    blob = BlobRef(memory.put(b"value"), 5)
    journals = make()
    journals.append(STARTED)
    journals.append(ResultWritten(I0, "a", blob), memory)
    journals.append(Progressed(I0, 0.5, "", 1.0))
    assert spooled(tmp_path) == {blob.digest}
    journals.blob_lost(blob.digest, 3.0, "The quota is 4 B.")
    assert spooled(tmp_path) == set()
    for each in journals, make():
        each.sync()
        [batch] = each.due()
        _, ended, _ = batch.entries
        assert ended.state == AttemptState.FAILED
        assert ended.error.kind == "ResourceExhaustionError"
        assert ended.error.sentence == f"{I0} failed: The quota is 4 B."
        assert each.all_open() == ()


def test_what_was_appended_as_the_file_was_rewritten_is_sent(make, monkeypatch) -> None:
    monkeypatch.setattr(journal_file, "COMPACT_AFTER", 0)
    journals = make()
    for _ in range(20):
        journals.append(Progressed(I0, 0.5, "", 1.0))
    journals.sync()
    journals.due()
    journals.append(ENDED)
    journals.acknowledge(JournalAck("s", 20))
    journals.sync()
    [batch] = journals.due()
    assert batch.entries == (ENDED,)


def test_who_sends_is_told_when(make, time) -> None:
    journals = make()
    calls: list[float] = []
    journals.on_grown(lambda: calls.append(journals.due_at))
    journals.append(STARTED)
    assert calls == [100.0 + linger(STARTED)]
    journals.append(Progressed(I0, 0.5, "", 1.0))
    assert len(calls) == 1  # that one waits no longer
    journals.append(ENDED)
    assert calls[1] == 100.0
    journals.sync()
    assert journals.due_at is None


def test_an_end_waits_for_an_acknowledgement_if_others_will_end_too(make, time) -> None:
    journals = make()
    instances = [Instance("s", "worker", index, 0) for index in range(4)]
    for instance in instances:
        journals.append(TaskStarted(instance, 1.0))

    def due_after_end_of(index: int) -> float:
        journals.append(TaskEnded(instances[index], AttemptState.FINISHED, 2.0))
        return journals.due_at - time.now

    assert due_after_end_of(0) == 0.0  # nothing is on its way
    journals.sync()
    [sent] = journals.due()
    assert due_after_end_of(1) == pytest.approx(0.01)
    journals.acknowledge(JournalAck("s", len(sent.entries)))
    assert journals.unsent  # it goes with the acknowledgement
    journals.sync()
    assert len(journals.due()) == 1
    assert due_after_end_of(2) == pytest.approx(0.01)
    assert due_after_end_of(3) == 0.0  # the last one here is awaited by nobody else


def test_resent_when_nobody_acknowledges(make, time) -> None:
    journals = make()
    journals.append(STARTED)
    journals.sync()
    first = journals.due()
    assert journals.resend_at() == 105.0
    journals.send_overdue_again()
    assert journals.due() == []
    time.now = 105.0
    journals.send_overdue_again()
    assert journals.due() == first
    journals.send_again()
    assert journals.due() == first
    journals.registered({"s": 1, "unknown": 0})
    assert journals.due() == []
    assert journals.resend_at() is None
    assert journals.all_acknowledged() == {"s": 1}


def test_a_folder_that_was_lost_goes_on_after_the_manager_s_number(make) -> None:
    journals = make()
    journals.registered({"s": 7})
    assert journals.append(STARTED) == 8


def test_log_lines_have_numbers_of_their_own(make) -> None:
    journals = make()
    lines = [LogLine(I0, 1.0, "stdout", text) for text in ("a", "b")]
    journals.append_lines("s", lines)
    journals.append(STARTED)
    journals.sync()
    batch = LogBatch("s", 1, tuple(lines))
    assert journals.due() == [batch, JournalBatch("s", 1, (STARTED,))]
    journals = make()
    assert journals.due()[0] == batch
    journals.acknowledge_lines(LogAck("s", 1))
    journals.acknowledge_lines(LogAck("nobody", 1))
    journals.append_lines("s", lines)
    assert journals.due() == [LogBatch("s", 3, tuple(lines))]


def test_what_an_attempt_writes_is_kept_as_lines(make) -> None:
    journals = make()
    journals.append_output(I0, [("stdout", 1.0, "a"), ("error", 2.0, "b")])
    lines = LogLine(I0, 1.0, "stdout", "a"), LogLine(I0, 2.0, "error", "b")
    assert journals.due() == [LogBatch("s", 1, lines)]


def test_who_prints_more_than_the_manager_takes_waits_while_it_takes_some(
    make, time, monkeypatch
) -> None:
    monkeypatch.setattr(swarm_files, "LINES_AHEAD", 100)
    journals = make()
    line = LogLine(I0, 1.0, "stdout", "x" * 60)
    assert not journals.output_waits("s")
    journals.append_lines("s", [line] * 3)
    journals.due()
    assert not journals.output_waits("s"), "whether the manager takes any is yet to be seen"
    journals.acknowledge_lines(LogAck("s", 1))
    assert journals.output_waits("s")
    assert not journals.output_waits("another swarm")
    journals.acknowledge_lines(LogAck("s", 3))
    assert not journals.output_waits("s")
    journals.append_lines("s", [line] * 3)
    assert journals.output_waits("s")
    time.now += 5
    assert not journals.output_waits("s"), "for a manager that is away nobody waits"


def test_reports_wait_before_all_else_does_while_the_manager_takes_some(
    make, time, monkeypatch
) -> None:
    monkeypatch.setattr("manta.node.journal.swarm.REPORTS_AHEAD", 3)
    journals = make()
    for number in range(4):
        journals.append(Progressed(I0, number / 4, "", 1.0))
    assert not journals.reports_wait("s")
    journals.acknowledge(JournalAck("s", 1))
    assert "3 entries of at most 3 " in journals.reports_wait("s")
    assert not journals.crowded("s")
    time.now += 5
    assert not journals.reports_wait("s"), "the manager is away: they are kept, as all else is"
    journals.acknowledge(JournalAck("s", 2))
    assert not journals.reports_wait("s")
    monkeypatch.setattr("manta.node.journal.swarm.ENTRIES_BOUND", 2)
    time.now += 5
    assert "2 entries of at most 2 " in journals.reports_wait("s"), "as far as there is room"


def test_too_many_lines_are_counted(make, monkeypatch) -> None:
    monkeypatch.setattr(swarm_files, "LINES_BOUND", 1)
    journals = make()
    line = LogLine(I0, 1.0, "stdout", "x")
    journals.append_lines("s", [line] * 4)
    [batch] = journals.due()
    assert batch.lines == (line,)
    journals.acknowledge_lines(LogAck("s", 1))
    journals.append_lines("s", [line])
    [batch] = journals.due()
    assert "3 lines lost" in batch.lines[0].text
    assert batch.lines[1] == line


def test_files_of_swarms_that_are_over_go(make, tmp_path) -> None:
    journals = make()
    journals.append(STARTED)
    journals.append_lines("s", [LogLine(I0, 1.0, "stdout", "x")])
    journals.keep_only(frozenset())
    assert len(list((tmp_path / "journal").iterdir())) == 2
    journals.append(ENDED)
    journals.sync()
    journals.due()
    journals.acknowledge(JournalAck("s", 2))
    journals.acknowledge_lines(LogAck("s", 1))
    journals.keep_only(frozenset({"s"}))
    assert len(list((tmp_path / "journal").iterdir())) == 2
    journals.keep_only(frozenset())
    assert list((tmp_path / "journal").iterdir()) == []


def test_names_that_are_no_file_names(make, tmp_path) -> None:
    strange = Instance("../../etc/passwd", "worker", 0, 0)
    journals = make()
    journals.append(TaskStarted(strange, 1.0))
    assert all(path.parent == tmp_path / "journal" for path in tmp_path.rglob("*.journal"))
    assert make().all_open() == (strange,)


def test_a_full_disk_refuses_values_and_keeps_ends(make, tmp_path, monkeypatch) -> None:
    journals = make()
    journals.append(STARTED)

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StorageError, match="No space left"):
            journals.append(ResultWritten(I0, "a", Inline(b"1")))
        assert journals.append(ENDED) == 2
        journals.sync()
        assert journals.due() == [JournalBatch("s", 1, (STARTED, ENDED))]
    later = TaskStarted(Instance("s", "worker", 0, 1), 3.0)
    assert journals.append(later) == 3  # writes all that is not acknowledged
    again = make()
    again.sync()
    assert again.due() == [JournalBatch("s", 1, (STARTED, ENDED, later))]


def test_while_there_is_no_room_to_write_a_file_anew_it_goes_on_as_it_is(
    make, time: Time, tmp_path, monkeypatch, caplog
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(journal_file, "COMPACT_AFTER", 0)
    tried: list[float] = []

    def full(file: RecordFile[object], records: object) -> None:
        tried.append(time.now)
        raise OSError(28, "No space left on device")

    journals = make()
    journals.append(STARTED)
    with monkeypatch.context() as patch:
        patch.setattr(RecordFile, "rewrite", full)
        for number in range(2, 102):
            journals.append(ResultWritten(I0, "a", Inline(b"1")))
            journals.acknowledge(JournalAck("s", number - 1))
            time.now += 0.1
        assert len(tried) == 4  # 1, 2 and 4 seconds after each other
        assert journals.append(ENDED) == 102
        assert make().all_open() == ()  # it is on disk
    path = tmp_path / "journal" / "s.journal"
    before = path.stat().st_size
    journals = make()
    journals.acknowledge(JournalAck("s", 102))
    assert path.stat().st_size < before / 10
    assert caplog.text.count("holds what nobody needs any more") == 1


@pytest.mark.parametrize("lag", [0, 1, 20])
def test_files_stay_within_what_is_not_acknowledged_and_a_bound(
    make, tmp_path, monkeypatch, lag: int
) -> None:
    """Also where something always waits for the manager, as of tasks that write all the time."""
    monkeypatch.setattr(journal_file, "COMPACT_AFTER", 10_000)
    journals = make()
    files = [tmp_path / "journal" / name for name in ("s.journal", "s.lines")]
    one, sizes = 0, []
    for number in range(1, 1000):
        journals.append(ResultWritten(I0, "a", Inline(b"x" * 100)))
        journals.append_lines("s", [LogLine(I0, 1.0, "stdout", "x" * 100)])
        one = one or max(file.stat().st_size for file in files)
        journals.acknowledge(JournalAck("s", max(0, number - lag)))
        journals.acknowledge_lines(LogAck("s", max(0, number - lag)))
        sizes.append(max(file.stat().st_size for file in files))
    assert max(sizes) < 10_000 + (2 * lag + 2) * one
    assert make().append(ENDED) == 1000  # nothing is missing


def test_who_is_told_that_an_entry_is_kept_hears_it_before_the_manager_can(make) -> None:
    """Else what the manager wants next comes to a node that takes the attempt for running."""
    journals, told = make(), []
    journals.on_grown(lambda: told.append("grown"))
    journals.append(STARTED)
    told.clear()
    journals.append(ENDED, kept=lambda: told.append("kept"))
    assert told == ["kept", "grown"]


def test_a_file_is_written_anew_only_where_the_disk_then_takes_what_others_write(
    tmp_path: Path, monkeypatch
) -> None:
    file: RecordFile[object] = RecordFile(tmp_path / "file", lambda data: ([], 0, ""))
    monkeypatch.setattr(record_file, "SPARE", 1 << 60)
    with pytest.raises(OSError, match="No space left"):
        file.shrink([b"x"])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(record_file, "SPARE", 0)
    file.shrink([b"x"])
    assert file.path.read_bytes() == b"x"
    file.close()


def test_a_short_write_is_undone(make, monkeypatch) -> None:
    journals = make()
    journals.append(STARTED)
    real = os.write
    written: list[int] = []

    def short(fd: int, data: bytes) -> int:
        if written:
            return 0
        written.append(1)
        return real(fd, data[:5])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(StorageError):
            journals.append(ResultWritten(I0, "a", Inline(b"1")))
    journals.append(ENDED)
    assert make().due() == [JournalBatch("s", 1, (STARTED, ENDED))]


def test_what_is_written_after_damage_follows_what_the_manager_has(make, tmp_path) -> None:
    """Else it would be taken for a repeat: the end of an attempt would never be heard."""
    journals = make()
    journals.append(STARTED)
    journals.append(ResultWritten(I0, "a", Inline(b"1")))
    journals.append(ResultWritten(I0, "b", Inline(b"2")))
    journals.close()
    [path] = tmp_path.rglob("*.journal")
    path.write_bytes(path.read_bytes()[:-3])

    again = make()
    assert again.all_open() == (I0,)
    lost = TaskEnded(I0, AttemptState.INTERRUPTED, 3.0)
    assert again.append(lost) == 3
    again.registered({"s": 7})
    again.sync()
    [batch] = again.due()
    assert (batch.first, batch.entries) == (8, (lost,))
    assert again.append(TaskStarted(Instance("s", "worker", 1, 0), 4.0)) == 9
    again.close()

    third = make()
    third.registered({"s": 7})
    third.sync()
    [batch] = third.due()
    assert (batch.first, len(batch.entries)) == (8, 2)
    third.registered({"s": 8})  # not at the start: what it has was sent by this daemon
    assert third.all_acknowledged() == {"s": 8}


def test_what_the_manager_lacks_is_known_by_swarm(make: Callable[[], Journals]) -> None:
    journals = make()
    assert journals.unacknowledged() == {}
    journals.append(TaskStarted(Instance("s", "w", 0, 0), 0.0))
    journals.append(TaskStarted(Instance("s", "w", 1, 0), 0.0))
    journals.append(TaskStarted(Instance("t", "w", 0, 0), 0.0))
    assert journals.unacknowledged() == {"s": 2, "t": 1}
    journals.acknowledge(JournalAck("s", 1))
    journals.acknowledge(JournalAck("t", 1))
    assert journals.unacknowledged() == {"s": 2}
    journals.acknowledge(JournalAck("s", 2))
    assert journals.unacknowledged() == {}
