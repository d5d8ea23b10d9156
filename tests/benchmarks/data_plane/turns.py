"""Sides measured in turns, since the machine's load changes, within the time that there is. Pure
but for what it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

Side = Callable[[], Sequence[float]]
"""Measures once, and returns one sample or several. Raises NotMeasured."""


class NotMeasured(Exception):
    """Something can't be measured here; the text says why, without a full stop."""


@dataclass
class Measured:
    samples: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Why a side has no samples."""
    notes: list[str] = field(default_factory=list)


class Measure(Protocol):
    """`alternate`, with the time that a figure has."""

    def __call__(
        self,
        sides: Mapping[str, Side],
        *,
        turns: int = ...,
        least: int = ...,
        warm_up: bool = ...,
    ) -> Measured: ...


def alternate(
    sides: Mapping[str, Side],
    *,
    seconds: float,
    clock: Callable[[], float],
    turns: int = 7,
    least: int = 1,
    warm_up: bool = True,
) -> Measured:
    """Measures each side once in each of `turns`, after one that does not count, if it is to warm
    up.

    After `least` turns there is no other one that would end later than `seconds` after the first
    began. A side that can't be measured has no part in later turns, and its samples are dropped.
    """
    measured = Measured({name: [] for name in sides})

    def turn(counts: bool) -> None:
        for name in list(measured.samples):
            try:
                taken = sides[name]()
            except NotMeasured as reason:
                measured.missing[name] = str(reason)
                del measured.samples[name]
            else:
                measured.samples[name] += taken if counts else ()

    if warm_up:
        turn(counts=False)
    began = clock()
    for done in range(turns):
        passed = clock() - began
        if done >= least and passed / done * (done + 1) > seconds:
            break
        turn(counts=True)
    return measured


def allotted(left: float, wanted: float, later: float) -> float:
    """Seconds for a figure that wants `wanted`, while `left` are left for it and for those that
    come after it, which want `later`."""
    return wanted * min(1.0, max(0.0, left) / (wanted + later))
