"""Whether your process runs, as its peer's process sees it. Pure.

It is asked in each beat, and answers from a thread of its own. Where code holds Python's lock for
long no answer comes, but a thread is seen that runs or waits for the CPU. A process that is stopped
(SIGSTOP, a debugger, a freezer) shows neither.
"""

from __future__ import annotations

BEAT = 0.25
"""Seconds between two looks."""
QUIET = 2.0
"""Seconds without either, after which it is taken to stand still."""


class Pulse:
    def __init__(self, now: float) -> None:
        self._alive = self._looked = now

    def heard(self, now: float) -> None:
        """It has said something."""
        self._alive = now

    def is_quiet(self, now: float) -> bool:
        """Whether the last beat was not answered: then it is worth looking what it does."""
        return now - self._alive > BEAT

    def stands_still(self, now: float, *, runs: bool) -> bool:
        """Looks, as in each beat; `runs`: a thread of it was seen to run."""
        late = now - self._looked - BEAT
        if late > BEAT:  # who looks was held up itself, and has yet to read what was said
            self._alive += late
        self._looked = now
        if runs:
            self._alive = now
        return now - self._alive > QUIET
