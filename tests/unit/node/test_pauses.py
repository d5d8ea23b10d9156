"""Pauses before what has failed is begun once more."""

from __future__ import annotations

from manta.node.plane.pauses import LONGEST, STEADY, Pauses


def test_pauses_grow_up_to_the_longest() -> None:
    pauses, now, found = Pauses(), 100.0, []
    for _ in range(9):
        pauses.began(now)
        found.append(pauses.failed(now + 0.5))
        now = pauses.until
    assert found == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST, LONGEST, LONGEST]


def test_what_could_not_even_be_begun_counts_as_well() -> None:
    pauses = Pauses()
    assert [pauses.failed(float(now)) for now in range(4)] == [0.0, 1.0, 2.0, 4.0]


def test_after_a_long_life_the_count_begins_anew() -> None:
    pauses = Pauses()
    assert [pauses.failed(0.0) for _ in range(5)][-1] == 8.0
    pauses.began(10.0)
    assert pauses.failed(10.0 + STEADY) == 0.0
    assert pauses.failed(10.0 + STEADY) == 1.0
