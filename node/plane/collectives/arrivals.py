"""When a gather goes without those that are late, if its deadline is "auto". Pure.

The deadline is the median of the arrivals so far plus FACTOR times their median absolute deviation
(MAD), or LEAST seconds where that is more: the usual bound for outliers, which late arrivals do not
move (C. Leys et al., Detecting outliers: Do not use standard deviation around the mean, use
absolute deviation around the median, 2013; with 3 for what is normally distributed, and more here,
as times of work have a longer tail).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

FACTOR = 5.0
LEAST = 1.0
"""Seconds."""


def deadline(arrivals: Sequence[float], size: int) -> float | None:
    """In the time of `arrivals`, of `size` members; None until half of them, and two, are there."""
    if len(arrivals) < max(2, -(-size // 2)):
        return None
    middle = median(arrivals)
    spread = median(abs(at - middle) for at in arrivals)
    return middle + max(FACTOR * spread, LEAST)
