"""What a user deletes is gone for all who read, and breaks nothing that rests on it."""

from __future__ import annotations

from typing import Any

import pytest

from manta.actors import Refused
from manta.manager.swarm.events import (
    Acknowledge,
    Freed,
    GlobalSet,
    Needed,
    Released,
    ResultsDeleted,
    Stopped,
)
from manta.manager.swarm.reads.queries import deletable, page, select_results
from manta.protocol.exchange import Broadcasted
from manta.protocol.node import ResultWritten, TaskEnded
from manta.protocol.values import BlobRef

BLOB, OTHER = BlobRef("a" * 64, 1), BlobRef("b" * 64, 2)


def read(b, after=0, limit=1000) -> tuple[Any, int]:
    """Results and cursor."""
    shown = page(b.machine, "results", after, limit)
    return shown.items, shown.cursor


def seen(b, **options):
    return [(item.iteration, item.tag, item.node_alias) for item in read(b, **options)[0]]


def released(b, event):
    return [blob for act in b.feed(event) if isinstance(act, Released) for blob in act.blobs]


@pytest.fixture
def two_rounds(bench, make):
    """Two nodes have written `a` and `b` in two iterations."""
    b = bench(make.task("worker"), nodes=2, max_iteration=3)
    for _ in range(2):
        b.finish("worker", a=1, b=2)
    return b


@pytest.mark.parametrize(
    ("tag", "iteration", "left"),
    [
        ("a", None, [(i, "b", n) for i in (0, 1) for n in ("node-1", "node-2")]),
        (None, 1, [(0, t, n) for n in ("node-1", "node-2") for t in "ab"]),
        ("b", 0, [(i, t, n) for i in (0, 1) for n in ("node-1", "node-2") for t in "ab"[: i + 1]]),
        (None, None, []),
        ("a", 7, None),
    ],
)
def test_what_was_named_is_gone_and_the_rest_is_there(two_rounds, tag, iteration, left):
    b = two_rounds
    before = seen(b)
    left = before if left is None else left
    assert deletable(b.machine, tag, iteration) == len(before) - len(left)
    b.feed(ResultsDeleted("ada", tag, iteration))
    assert seen(b) == left
    assert seen(b, limit=1) == left[:1]
    assert b.replayed().data == b.machine.data


def test_cursors_mean_what_they_meant(two_rounds):
    b = two_rounds
    _, middle = read(b, limit=3)
    whole, end = read(b)
    b.feed(ResultsDeleted("ada", "a"))
    assert read(b, middle) == (tuple(item for item in whole[3:] if item.tag == "b"), end)
    b.finish("worker", a=3)
    assert [item.value.data for item in read(b, end)[0]] == [b"3", b"3"]
    assert read(b, end)[1] == end + 2


def test_a_tag_that_there_is_not_is_refused_with_those_that_there_are(two_rounds):
    b = two_rounds
    with pytest.raises(Refused, match=r"'fl' \(s\) has no results of tag 'c': it has a, b\.") as no:
        deletable(b.machine, "c", None)
    assert no.value.code == "unknown-tag"
    b.feed(ResultsDeleted("ada"))
    with pytest.raises(Refused, match="'a': it has no results at all"):
        deletable(b.machine, "a", None)
    assert deletable(b.machine, None, None) == 0


def test_the_history_says_who_deleted_what(two_rounds):
    b = two_rounds
    b.feed(ResultsDeleted("ada", "a", 1))
    assert b.sentences("deleted") == ["2 results of tag 'a' of iteration 1 were deleted by ada."]


def test_deleting_nothing_leaves_no_trace(two_rounds):
    b = two_rounds
    records = len(b.records)
    assert b.feed(ResultsDeleted("ada", "none")) == []
    assert len(b.records) == records


def test_a_swarm_that_is_over_is_none_the_livelier_for_it(two_rounds):
    b = two_rounds
    b.feed(Stopped())
    b.feed(ResultsDeleted("ada"))
    assert (b.state, seen(b)) == ("STOPPED", [])
    assert page(b.machine, "results", 0).ended
    assert b.replayed().data == b.machine.data


