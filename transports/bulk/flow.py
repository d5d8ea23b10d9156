"""The rules of one blob's transfer, as pure machines: no socket, no clock, no bytes.

The receiver grants credit: "I hold `received` bytes, send up to `limit`". The sender
sends chunks in order, never beyond the limit, and never has more under way to one peer
than that peer's `Allowance`, whatever was granted. So neither side keeps more for a
frozen peer than these bounds. The receiver takes the chunk that it waits for and ignores
any other; after a lost connection the opener says, or is told, where the receiver stands,
and the sender goes on from there.

    Sender    paused --start--> sending --credit: all received--> done
              sending --pause (connection lost, or asked again)--> paused
    Receiver  waiting --grant--> receiving --last chunk--> complete

All numbers are bytes, offsets count from the blob's start, times are seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from manta.transports.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Hashable

Who = TypeVar("Who", bound="Hashable")


class FlowViolation(RemoteProtocolError):
    """The peer broke the rules above."""


@dataclass(frozen=True)
class Piece:
    """To be sent: this part of the blob."""

    offset: int
    length: int


@dataclass(frozen=True)
class Credit:
    """To be told to the sender: what is here, and up to where it may send."""

    received: int
    limit: int


class Allowance:
    """Bytes that may be under way to one peer, over all transfers."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.used = 0

    def take(self, length: int) -> bool:
        """One chunk is always allowed, however large."""
        if self.used and self.used + length > self._total:
            return False
        self.used += length
        return True

    def give(self, length: int) -> None:
        self.used -= length


class Budget(Generic[Who]):
    """Windows that one peer's transfers have been granted, first come first served."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._granted: dict[Who, int] = {}
        self._waiting: deque[tuple[Who, int]] = deque()

    @property
    def granted(self) -> int:
        return sum(self._granted.values())

    @property
    def waiting(self) -> bool:
        """Is anybody's turn yet to come?"""
        return bool(self._waiting)

    def ask(self, who: Who, window: int) -> bool:
        """Whether it is granted now; else `free` will name it one day."""
        self._waiting.append((who, window))
        return who in self._admit()

    def free(self, who: Who) -> list[Who]:
        """A transfer is over, or gives up waiting; returns those whose turn it is now."""
        if self._granted.pop(who, None) is None:
            self._waiting = deque(entry for entry in self._waiting if entry[0] != who)
        return self._admit()

    def _admit(self) -> list[Who]:
        admitted = []
        while self._waiting:
            who, window = self._waiting[0]
            if self._granted and self.granted + window > self._total:
                break
            self._waiting.popleft()
            self._granted[who] = window
            admitted.append(who)
        return admitted


class Sender:
    """One blob on its way out."""

    def __init__(self, size: int, chunk: int, allowance: Allowance) -> None:
        self._size = size
        self._chunk = chunk
        self._allowance = allowance
        self._next = 0
        self.acknowledged = 0
        self._limit = 0
        self.paused = True

    @property
    def done(self) -> bool:
        """Has the receiver got it all?"""
        return not self.paused and self.acknowledged == self._size

    def start(self, received: int, limit: int) -> None:
        """The receiver stands there: go on from there. Raises FlowViolation."""
        if not received <= limit <= self._size:
            raise FlowViolation(f"start at {received} of {self._size}, limit {limit}")
        self.pause()
        self._next = self.acknowledged = received
        self._limit = limit
        self.paused = False

    def credit(self, received: int, limit: int) -> None:
        """Raises FlowViolation."""
        if self.paused:  # granted before the connection was lost
            return
        if not self.acknowledged <= received <= self._next or limit > self._size:
            raise FlowViolation(f"credit for {received}, limit {limit}; {self._next} were sent")
        self._allowance.give(received - self.acknowledged)
        self.acknowledged = received
        self._limit = max(self._limit, limit)

    def take(self) -> Piece | None:
        """The next chunk, as soon as there is credit for one; it counts as sent."""
        length = min(self._chunk, self._limit - self._next)
        if self.paused or length <= 0 or not self._allowance.take(length):
            return None
        piece = Piece(self._next, length)
        self._next += length
        return piece

    def pause(self) -> None:
        """What is under way may be lost: send nothing before `start`. Also at the end."""
        self._allowance.give(self._next - self.acknowledged)
        self._next = self.acknowledged
        self.paused = True


class Receiver:
    """One blob on its way in."""

    def __init__(self, size: int, window: int) -> None:
        self._size = size
        self._window = window
        self._limit = 0
        self._granted = False
        self.received = 0

    @property
    def complete(self) -> bool:
        return self.received == self._size

    def grant(self) -> None:
        """The budget has room for the window."""
        self._granted = True

    def stand(self) -> Credit:
        """What to tell the sender after each chunk, and when the transfer is opened again.

        Were it told less often, senders could wait for an allowance that transfers use up
        whose receivers wait for more.
        """
        self._raise_limit()
        return Credit(self.received, self._limit)

    def chunk(self, offset: int, length: int) -> bool:
        """Whether the chunk is the one to be written. Raises FlowViolation."""
        if length <= 0 or offset + length > self._limit:
            raise FlowViolation(f"chunk {offset}+{length} beyond the limit {self._limit}")
        if offset != self.received:  # sent twice, or after one that was lost
            return False
        self.received += length
        return True

    def _raise_limit(self) -> None:
        if self._granted:
            self._limit = min(self._size, self.received + self._window)


class Patience:
    """When to ask a silent peer again, and when to give up."""

    def __init__(self, now: float, timeout: float, ask_again: float) -> None:
        self._deadline = now + timeout
        self._ask_again = ask_again
        self._quiet_since = now

    def heard(self, now: float) -> None:
        """The peer said something, or was asked."""
        self._quiet_since = now

    def due(self, now: float) -> Literal["give up", "ask again"] | None:
        if now >= self._deadline:
            return "give up"
        if now >= self._quiet_since + self._ask_again:
            self._quiet_since = now
            return "ask again"
        return None
