"""Rates with a burst: the generic cell rate algorithm, as virtual scheduling (ITU-T I.371, A).

Who takes something keeps the time at which all of it would be done at the rate alone.
"""

from __future__ import annotations

from typing import NamedTuple


class Rate(NamedTuple):
    """Of anything that can be counted."""

    a_second: float
    burst: float
    """What may be taken at once, by who took nothing before."""

    def begin(self, due: float, now: float) -> float:
        """When the next may be taken, where all before is done at `due`."""
        return max(now, due - self.burst / self.a_second)

    def after(self, due: float, taken: float, now: float) -> float:
        """When all is done, that included."""
        return max(now, due) + taken / self.a_second
