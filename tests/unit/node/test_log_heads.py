"""When the manager is told where a node's audit log ends."""

from __future__ import annotations

from manta.audit.records import Head
from manta.node.link.log_heads import EVERY, SOON, LogHeads

KEY = "a" * 64


def head(number: int) -> Head:
    return Head(number, f"{number:064}")


def test_it_is_told_at_once_and_then_when_something_was_added() -> None:
    heads = LogHeads(KEY)
    assert heads.due(Head(), 0.0) is None  # nothing is recorded yet
    told = heads.due(head(5), 1.0)
    assert told is not None
    assert (told.number, told.digest, told.key) == (5, head(5).digest, KEY)
    assert heads.due(head(50), EVERY) is None  # too soon
    assert heads.due(head(50), EVERY + 1) is not None
    # What the manager's answer adds is nothing to tell of.
    assert heads.due(head(51), 9 * EVERY) is None
    assert heads.due(head(52), 9 * EVERY) is not None


def test_over_a_new_link_it_is_told_soon_and_a_link_that_comes_and_goes_fills_no_log() -> None:
    heads = LogHeads(KEY)
    told = 0
    for second in range(300):
        heads.registered()
        told += heads.due(head(5), float(second)) is not None
    assert told == 300 / SOON
