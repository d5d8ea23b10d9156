"""The rules of one blob's transfer, as pure machines: no socket, no clock, no bytes.

The receiver grants credit: "I hold `received` bytes, send up to `limit`". The sender
sends chunks in order, never beyond the limit, and never has more in flight to one peer
than that peer's `Allowance`, whatever was granted. So neither side holds more than these
bounds for a frozen peer. The receiver takes the chunk that comes next and ignores any
other; after a lost connection the sender resumes from the receiver's position.

    Sender    paused --start--> sending --credit: all received--> done
              sending --pause (connection lost, or asked again)--> paused
    Receiver  waiting --grant--> receiving --last chunk--> complete

All numbers are bytes, offsets count from the blob's start, times are seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from typing import Generic, Literal, NamedTuple, TypeVar

from manta.transports.errors import RemoteProtocolError

Key = TypeVar("Key", bound=Hashable)


class FlowViolation(RemoteProtocolError):
    """The peer broke the rules above."""


class Piece(NamedTuple):
    """A part of the blob, to be sent as one chunk."""

    offset: int
    length: int


class Position(NamedTuple):
    """What the receiver holds, and up to where it may be sent more."""

    received: int
    limit: int


class Allowance:
    """Bytes that may be in flight to one peer, over all transfers."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0

    def take(self, length: int) -> bool:
        """Whether so many more may be sent; one chunk always may, however large."""
        if self.used and self.used + length > self.total:
            return False
        self.used += length
        return True

    def give(self, length: int) -> None:
        self.used -= length


class Budget(Generic[Key]):
    """Grants windows to transfers, first come, first served."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._granted: dict[Key, int] = {}
        self._waiting: deque[tuple[Key, int]] = deque()
        self.granted = 0

    @property
    def waiting(self) -> bool:
        """Does any transfer wait for a window?"""
        return bool(self._waiting)

    def request(self, key: Key, window: int) -> bool:
        """Whether it is granted now; else a later `release` returns the key."""
        self._waiting.append((key, window))
        return key in self._grant()

    def release(self, key: Key) -> list[Key]:
        """End a transfer, or its waiting; returns those that are granted a window now."""
        if key in self._granted:
            self.granted -= self._granted.pop(key)
        else:
            self._waiting = deque(entry for entry in self._waiting if entry[0] != key)
        return self._grant()

    def _grant(self) -> list[Key]:
        granted = []
        while self._waiting:
            key, window = self._waiting[0]
            if self._granted and self.granted + window > self._total:
                break
            self._waiting.popleft()
            self._granted[key] = window
            self.granted += window
            granted.append(key)
        return granted


class Sender:
    """Sends one blob, of which the first `ready` bytes are there to be sent."""

    def __init__(
        self, size: int, chunk: int, allowance: Allowance, *, ready: int | None = None
    ) -> None:
        self.ready = size if ready is None else ready
        self.chunk = chunk
        self._size = size
        self._allowance = allowance
        self._next = 0
        self.acknowledged = 0
        self._limit = 0
        self.paused = True

    @property
    def done(self) -> bool:
        """Does the receiver hold all of it?"""
        return not self.paused and self.acknowledged == self._size

    @property
    def sendable(self) -> int:
        """Bytes that may be sent now, as far as the allowance goes."""
        return 0 if self.paused else min(self._limit, self.ready) - self._next

    def start(self, received: int, limit: int) -> None:
        """Resume at the receiver's position. Raises FlowViolation."""
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
        """The next chunk, if there is credit for one; it counts as sent."""
        length = min(self.chunk, self.sendable)
        if length <= 0 or not self._allowance.take(length):
            return None
        piece = Piece(self._next, length)
        self._next += length
        return piece

    def pause(self) -> None:
        """Send nothing until `start`: what is in flight may be lost. Also called at the end."""
        self._allowance.give(self._next - self.acknowledged)
        self._next = self.acknowledged
        self.paused = True


class Receiver:
    """Receives one blob."""

    def __init__(self, size: int, window: int, *, received: int = 0) -> None:
        self.window = window
        self._size = size
        self._limit = received
        self._granted = 0
        self.received = received

    @property
    def complete(self) -> bool:
        return self.received == self._size

    def grant(self, part: int | None = None) -> None:
        """The budget has room for the window, or for a part of it."""
        self._granted = self.window if part is None else min(part, self.window)

    def position(self) -> Position:
        """What the sender is told after each chunk, and whenever the transfer is opened.

        Told less often, two peers could block each other: the bytes of transfers whose
        receivers wait for more would use up the allowance of all others.
        """
        if self._granted:
            self._limit = min(self._size, self.received + self._granted)
        return Position(self.received, self._limit)

    def chunk(self, offset: int, length: int) -> bool:
        """Whether the chunk is the next one, to be written. Raises FlowViolation."""
        if not self.expects(offset, length):
            return False
        self.received += length
        return True

    def expects(self, offset: int, length: int) -> bool:
        """Whether the chunk is the next one; nothing changes. Raises FlowViolation."""
        if length <= 0 or offset + length > self._limit:
            raise FlowViolation(f"chunk {offset}+{length} beyond the limit {self._limit}")
        return offset == self.received  # others were sent twice, or after one that was lost


class RequestTimer:
    """Says when to repeat a request to a silent peer, and when to give it up.

    That is `timeout` after its start, or sooner: when nothing was heard for `silence`, or no byte
    came for `standstill`.
    """

    def __init__(
        self,
        now: float,
        timeout: float,
        repeat_after: float,
        *,
        silence: float = math.inf,
        standstill: float = math.inf,
    ) -> None:
        self._began = now
        self._deadline = now + timeout
        self._repeat_after = repeat_after
        self._silence = silence
        self._standstill = standstill
        self._quiet_since = self._heard_at = self._moved_at = now

    def heard(self, now: float) -> None:
        """The peer answered."""
        self._quiet_since = self._heard_at = now

    def moved(self, now: float) -> None:
        """A part of the blob came, or the request has only just been opened."""
        self.heard(now)
        self._moved_at = now

    def passed(self, now: float) -> float:
        """Seconds since its start."""
        return now - self._began

    def due(self, now: float) -> Literal["give up", "repeat"] | None:
        is_silent = now >= self._heard_at + self._silence
        if now >= self._deadline or is_silent or now >= self._moved_at + self._standstill:
            return "give up"
        if now >= self._quiet_since + self._repeat_after:
            self._quiet_since = now
            return "repeat"
        return None
