from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.node.journal import entries, swarm
from manta.node.journal.outbox import BATCHES, Batch, Outbox
from manta.node.journal.records import Begin, KeptEntry, KeptLine, Record, decode, encode
from manta.node.journal.swarm import PUSHES, Journal
from manta.protocol.bundle import Bundle
from manta.protocol.node import (
    Instance,
    JournalEntry,
    LogLine,
    Progressed,
    ResultWritten,
    TaskEnded,
    TaskError,
    TaskStarted,
)
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef, Inline

I0 = Instance("s", "worker", 0, 0)
I1 = Instance("s", "worker", 0, 1)
STARTED = TaskStarted(I0, 1.0)
ENDED = TaskEnded(I0, AttemptState.FINISHED, 2.0)
BLOB = BlobRef("a" * 64, 10)
OTHER = BlobRef("b" * 64, 20)


def result(blob: BlobRef, instance: Instance = I0) -> ResultWritten:
    return ResultWritten(instance, "tag", blob)


def journal(*entries: JournalEntry, upto: int = 0) -> Journal:
    made = Journal(Begin("s", upto))
    for entry in entries:
        made.append(entry, 10)
    made.entries.synced = made.entries.last
    return made


RECORDS: list[Record] = [
    Begin("s", 3, (I1,)),
    KeptEntry(4, STARTED),
    KeptEntry(5, ResultWritten(I0, "tag", Inline(b"12"))),
    KeptEntry(6, result(BLOB)),
    KeptEntry(7, ENDED),
    KeptLine(8, LogLine(I0, 1.0, "stdout", "hello")),
]
DATA = b"".join(map(encode, RECORDS))


def test_records_survive_the_file() -> None:
    assert decode(DATA) == (RECORDS, len(DATA), "")
    assert decode(b"") == ([], 0, "it is empty")


@given(st.integers(0, len(DATA) - 1))
def test_a_torn_tail_is_cut_at_a_record(length: int) -> None:
    records, kept, flaw = decode(DATA[:length])
    assert records == RECORDS[: len(records)]
    assert kept <= length
    assert bool(flaw) == (kept < length or not length)
    assert decode(DATA[:kept])[:2] == (records, kept)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_damaged_byte_ends_the_file_there(position: int, flip: int) -> None:
    damaged = bytearray(DATA)
    damaged[position] ^= flip
    records, kept, flaw = decode(bytes(damaged))
    assert flaw
    assert kept <= position
    assert records == RECORDS[: len(records)]


def test_what_is_valid_but_no_record_ends_the_file() -> None:
    from manta.node.journal import records as module

    body = b"\x93\x01\x02\x03"
    import zlib

    strange = module._HEAD.pack(len(body), zlib.crc32(body)) + body
    records, kept, flaw = decode(DATA + strange + DATA)
    assert (records, kept) == (RECORDS, len(DATA))
    assert flaw


@pytest.mark.parametrize(
    "records",
    [[KeptEntry(1, STARTED)], [Begin("s"), KeptEntry(2, STARTED)], [Begin("s"), Begin("s")]],
)
def test_numbers_have_no_gap(records: list[Record]) -> None:
    found, _, flaw = decode(b"".join(map(encode, records)))
    assert found == records[:-1]
    assert flaw == "a record is not the one that is due"


def test_recover_takes_up_the_numbers_and_the_open_attempts() -> None:
    again = Journal.recover([Begin("s", 3, (I1,)), KeptEntry(4, STARTED)])
    assert again is not None
    assert again.open == (I1, I0)
    assert again.entries.acknowledged == 3
    assert again.append(ENDED, 1) == 5
    assert list(again.open) == [I1]
    assert again.unacknowledged_ends == (I0,)
    assert again.due(0.0) == [Batch(4, (STARTED,))]  # the end is not synced yet


def test_recover_without_a_beginning_or_with_a_gap() -> None:
    assert Journal.recover([]) is None
    assert Journal.recover([KeptEntry(1, STARTED)]) is None
    gap = Journal.recover([Begin("s"), KeptEntry(1, STARTED), KeptEntry(3, ENDED)])
    assert gap is not None
    assert gap.entries.last == 1


