"""Progress in a loop is thinned out, and its last word is told."""

from __future__ import annotations

from manta.node.tasks.progress import BURST, PER_SECOND, ProgressGate
from manta.protocol.node import Instance, Progressed

AT = Instance("s", "worker", 0, 0)


def told(number: int) -> Progressed:
    return Progressed(AT, number / 1000, "", 0.0)


def test_the_first_calls_are_told_at_once_and_then_some_a_second() -> None:
    gate = ProgressGate()
    taken = [number for number in range(1000) if gate.takes(told(number), 100 + number / 100)]
    assert taken[:BURST] == list(range(BURST))
    assert BURST + 9.9 * PER_SECOND - 1 <= len(taken) <= BURST + 10 * PER_SECOND


def test_what_was_held_back_last_is_told_in_the_end() -> None:
    gate = ProgressGate()
    assert gate.rest() is None
    for number in range(100):
        gate.takes(told(number), 1.0)
    assert gate.rest() == told(99)
    assert gate.rest() is None
    gate.takes(told(100), 1.0)
    assert gate.takes(told(101), 2.0)
    assert gate.rest() is None, "a later one was told"
