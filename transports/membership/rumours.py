"""News that is told on: which, how often, and what of it fits into a message.

Each piece of news rides on what is sent anyway, and on gossip of its own while there is any, those
first that were told least often. Of a peer only the latest claim is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from manta.transports.membership.messages import FIXED, ROOM, Claim, size_of


@dataclass(eq=False)
class _Rumour:
    claim: Claim
    size: int
    left: int
    """How often it is to be told; 0 if a later claim took its place."""


class Rumours:
    def __init__(self) -> None:
        self._latest: dict[str, _Rumour] = {}
        """By the peer that they are about."""
        self._queue: deque[_Rumour] = deque()
        """Those that were told least often first."""

    def __bool__(self) -> bool:
        return bool(self._latest)

    def put(self, claim: Claim, copies: int) -> None:
        former = self._latest.get(claim.key)
        if former is not None:
            former.left = 0
        rumour = self._latest[claim.key] = _Rumour(claim, size_of(claim), copies)
        self._queue.appendleft(rumour)

    def drop(self, key: str) -> None:
        rumour = self._latest.pop(key, None)
        if rumour is not None:
            rumour.left = 0

    def take(self, first: Iterable[Claim] = ()) -> tuple[Claim, ...]:
        """What is told in the next message; `first` is, in any case."""
        if not self._latest and not first:
            return ()
        taken = list(first)
        about = {claim.key for claim in taken}
        room = ROOM - FIXED - sum(map(size_of, taken))
        told: list[_Rumour] = []
        for _ in range(len(self._queue)):
            rumour = self._queue.popleft()
            if not rumour.left:
                continue
            if rumour.size > room:
                self._queue.appendleft(rumour)
                break
            rumour.left -= 1
            if rumour.claim.key not in about:
                room -= rumour.size
                taken.append(rumour.claim)
            told.append(rumour)
        for rumour in told:
            if rumour.left:
                self._queue.append(rumour)
            else:
                del self._latest[rumour.claim.key]
        return tuple(taken)