def test_nothing_is_sent_before_it_is_synced() -> None:
    made = Journal(Begin("s"))
    made.append(STARTED, 1)
    made.append(ENDED, 1)
    assert made.due(0.0) == []
    made.entries.synced = 1
    assert made.due(0.0) == [Batch(1, (STARTED,))]
    assert made.due(0.0) == []
    made.entries.synced = 2
    assert made.due(0.0) == [Batch(2, (ENDED,))]


def test_an_entry_waits_for_its_blob_and_later_ones_for_it() -> None:
    made = journal(STARTED, result(BLOB), ENDED)
    assert made.due(0.0) == [Batch(1, (STARTED,))]
    assert made.blobs_to_push() == [BLOB]
    made.pushed(BLOB.digest)
    assert made.blobs_to_push() == []
    assert made.due(0.0) == [Batch(2, (result(BLOB), ENDED))]


def test_acknowledgement_frees_blobs_that_nothing_else_names() -> None:
    made = journal(result(BLOB), result(OTHER), result(BLOB, I1))
    made.pushed(BLOB.digest)
    made.pushed(OTHER.digest)
    made.due(0.0)
    assert made.acknowledge(2, (), 0.0) == [OTHER]
    assert made.acknowledge(2, (), 0.0) == []
    assert made.acknowledge(3, (), 0.0) == [BLOB]
    assert len(made.entries) == 0


def test_a_missing_blob_is_pushed_again_before_its_entry() -> None:
    made = journal(STARTED, result(BLOB))
    made.pushed(BLOB.digest)
    assert len(made.due(0.0)) == 1
    assert made.acknowledge(1, (BLOB,), 0.0) == []
    assert made.blobs_to_push() == [BLOB]
    assert made.due(0.0) == []
    made.pushed(BLOB.digest)
    assert made.due(0.0) == [Batch(2, (result(BLOB),))]


def test_a_lost_blob_interrupts_its_attempt() -> None:
    made = journal(STARTED, result(BLOB), ENDED)
    assert made.blob_lost(BLOB.digest, 9.0) == [I0]
    assert made.blobs_to_push() == []
    [batch] = made.due(0.0)
    told = batch.items[1]
    assert isinstance(told, TaskEnded)
    assert told.state == AttemptState.INTERRUPTED
    assert made.blob_lost(BLOB.digest, 9.0) == []


def test_a_blob_that_is_too_large_fails_whoever_wrote_it_and_holds_back_nothing_else() -> None:
    many = [BlobRef(f"{number:064x}", 1) for number in range(2 * PUSHES)]
    output = TaskEnded(I1, AttemptState.FINISHED, 2.0, output=BLOB)
    made = journal(STARTED, result(BLOB), output, *map(result, many))
    assert made.blob_lost(BLOB.digest, 9.0, "It is too large.") == [I0, I1]
    assert made.blobs_to_push() == many[:PUSHES]
    [batch] = made.due(0.0)
    assert [type(entry) for entry in batch.items] == [TaskStarted, TaskEnded, TaskEnded]
    for told in batch.items[1:]:
        assert isinstance(told, TaskEnded)
        assert (told.state, told.output) == (AttemptState.FAILED, None)
        assert told.error is not None
        assert told.error.kind == "ResourceExhaustionError"
        assert told.error.sentence.endswith("failed: It is too large.")


def test_of_one_that_is_disowned_nothing_counts_and_its_end_says_so() -> None:
    box = journal(TaskStarted(I0, 0.0), result(BLOB))
    assert not box.disown(I0, 1.0, goes_on=True)
    assert box.admitted(result(BLOB)) is None
    assert box.admitted(result(BLOB, I1)) == result(BLOB, I1)
    told = box.admitted(TaskEnded(I0, AttemptState.FINISHED, 2.0))
    assert isinstance(told, TaskEnded)
    assert (told.state, told.at) == ("INTERRUPTED", 2.0)
    assert told.error is not None
    assert told.error.kind == "Restored"
    box.append(told, 1)
    assert box.admitted(TaskStarted(I0, 3.0)) == TaskStarted(I0, 3.0)  # its namesake's


