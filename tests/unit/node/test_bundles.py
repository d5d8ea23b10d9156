"""What a node keeps of an attempt that failed, and what its owner holds back."""

from __future__ import annotations

import pytest

from manta.node.task_server.messages import How
from manta.node.tasks.bundles import redacted, timeline, used
from manta.protocol.bundle import PARTS, Bundle, Moment, Usage
from manta.protocol.node import Instance, TaskEnded, TaskError, Timings
from manta.protocol.values import BlobRef

WHOLE = TaskError(
    "ValueError",
    "worker.0 raised ValueError.",
    "line 3 in main",
    ("the last line",),
    Bundle(
        "bwrap",
        -9,
        True,
        Usage(memory=5, memory_limit=6),
        "image@sha256:0",
        "3.11",
        BlobRef("0" * 64, 10),
        (Moment("ended", 1.0),),
        "Current thread",
    ),
)
SHOWS = {
    "traceback": "line 3 in main",
    "lines": "the last line",
    "exit": "-9",
    "usage": "memory=5",
    "image": "sha256:0",
    "packages": "BlobRef",
    "timeline": "Moment",
    "stacks": "Current thread",
}
ENDED = TaskEnded(
    Instance("s", "worker", 0, 0),
    "FAILED",
    110.0,
    error=WHOLE,
    timings=Timings(queued=1.0, preparing=2.0, starting=3.0),
)


def test_nothing_is_held_back_unless_the_owner_says_so() -> None:
    assert redacted(WHOLE, ()) is WHOLE


@pytest.mark.parametrize("part", PARTS)
def test_what_the_owner_holds_back_is_left_out_and_said(part: str) -> None:
    found = redacted(WHOLE, (part,))
    assert found.bundle is not None
    assert found.bundle.redacted == (part,)
    shown = repr(found)
    assert SHOWS[part] in repr(WHOLE)
    assert SHOWS[part] not in shown
    assert all(said in shown for other, said in SHOWS.items() if other != part)
    assert found.sentence == WHOLE.sentence


def test_all_that_can_be_held_back_is() -> None:
    found = redacted(WHOLE, PARTS)
    assert found.bundle == Bundle("bwrap", redacted=tuple(sorted(PARTS)))


def test_a_timeline_is_in_order_and_within_the_attempt() -> None:
    second = 10**9
    moments = (100 * second, 101 * second, 0, 99 * second, 10**6 * second)
    assert list(timeline(ENDED, 100.0, moments)) == [
        Moment("queued", 94.0),
        Moment("begun", 100.0),
        Moment("imported", 101.0),
        Moment("called", 101.0),
        Moment("returned", 110.0),
        Moment("ended", 110.0),
    ]


def test_what_never_began_was_queued_and_ended() -> None:
    assert list(timeline(ENDED, None, ())) == [Moment("queued", 104.0), Moment("ended", 110.0)]


def test_memory_is_the_most_that_is_known_and_cpu_that_of_the_attempt() -> None:
    measured = Usage(memory=10, cpu=5.0, processes=3)
    assert used(measured, How(memory=20, cpu=1.0)) == Usage(memory=20, cpu=1.0, processes=3)
    assert used(measured, How()) == measured
    assert used(Usage(), How()) == Usage()
