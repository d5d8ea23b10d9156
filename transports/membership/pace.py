"""How fast a mesh of some size probes, tells and gives up: the one place with numbers.

*Period*: 0.25 s for 8 peers, more by the logarithm of their number, up to 1 s. A small mesh is one
machine or room, where a frozen peer is to be named within 3 s.

*Steps* of gossip, five in a period: news reaches 1,000 peers in about 7 with 10 % loss.

*Suspicion*, when others confirm it: 0.8 periods for each factor of 10 in the number of peers, in
which the suspect hears of it and its refutation comes back; and 1 s at least, since imports and
collections of garbage take processes as long. Of one accuser alone: three times as long, as it may
be the one that is slow. Of a peer whose link the system closed: one period, as it has ended, most
likely, and is to be named within a second.

A probe has a period to be answered. It is repeated in each step of it, and in two of these through
three others each. So with 10 % of all messages lost about one in two million fails (0.19^5 *
0.344^6), and the bytes that suspicions cost do not grow with the number of peers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

PERIOD, LONGEST = 0.25, 1.0
PATIENCE = 1.0
"""Seconds that a suspect has at least to answer, unless its link was closed."""
STEPS = 5
"""Of a period: when a probe is repeated, and news is told."""
HELPED = 2
"""Steps at which others are asked to probe as well."""
HELPERS = 3
FANOUT = 3
"""Peers that are told news in each step."""
CONFIRMATIONS = 3
"""Accusers, beside the first, after which a suspicion lasts no longer than the shortest."""
RECENT = 3.0
"""Periods for which a peer that was heard is believed to live, whatever others say, until it was
asked itself."""
RECONNECT = 8.0
"""Periods after which one of the dead is asked again: the mesh may have been parted."""
COMPARE = 30.0
"""Periods after which views are compared with some other peer."""


@dataclass(frozen=True)
class Pace:
    """Seconds, for a mesh of some size."""

    period: float
    shortest: float
    """That a suspicion lasts once enough others confirm it."""
    longest: float
    confirmations: int
    """How many are enough."""
    copies: int
    """How often a peer tells each piece of news: a few times the logarithm of all."""

    @property
    def step(self) -> float:
        return self.period / STEPS


@lru_cache(maxsize=1024)
def pace_of(size: int, period: float = PERIOD, patience: float = PATIENCE) -> Pace:
    """`size` counts all peers, this one too. `period` is that of 8 peers."""
    scaled = min(max(LONGEST, period), period * max(1.0, math.log2(max(size, 1)) / 3))
    shortest = max(patience, 0.8 * scaled * math.log10(max(size, 10)))
    confirmations = max(0, min(CONFIRMATIONS, size - 2))
    copies = 4 * math.ceil(math.log10(size + 1))
    return Pace(scaled, shortest, 3 * shortest, confirmations, copies)