def test_an_end_that_is_disowned_is_replaced_and_its_output_let_go_of() -> None:
    box = journal(TaskStarted(I0, 0.0), TaskEnded(I0, AttemptState.FINISHED, 1.0, output=BLOB))
    box.append(TaskEnded(I1, AttemptState.FINISHED, 1.0), 1)
    assert box.disown(I0, 2.0, goes_on=True)
    ends = [kept.item for kept in box.entries if isinstance(kept.item, TaskEnded)]
    assert [(end.instance, end.state) for end in ends] == [(I0, "INTERRUPTED"), (I1, "FINISHED")]
    assert not box.names(BLOB.digest)
    assert box.admitted(TaskStarted(I0, 3.0)) == TaskStarted(I0, 3.0)


def test_resent_after_a_new_connection_or_silence() -> None:
    made = journal(STARTED, ENDED)
    assert made.entries.resend_at() is None
    first = made.due(10.0)
    assert made.entries.resend_at() == 15.0
    made.entries.send_again()
    assert made.due(20.0) == first
    made.acknowledge(1, (), 22.0)
    assert made.entries.resend_at() == 27.0
    made.acknowledge(2, (), 23.0)
    assert made.entries.resend_at() is None


def test_last_write_of_an_attempt() -> None:
    made = journal(STARTED, result(BLOB), result(OTHER, I1), Progressed(I0, 0.5, "", 1.0))
    assert made.last_write(I0).number == 2
    assert made.last_write(I1).number == 3
    made.pushed(BLOB.digest)
    made.due(0.0)
    made.acknowledge(2, (), 0.0)
    assert made.last_write(I0).number == 0


@pytest.mark.parametrize("acknowledged", [0, 1, 2, 3, 4])
def test_a_rewritten_file_says_the_same(acknowledged: int) -> None:
    made = journal(STARTED, TaskStarted(I1, 2.0), ENDED, Progressed(I1, 0.1, "", 3.0))
    made.due(0.0)
    made.acknowledge(acknowledged, (), 0.0)
    records: list[Record] = [made.begin()]
    records += [KeptEntry(kept.number, kept.item) for kept in made.entries]
    again = Journal.recover(records)
    assert again is not None
    assert again.open == made.open == (I1,)
    assert again.entries.last == made.entries.last
    assert again.unacknowledged_ends == made.unacknowledged_ends


def test_a_manager_that_knows_more_than_the_file() -> None:
    made = journal(STARTED)
    made.acknowledge(7, (), 0.0)
    assert made.append(ENDED, 1) == 8
    made.entries.synced = 8
    assert made.due(0.0) == [Batch(8, (ENDED,))]


def test_batches_have_bounds() -> None:
    box: Outbox[int] = Outbox(batch_items=3, batch_bytes=10, window_bytes=20)
    for number in range(8):
        box.append(number, 4)
    box.append(99, 50)
    box.synced = box.last
    assert [batch.items for batch in box.due(0.0)] == [(0, 1), (2, 3), (4, 5)]
    box.acknowledge(4)
    assert [batch.items for batch in box.due(0.0)] == [(6, 7), (99,)]
    box.acknowledge(5)
    assert box.pending_bytes == 4 * 3 + 50


def test_a_manager_that_does_not_answer_gets_few_batches_and_then_large_ones() -> None:
    box: Outbox[int] = Outbox()
    sent = 0
    for number in range(BATCHES + 500):
        box.synced = box.append(number, 1)
        sent += len(box.due(0.0))
    assert sent == BATCHES
    box.acknowledge(2)
    assert [len(batch.items) for batch in box.due(0.0)] == [256, 244]
    box.send_again()
    assert sum(len(batch.items) for batch in box.due(1.0)) == BATCHES + 500 - 2


def test_tasks_wait_while_too_much_is_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "ENTRIES_BOUND", 3)
    monkeypatch.setattr(swarm, "BYTES_BOUND", 1 << 20)
    made = journal(STARTED, ENDED)
    assert not made.crowded
    made.append(ENDED, 10)
    assert made.crowded.startswith("the manager has yet to take 3 entries of at most 3 (0.0 of 1 M")
    made.acknowledge(1, (), 0.0)
    assert not made.crowded
    made.append(ENDED, 1 << 20)
    assert "(1.0 of 1 MiB)" in made.crowded


