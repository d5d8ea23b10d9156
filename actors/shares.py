"""What a peer may have waiting in the mailboxes of this process.

All links of one user or node have one share of them, so that none fills the mailbox of an actor
that serves many. It is counted by who delivers, on the I/O thread alone; whoever takes a message
out of a mailbox, on any thread, leaves its size there to be subtracted.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from manta.transports.security.admission import Standing

if TYPE_CHECKING:
    from manta.transports.security.admission import Admission

MESSAGES, BYTES = 5_000, 32 << 20
GUEST_MESSAGES, GUEST_BYTES = 16, 256 << 10


class Share:
    """Of one user or node, or of a guest's key."""

    __slots__ = ("__weakref__", "_bytes", "_messages", "_taken", "take")

    def __init__(self) -> None:
        self._messages = 0
        self._bytes = 0
        self._taken: deque[int] = deque()
        self.take = self._taken.append
        """To be called with its size when a message was taken out of its mailbox; on any thread."""

    def put_if_few(self, size: int) -> bool:
        """Count one more, if even a guest may have so many. Those are still counted that were taken
        since the last `put`."""
        if self._messages >= GUEST_MESSAGES or self._bytes + size > GUEST_BYTES:
            return False
        self._messages += 1
        self._bytes += size
        return True

    def put(self, size: int, messages: int, bytes: int) -> bool:
        """Count one more, where so many may wait; False if it is one too many. A single one may be
        of any size."""
        taken = self._taken
        while taken:
            self._bytes -= taken.popleft()
            self._messages -= 1
        if self._messages and (self._messages >= messages or self._bytes + size > bytes):
            return False
        self._messages += 1
        self._bytes += size
        return True


class Shares:
    """Of the links of one listener."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._shares: WeakValueDictionary[str, Share] = WeakValueDictionary()

    def of(self, key: str) -> Share:
        owner = self._admission.owner_of(key)
        share = self._shares.get(owner)
        if share is None:
            share = self._shares[owner] = Share()
        return share

    def is_guest(self, key: str) -> bool:
        return self._admission.standing(key) is not Standing.KNOWN
