"""What part of the work each instance of a task should take, by how fast it was."""

from __future__ import annotations

from collections.abc import Sequence

SHORTEST = 1e-6
"""Seconds; a shorter time measures nothing."""


def shares(size: int, before: Sequence[float], took: Sequence[float | None]) -> tuple[float, ...]:
    """The shares by rank; they add up to 1.

    `before` are the shares of the previous iteration, `took` the seconds that each instance
    computed in it: one that did a share s in t seconds does s / t in one. Those that were not
    measured are taken to be as fast as the others on average; without a measure all are equal.
    """
    speeds: list[float | None] = []
    for rank in range(size):
        seconds = took[rank] if rank < len(took) else None
        known = seconds is not None and seconds > SHORTEST and rank < len(before)
        speeds.append(before[rank] / seconds if known and seconds else None)
    measured = [speed for speed in speeds if speed is not None]
    mean = sum(measured) / len(measured) if measured else 1.0
    filled = [mean if speed is None else speed for speed in speeds]
    total = sum(filled)
    return tuple(speed / total for speed in filled)