def test_tasks_see_no_more_of_it_and_are_placed_where_it_was_written(bench, make):
    b = bench(make.task("w", method="any"), make.task("t", "w", method="tag-good"), nodes=3)
    at = b.running("w")[0]
    where = b.node_of(at)
    b.say(at, ResultWritten(at, "good", make.value(1)))
    assert select_results(b.machine, "good", 0).entries
    b.feed(ResultsDeleted("ada", "good"))
    assert not select_results(b.machine, "good", 0).entries
    b.end(at)
    assert b.node_of(b.running("t")[0]) == where


def test_what_a_failed_attempt_wrote_stays_deleted(bench, make):
    b = bench(make.task("w", method="any", retries=1))
    at = b.running("w")[0]
    b.say(at, ResultWritten(at, "good", make.value(1)))
    b.feed(ResultsDeleted("ada"))
    b.end(at, "FAILED", "broken")
    again = b.running("w")[0]
    b.end(again, entries=[ResultWritten(again, "good", make.value(2))])
    assert [item.attempt for item in read(b)[0]] == [1]
    assert b.state == "COMPLETED"


def test_blobs_of_deleted_results_are_released(bench, make):
    b = bench(make.task("w"), nodes=2)
    one, other = b.running("w").values()
    b.say(one, ResultWritten(one, "a", BLOB), ResultWritten(one, "b", OTHER))
    b.say(other, ResultWritten(other, "a", BLOB), ResultWritten(other, "b", BLOB))
    assert released(b, ResultsDeleted("ada", "a")) == []  # b names it still
    assert released(b, ResultsDeleted("ada", "b")) == [OTHER, BLOB]
    assert not b.machine.data.lasting


@pytest.mark.parametrize("by", ["global", "output"])
def test_what_else_lasts_keeps_its_blob(bench, make, by):
    b = bench(make.task("w", method="any"))
    at = b.running("w")[0]
    b.say(at, ResultWritten(at, "a", BLOB))
    if by == "global":
        b.feed(GlobalSet("model", BLOB))
    else:
        b.say(at, TaskEnded(at, "FINISHED", 0.0, output=BLOB))
    assert released(b, ResultsDeleted("ada")) == []


def test_a_blob_that_was_said_too_goes_with_the_later_of_the_two(bench, make):
    b = bench(make.task("w", method="any"), max_iteration=3)
    at = b.running("w")[0]
    b.say(at, ResultWritten(at, "a", BLOB), Broadcasted(at, "t", BLOB))
    assert released(b, ResultsDeleted("ada")) == []  # it may still be read
    b.actions.clear()
    b.end(at)
    assert [act.blobs for act in b.actions if isinstance(act, Released)] == [(BLOB,)]

    at = b.running("w")[0]
    b.say(at, ResultWritten(at, "a", OTHER), Broadcasted(at, "t", OTHER))
    b.actions.clear()
    b.end(at)
    assert not [act for act in b.actions if isinstance(act, Released)]
    assert released(b, ResultsDeleted("ada")) == [OTHER]


def test_values_that_stay_on_nodes_are_freed_there_once_no_result_has_them(bench, make):
    b = bench(make.task("w"), nodes=2)
    one, other = b.running("w").values()
    here, there = b.node_of(one), b.node_of(other)
    b.say(one, *(ResultWritten(one, tag, BLOB, held=True) for tag in "ab"))
    b.say(other, ResultWritten(other, "a", BLOB, held=True), ResultWritten(other, "b", OTHER))
    staying = b.machine.data.staying
    assert staying.at(BLOB).keys() == {here, there}
    assert freed(b, ResultsDeleted("ada", "a")) == [(there, (BLOB.digest,))]  # b has it still
    assert staying.at(BLOB).keys() == {here}
    assert freed(b, ResultsDeleted("ada", "b")) == [(here, (BLOB.digest,))]
    assert staying.at(BLOB) == {}
    assert b.replayed().data == b.machine.data
    b.actions.clear()
    for _ in range(2):
        b.say(one, ResultWritten(one, "a", BLOB, held=True))
    assert staying.at(BLOB).keys() == {here}
    assert BLOB.digest not in staying.freed[here]
    told = [act for act in b.actions if isinstance(act, Needed | Acknowledge)]
    assert told[0] == Needed(here, BLOB.digest)  # before the node may forget that it told of it
    assert [type(act) for act in told[1:]] == [Acknowledge] * 2


def freed(b, event):
    return [(act.node_id, act.digests) for act in b.feed(event) if isinstance(act, Freed)]
