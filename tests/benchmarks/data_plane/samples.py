"""What repeated measurements come to: medians, spreads and ratios. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """Of some samples: the one in the middle, the least, the greatest, and how many there are."""

    median: float
    low: float
    high: float
    samples: int


def spread(samples: Sequence[float]) -> Spread:
    return Spread(statistics.median(samples), min(samples), max(samples), len(samples))


def percentile(samples: Sequence[float], fraction: float) -> float:
    """The least sample that at least this fraction of them does not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -int(-fraction * len(ordered) // 1) - 1)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """How many times theirs ours is; None where theirs is nothing.

    Where both have as many samples they were taken in turns, and it is the median of each turn's
    ratio: what else the machine did meanwhile weighs on both sides of it.
    """
    if len(ours) == len(theirs) and all(theirs):
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    middle = statistics.median(theirs)
    return statistics.median(ours) / middle if middle else None
