"""The blob of a global that was overwritten goes once no attempt may be reading it."""

from __future__ import annotations

import pytest

from manta.manager.swarm import references
from manta.manager.swarm.events import EntriesReceived, GlobalSet, Paused, Released, Resumed
from manta.protocol.exchange import Broadcasted
from manta.protocol.node import GlobalWritten, ResultWritten, TaskEnded
from manta.protocol.values import BlobRef

FIRST, SECOND, THIRD = (BlobRef(letter * 64, 1) for letter in "abc")


@pytest.fixture
def iterations(bench, make):
    """Two tasks, one after the other, in three iterations."""
    return bench(
        make.task("worker", method="any"),
        make.task("last", "worker", method="any"),
        globals={"model": FIRST},
        max_iteration=3,
    )


def released(b) -> list[BlobRef]:
    """Since it was asked last."""
    found = [blob for act in b.actions if isinstance(act, Released) for blob in act.blobs]
    b.actions.clear()
    return found


def write(b, alias: str, *entries: tuple[str, BlobRef]) -> None:
    at = b.running(alias)[0]
    b.end(at, entries=[GlobalWritten(at, tag, blob) for tag, blob in entries])


def test_it_goes_when_its_iteration_is_over_and_not_before(iterations):
    b = iterations
    write(b, "worker", ("model", SECOND))
    assert released(b) == []  # who runs beside it may have been told of it
    write(b, "last", ("model", THIRD))
    assert released(b) == [FIRST, SECOND]
    b.finish("worker")
    write(b, "last", ("model", FIRST))
    assert released(b) == [THIRD]
    assert b.replayed().data == b.machine.data


def test_the_value_that_counts_stays(iterations):
    b = iterations
    for _ in range(3):
        b.finish("worker", "last")
    assert b.state == "COMPLETED"
    assert released(b) == []
    assert b.machine.data.needed([FIRST]) == {FIRST.digest}


def test_one_that_is_written_again_stays(iterations):
    b = iterations
    write(b, "worker", ("model", SECOND), ("model", FIRST))
    b.finish("last")
    assert released(b) == [SECOND]


def test_what_was_overwritten_by_a_small_value_goes_too(iterations, make):
    b = iterations
    b.feed(GlobalSet("model", make.value(1)))
    b.finish("worker", "last")
    assert released(b) == [FIRST]


@pytest.mark.parametrize("by", ["result", "global", "output"])
def test_what_something_else_names_stays(iterations, by):
    b = iterations
    at = b.running("worker")[0]
    if by == "result":
        b.say(at, ResultWritten(at, "r", FIRST))
    elif by == "global":
        b.say(at, GlobalWritten(at, "best", FIRST))
    output = FIRST if by == "output" else None
    b.say(at, GlobalWritten(at, "model", SECOND), TaskEnded(at, "FINISHED", 0.0, output))
    b.finish("last")
    assert released(b) == []


def test_what_is_said_too_goes_once(iterations):
    b = iterations
    at = b.running("worker")[0]
    b.say(at, Broadcasted(at, "model", FIRST), GlobalWritten(at, "model", SECOND))
    b.end(at)
    b.finish("last")
    assert released(b) == [FIRST]


def test_it_goes_with_the_swarm_that_ends_in_mid_iteration(iterations):
    b = iterations
    write(b, "worker", ("model", SECOND))
    b.end(b.running("last")[0], "FAILED", "broken")
    assert b.state == "FAILED"
    assert released(b) == [FIRST]


def test_a_paused_iteration_is_not_over(iterations):
    b = iterations
    write(b, "worker", ("model", SECOND))
    b.feed(Paused())
    b.finish("last")
    assert released(b) == []
    b.feed(Resumed())
    assert released(b) == [FIRST]


def test_what_the_machine_passes_over_is_needed_by_nobody(iterations):
    b = iterations
    at = b.running("worker")[0]
    elsewhere = next(node.id for node in b.nodes if node.id != b.node_of(at))
    strange = EntriesReceived(elsewhere, 1, (GlobalWritten(at, "model", SECOND),))
    b.feed(strange)
    assert b.machine.data.needed(references.of_event(strange)) == set()
    late = EntriesReceived(b.node_of(at), 7, (GlobalWritten(at, "model", THIRD),))
    b.feed(late)  # beyond a gap
    assert b.machine.data.needed(references.of_event(late)) == set()
    b.say(at, GlobalWritten(at, "model", THIRD))
    assert b.machine.data.needed(references.of_event(late)) == {THIRD.digest}
