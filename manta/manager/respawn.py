"""Whether a manager that has ended is started again, and when. Pure.

it ended                                            what is done
on purpose: told to stop, or by itself with 0, 2    over
before it was up, at the first start                over: who started it is told
any other way, having lived for long                again, after the first pause
any other way, quickly, for the n-th time in a row  again, after a pause that doubles
quickly, once more than `most` times                over: it gave up
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

GAVE_UP = 70
"""Exit code of a manager whose actors gave up; it had been up."""
ON_PURPOSE = (0, 2, 130, -signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP)
"""Exit codes, those of signals negative. A manager that is asked to stop before it can listen to
signals ends by them."""


@dataclass(frozen=True)
class RespawnLimits:
    """Times in seconds."""

    quick: float = 60.0  # who ends sooner after its start ends quickly
    most: int = 10  # quick ends in a row after which it is started again
    pause: float = 0.5  # before the next start, doubled with each quick end
    longest_pause: float = 30.0


@dataclass(frozen=True)
class Again:
    pause: float


@dataclass(frozen=True)
class Over:
    gave_up: bool


class Respawn:
    def __init__(self, limits: RespawnLimits) -> None:
        self._limits = limits
        self._quick = 0  # ends in a row
        self.starts_again = 0

    def ended(self, code: int, lived: float, *, was_up: bool, told: bool) -> Again | Over:
        """It ended with this exit code, after so many seconds.

        `was_up`: it had got to listen. `told`: it was told to stop.
        """
        limits = self._limits
        did_not_start = self.starts_again == 0 and not was_up and code != GAVE_UP
        if told or code in ON_PURPOSE or did_not_start:
            return Over(gave_up=False)
        self._quick = self._quick + 1 if lived < limits.quick else 1
        if self._quick > limits.most:
            return Over(gave_up=True)
        self.starts_again += 1
        return Again(min(limits.longest_pause, limits.pause * 2.0 ** (self._quick - 1)))


def how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}"
