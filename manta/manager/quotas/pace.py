"""How fast what tasks report is taken: log lines, metrics and progress, of all swarms together.

Such reports may take a share of one core; what users ask, and what else nodes tell, has the rest.
A few tens of thousands are taken as they come; where there are more, a swarm books its next piece
and handles it when that is due. So swarms take turns, and whose tasks report little do not wait for
those who flood: of each owner a little is taken at once.
"""

from __future__ import annotations

import threading

from manta.manager.quotas.rate import Rate

REPORT, BYTE = 10e-6, 10e-9
"""Seconds of a core that a report costs, from its message to the database, and each of its bytes
beside."""
OWNERS = 1000
"""Of whom is known what they took, besides those who took something lately."""


def cost(size: int) -> float:
    """Of a report of so many bytes, in seconds of a core."""
    return REPORT + BYTE * size


ALL, LITTLE = Rate(0.25, 0.25), Rate(0.02, 0.05)
"""Of all owners, and what is taken at once of each of them: seconds of a core."""


class Pace:
    """May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due = float("-inf")
        self._due_of: dict[str, float] = {}

    def book(self, owner: str, seconds: float, now: float) -> float:
        """Books so many seconds of a core for an owner of clusters; returns after how many seconds
        they may be taken."""
        if not seconds:
            return 0.0
        with self._lock:
            begin = ALL.begin(self._due, now)
            self._due = ALL.after(self._due, seconds, now)
            own = self._due_of.get(owner, now)
            if begin <= now or LITTLE.begin(own, now) > now:
                return begin - now
            if len(self._due_of) >= OWNERS:
                self._due_of = {who: due for who, due in self._due_of.items() if due > now}
            self._due_of[owner] = LITTLE.after(own, seconds, now)
            return 0.0
