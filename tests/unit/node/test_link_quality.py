"""The quality of a link, from what was measured of it."""

from __future__ import annotations

import random

import pytest

from manta.node.link.quality import ENOUGH, SECONDS, LinkWindow, quality


@pytest.mark.parametrize(
    ("round_trip", "loss", "throughput", "low", "high"),
    [
        (0.0, 0.0, None, 1.0, 1.0),
        (0.001, 0.0, 500e6, 0.99, 1.0),
        (0.03, 0.0, None, 0.8, 0.9),
        (0.3, 0.0, None, 0.3, 0.5),
        (0.001, 0.1, None, 0.3, 0.5),
        (0.0, 1.0, None, 0.0, 0.0),
        (0.0, 0.0, 125_000.0, 0.5, 0.5),
        (0.0, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_what_the_documents_promise(
    round_trip: float, loss: float, throughput: float | None, low: float, high: float
) -> None:
    assert low <= quality(round_trip, loss, throughput) <= high


def test_it_falls_with_each_of_its_parts() -> None:
    rng = random.Random(1)
    for _ in range(200):
        trip, loss, through = rng.random(), rng.random() * 0.9, rng.random() * 1e7
        found = quality(trip, loss, through)
        assert 0 <= found <= 1
        assert quality(trip + 0.01, loss, through) < found
        assert quality(trip, loss + 0.01, through) < found
        assert quality(trip, loss, through * 0.9) < found


def test_nothing_measured_and_nothing_answered_are_no_link() -> None:
    window = LinkWindow()
    assert window.quality() == 0
    window.asked(None, 0.0)
    assert window.quality() == 0


def test_what_comes_as_late_as_a_retransmission_counts_as_lost() -> None:
    window = LinkWindow()
    for number in range(90):
        window.asked(0.001, float(number) / 10)
    assert window.quality() > 0.98
    for _ in range(5):
        window.asked(0.25, 9.0)
        window.asked(None, 9.0)
    assert window.quality() == pytest.approx(quality(0.001, 0.1))


def test_a_long_way_is_no_loss() -> None:
    window = LinkWindow()
    for _ in range(20):
        window.asked(0.3, 0.0)
    assert window.quality() == pytest.approx(quality(0.3, 0.0))


def test_only_the_last_measurements_count() -> None:
    window = LinkWindow()
    for _ in range(ENOUGH):
        window.asked(None, 0.0)
    for _ in range(ENOUGH):
        window.asked(0.001, 1.0)
    assert window.quality() > 0.98
    window.forget(SECONDS + 0.5)
    assert len(window) == ENOUGH
    window.forget(SECONDS + 1.5)
    assert len(window) == 0


def test_throughput_is_that_of_what_moved() -> None:
    window = LinkWindow()
    window.asked(0.0, 0.0)
    window.moved(125_000, 1.0)
    assert window.quality() == pytest.approx(0.5)
    window.moved(1_000_000_000, 1.0)
    assert window.quality() > 0.99
