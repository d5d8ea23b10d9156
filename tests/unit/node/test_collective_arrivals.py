"""When a gather with deadline="auto" goes without those that are late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.node.plane.collectives.arrivals import FACTOR, LEAST, deadline


def test_it_needs_half_of_the_values_and_two() -> None:
    assert deadline([], 4) is None
    assert deadline([1.0], 2) is None
    assert deadline([1.0, 1.0], 5) is None
    assert deadline([1.0, 1.0, 1.0], 5) == 1.0 + LEAST


def test_it_follows_the_median_and_the_deviation_from_it() -> None:
    assert deadline([10.0, 20.0, 30.0], 4) == 20.0 + FACTOR * 10.0


@given(st.lists(st.floats(0, 1e6), min_size=4, max_size=50), st.floats(0, 1e6))
def test_one_late_arrival_hardly_moves_it(arrivals: list[float], late: float) -> None:
    before = deadline(arrivals, len(arrivals))
    after = deadline([*arrivals, max(arrivals) + late], len(arrivals) + 1)
    assert before is not None
    assert after is not None
    assert after <= max(arrivals) * (2 * FACTOR + 1) + LEAST
