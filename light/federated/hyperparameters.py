"""Checks hyperparameters where they are given. Each function raises TypeError or ValueError."""

from __future__ import annotations

import math

from manta.light import arguments


def positive(what: str, value: float) -> None:
    """A finite number above 0."""
    if not 0 < arguments.number(what, value) < math.inf:
        raise ValueError(f"{what} is {value!r:.60}: give a number above 0.")


def not_negative(what: str, value: float) -> None:
    """A finite number, 0 or more."""
    if not 0 <= arguments.number(what, value) < math.inf:
        raise ValueError(f"{what} is {value!r:.60}: give 0 or more.")


def decay(what: str, value: float) -> None:
    """A factor from 0 up to, and without, 1."""
    if not 0 <= arguments.number(what, value) < 1:
        raise ValueError(f"{what} is {value!r:.60}: give a factor of 0 or more and below 1.")


def count(what: str, value: int, least: int = 1) -> None:
    """A whole number of at least `least`."""
    if arguments.whole(what, value) < least:
        raise ValueError(f"{what} is {value!r:.60}: give {least} or more.")
