"""What a connection received and nobody has read, bounded before a message's end. Pure.

zmq hands over whole messages only. It bounds their frames (MAXMSGSIZE) and the number of whole
messages that wait (RCVHWM), but neither the parts nor the bytes of one that has no end. The system
counts what each TCP connection receives (`tcp`); here that is compared with what was read:

    received - read     on its way to the reader: at most what may be in flight, the window
    held                of that, what zmq has in memory: when all whole messages were read,
                        it is of one message whose end is missing

Both are looked at from time to time (`connections`). In between as much can come as zmq's thread
decrypts in that time, on all connections together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

T = TypeVar("T")
FRAME = 48  # bytes that each frame has on the wire besides its own, at most
# zmq's own heartbeats are no message, and never end: so many bytes, and so many a second.
_NOISE, _NOISE_RATE = 1024, 128


class Bounds(NamedTuple):
    """What one connection may have received before it is read; sizes in bytes."""

    window: int
    message: int  # of a message without its end
    seconds: float  # in which a message that began must end


def wire_bytes(sizes: Iterable[int]) -> int:
    """What frames of these sizes have on the wire, at most."""
    return sum(size + FRAME for size in sizes)


class Intake:
    """Follows one connection. Whoever reads a message adds its bytes to `read`, as `wire_bytes`."""

    def __init__(self) -> None:
        self.read = 0
        self.received = 0
        self.pending = 0  # received and not read
        self.held = 0  # of these, what zmq holds
        self.age = 0.0  # seconds since a message was read
        self._read_before = 0
        self._read_up_to = 0
        self._unfinished = False  # what is held belongs to one message

    def look(self, received: int, unread: int, *, drained: bool, passed: float) -> None:
        """Compare. `unread` bytes are still in the system; `drained`: no whole message waits."""
        read = self.read - self._read_before
        self.received = received
        self._unfinished = drained
        if read and drained:
            self._read_up_to = received - unread
        else:
            self._read_up_to = min(received, self._read_up_to + read)
        self._read_before += read  # only now, as another thread may call `pending_of`
        self.age = 0.0 if read else self.age + passed
        self.pending = received - self._read_up_to
        self.held = max(0, self.pending - unread)

    def is_idle(self) -> bool:
        """Was nothing read since the last look, when nearly nothing was pending?"""
        return self.read == self._read_before and self.pending <= _NOISE

    def pending_of(self, received: int) -> int:
        """What is received and not read now, at most."""
        read = self.read - self._read_before
        return received - min(received, self._read_up_to + read)

    def breach(self, bounds: Bounds) -> str:
        """What is wrong with the connection; "" if nothing is."""
        if self._unfinished and self.held > bounds.message:
            return f"a message without an end, of {self.held} bytes so far"
        if self.pending > bounds.window:
            return at_once(self.pending, bounds)
        if self.age > bounds.seconds and self.held > _NOISE + _NOISE_RATE * self.age:
            return f"a message that did not end in {bounds.seconds:g} s"
        return ""


def at_once(pending: int, bounds: Bounds) -> str:
    return f"{pending} bytes at once, {bounds.window} are allowed"


def excess(held: Iterable[tuple[int, T]], total: int) -> list[T]:
    """The largest of these, without which all hold no more than `total`."""
    rest = sorted(held, key=lambda one: one[0])
    left = sum(size for size, _ in rest)
    found = []
    while left > total:
        size, one = rest.pop()
        left -= size
        found.append(one)
    return found


def overflow(groups: Iterable[list[tuple[int, T]]], total: int) -> list[T]:
    """The first of the group that holds most, again and again, until all hold no more than
    `total`."""
    rest = [deque(group) for group in groups]
    sums = [sum(size for size, _ in group) for group in rest]
    left = sum(sums)
    found = []
    while left > total:
        heaviest = max(range(len(sums)), key=sums.__getitem__)
        size, one = rest[heaviest].popleft()
        sums[heaviest] -= size
        left -= size
        found.append(one)
    return found
