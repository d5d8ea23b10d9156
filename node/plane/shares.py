"""Room that swarms share: memory, disk, or descriptors, for the values of their tasks. Pure.

No swarm is let take the last of it, whatever its tasks and nodes ask for: each may have so many
times what it leaves to others (a dynamic threshold: Choudhury and Hahne 1998). One that is alone
has seven eighths, the next one seven eighths of the rest, and so on.
"""

from __future__ import annotations

from collections import Counter

MULTIPLE = 7
"""How many times what is left a swarm may take."""


class SharedRoom:
    """`most` of one thing. What no swarm is named for is bounded by that alone."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.used = 0
        self._by_swarm: Counter[str] = Counter()

    def of(self, swarm_id: str) -> int:
        """What the swarm takes."""
        return self._by_swarm[swarm_id]

    def fits(self, swarm_id: str, size: int, *, spare: int = 0) -> bool:
        """Whether the swarm may take so much more, if `spare` of what others take is given back."""
        left = self.most - self.used + spare - size
        if left < 0 or not swarm_id:
            return left >= 0
        return self._by_swarm[swarm_id] + size <= MULTIPLE * left

    def could_fit(self, swarm_id: str, size: int) -> bool:
        """Whether the swarm might take so much if nobody else took anything."""
        left = self.most - size
        return left >= 0 if not swarm_id else size <= MULTIPLE * left

    def take(self, swarm_id: str, size: int) -> None:
        self.used += size
        self._by_swarm[swarm_id] += size

    def give(self, swarm_id: str, size: int) -> None:
        self.used -= size
        self._by_swarm[swarm_id] -= size
        if not self._by_swarm[swarm_id]:
            del self._by_swarm[swarm_id]