def test_the_last_write_of_an_attempt_counts_until_it_is_acknowledged() -> None:
    other = Instance("s", "worker", 1, 0)
    made = journal(result(BLOB), STARTED, result(OTHER, other), ENDED, upto=10)
    assert (
        made.last_write(I0).number,
        made.last_write(other).number,
        made.last_write(I1).number,
    ) == (11, 13, 0)
    made.shift(11, 5)
    assert (made.last_write(I0).number, made.last_write(other).number) == (11, 18)
    made.acknowledge(12, (), 0.0)
    assert (made.last_write(I0).number, made.last_write(other).number) == (0, 18)


def test_who_waits_for_a_write_waits_for_it_under_whatever_number() -> None:
    made = journal(result(BLOB), result(OTHER), upto=10)
    first = made.last_write(I0)
    made.append(result(BLOB), 1)  # of which nobody waits for the end
    last = made.last_write(I0)
    made.shift(11, 5)
    assert (first.number, last.number) == (17, 18)
    made.acknowledge(17, (), 0.0)
    made.shift(17, 3)
    assert (first.number, last.number, made.last_write(I0).number) == (17, 21, 21)
    made.end()
    assert last.number == 0


def test_some_blobs_are_pushed_at_a_time_and_each_is_freed_once() -> None:
    blobs = [BlobRef(f"{number:064x}", 1) for number in range(3 * PUSHES)]
    made = journal(*map(result, blobs), *map(result, blobs))
    assert made.blobs_to_push() == blobs[:PUSHES]
    for blob in blobs[: PUSHES + 1]:
        made.pushed(blob.digest)
    assert made.blobs_to_push() == blobs[PUSHES + 1 : 2 * PUSHES + 1]
    assert sum(len(batch.items) for batch in made.due(0.0)) == PUSHES + 1
    assert made.acknowledge(PUSHES, (), 0.0) == [], "later entries name them as well"
    for blob in blobs:
        made.pushed(blob.digest)
    assert made.blobs_to_push() == []
    assert made.acknowledge(3 * PUSHES, (blobs[5],), 0.0) == []
    assert made.blobs_to_push() == [blobs[5]]
    made.pushed(blobs[5].digest)
    assert made.acknowledge(made.entries.last, (), 0.0) == blobs
    assert not any(made.names(blob.digest) for blob in blobs)


@given(
    st.lists(
        st.one_of(
            st.just("append"),
            st.just("sync"),
            st.just("send"),
            st.just("reconnect"),
            st.tuples(st.just("deliver"), st.integers(0, 9)),
            st.tuples(st.just("ack"), st.integers(0, 9)),
        ),
        max_size=80,
    )
)
def test_exactly_once_over_a_bad_wire(steps: list) -> None:
    """The manager applies what continues its number and ignores all else."""
    box: Outbox[int] = Outbox(batch_items=3)
    wire: list[Batch[int]] = []
    acks: list[int] = [0]
    applied: list[int] = []

    def receive(batch: Batch[int]) -> None:
        for number, item in enumerate(batch.items, batch.first):
            if number == len(applied) + 1:
                applied.append(item)
        acks.append(len(applied))

    for step in steps:
        match step:
            case "append":
                box.append(box.last, 1)
            case "sync":
                box.synced = box.last
            case "send":
                wire += box.due(0.0)
            case "reconnect":
                box.send_again()
            case ("deliver", index) if wire:
                receive(wire[index % len(wire)])
            case ("ack", index):
                box.acknowledge(acks[index % len(acks)])
    box.synced = box.last
    box.send_again()
    for batch in box.due(0.0):
        receive(batch)
    box.acknowledge(len(applied))
    assert applied == list(range(box.last))
    assert len(box) == 0
    assert box.pending_bytes == 0


def test_a_failure_whose_list_of_packages_is_lost_stays_what_it_is() -> None:
    error = TaskError("ValueError", "It failed.", bundle=Bundle(isolation="bwrap", packages=BLOB))
    failed = TaskEnded(I0, AttemptState.FAILED, 1.0, error=error)
    made = journal(failed)
    assert entries.blob_of(failed) == BLOB
    assert made.blob_lost(BLOB.digest, 2.0) == []
    (kept,) = made.entries
    without = TaskError("ValueError", "It failed.", bundle=Bundle(isolation="bwrap"))
    assert kept.item == TaskEnded(I0, AttemptState.FAILED, 1.0, error=without)
    assert not made.names(BLOB.digest)
