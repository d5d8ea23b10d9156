"""What Lifeguard adds to SWIM (Dadgar, Phillips and Currey 2018): who is slow accuses slowly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from manta.transports.membership.pace import Pace

_WORST = 8


class Health:
    """A peer's doubt in itself (local health multiplier): probes take 1 + `doubt` times as long.

    It grows when a probe fails though others should have answered, when this peer has to refute,
    and when it overslept.
    """

    def __init__(self) -> None:
        self.doubt = 0

    def worse(self, by: int = 1) -> None:
        self.doubt = min(_WORST, self.doubt + by)

    def better(self) -> None:
        if self.doubt:
            self.doubt -= 1


@dataclass(eq=False)
class Suspicion:
    """That a peer is dead. It lasts the less the more others confirm it (dogpile)."""

    incarnation: int
    since: float
    pace: Pace
    accusers: set[str]
    """At most one more than confirmations are needed."""
    is_closed: bool = False
    """Did its link end here?"""
    has_left: bool = False
    """Do others say that it left?"""
    is_certain: bool = False
    """Did others give it up? Then their number does not matter."""
    asked: float = field(init=False, default=-math.inf)

    def confirm(self, by: str) -> bool:
        """Whether that one is a new accuser, and others may be told."""
        if by in self.accusers or len(self.accusers) > self.pace.confirmations:
            return False
        self.accusers.add(by)
        return True

    @property
    def due(self) -> float:
        """When it becomes certainty."""
        if self.is_closed:
            return self.since + self.pace.period
        shortest, longest = self.pace.shortest, self.pace.longest
        enough = self.pace.confirmations
        if self.is_certain or not enough:
            return self.since + shortest
        part = math.log(len(self.accusers)) / math.log(enough + 1)
        return self.since + max(shortest, longest - (longest - shortest) * part)
