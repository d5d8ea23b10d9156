"""Room that swarms share: memory, disk, or descriptors, for what their tasks exchange. Pure.

No swarm is let take the last of it, whatever its tasks and nodes ask for: each may have so many
times what it leaves to others (a dynamic threshold: Choudhury and Hahne 1998). One that is alone
has seven eighths, the next one seven eighths of the rest, and so on.

Where a swarm lacks room, what can be given back goes: what costs least first, and of that the
swarm's own before that of others. Nothing goes where all of it would not be enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import NamedTuple

MULTIPLE = 7
"""How many times what is left a swarm may take."""

Whose = Callable[[str], bool]
"""Is it of such a swarm, by its id?"""


class Cost(IntEnum):
    """Of what is given back."""

    LITTLE = 0
    """It can be had again, or nothing uses it."""
    SOME = 1
    """Others may need it, should they fail."""
    MUCH = 2
    """Somebody may ask for it. A swarm's own does not go, as that is there to ask."""


class Spare(NamedTuple):
    """What takes room, and can be given back."""

    sizes: Callable[[], Mapping[str, int]]
    """How much of the room that is, by swarm."""
    give_back: Callable[[Whose], bool]
    """Some of it, of such a swarm. False if there is none."""


class SharedRoom:
    """`most` of one thing."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._by_swarm: Counter[str] = Counter()
        self._spares: dict[Cost, list[Spare]] = {cost: [] for cost in Cost}

    def of(self, swarm_id: str) -> int:
        """What the swarm has."""
        return self._by_swarm[swarm_id]

    def allows(self, swarm_id: str, *, spare: int = 0) -> int:
        """What the swarm may have in all, if `spare` of what others have is given back."""
        others = self.used - self.of(swarm_id) - spare
        return max(0, self.most - others) * MULTIPLE // (MULTIPLE + 1)

    def fits(self, swarm_id: str, size: int, *, own: int = 0, spare: int = 0) -> bool:
        """May the swarm take so much more, if `own` of what it has, and `spare` of what others
        have, is given back?"""
        return not size or self.of(swarm_id) - own + size <= self.allows(swarm_id, spare=spare)

    def take(self, swarm_id: str, size: int) -> None:
        self.used += size
        self._by_swarm[swarm_id] += size

    def give(self, swarm_id: str, size: int) -> None:
        self.used -= size
        self._by_swarm[swarm_id] -= size
        if not self._by_swarm[swarm_id]:
            del self._by_swarm[swarm_id]

    # --- what can be given back ---------------------------------------------------------------

    def offer(self, cost: Cost, spare: Spare) -> None:
        """What goes where a swarm lacks room; of one cost, what was offered first."""
        self._spares[cost].append(spare)

    def make(self, swarm_id: str, size: int) -> bool:
        """Has as much be given back as it takes for the swarm to take so much more. False if it
        may not all the same."""
        for cost in Cost:
            if self.fits(swarm_id, size):
                return True
            if self._would_do(swarm_id, size, cost):
                self._give_back(swarm_id, size, cost)
        return self.fits(swarm_id, size)

    def _would_do(self, swarm_id: str, size: int, least: Cost) -> bool:
        """Is it enough if all is given back that costs as much or more?"""
        own = others = 0
        for cost in Cost:
            for spare in self._spares[cost] if cost >= least else ():
                sizes = spare.sizes()
                mine = sizes.get(swarm_id, 0)
                own += mine if cost < Cost.MUCH else 0
                others += sum(sizes.values()) - mine
        return self.fits(swarm_id, size, own=own, spare=others)

    def _give_back(self, swarm_id: str, size: int, cost: Cost) -> None:
        order = (swarm_id.__eq__, swarm_id.__ne__) if cost < Cost.MUCH else (swarm_id.__ne__,)
        for whose in order:
            for spare in self._spares[cost]:
                while not self.fits(swarm_id, size) and spare.give_back(whose):
                    pass
