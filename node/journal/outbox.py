"""Keeps numbered items until the manager has acknowledged them, and sends them in order."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

RESEND_AFTER = 5.0
"""Seconds without an acknowledgement after which items are sent again."""
BATCHES = 32
"""Batches that are under way at most. Beyond, items gather into larger ones: a manager that has
much to do must not get a message for each."""


class Numbered(msgspec.Struct, Generic[T], frozen=True):
    number: int
    item: T
    size: int


class Batch(msgspec.Struct, Generic[T], frozen=True):
    first: int
    items: tuple[T, ...]


class Outbox(Generic[T]):
    """Numbered items on their way to the manager. Pure."""

    def __init__(
        self,
        upto: int = 0,
        *,
        batch_items: int = 256,
        batch_bytes: int = 256 * 1024,
        window_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        self.acknowledged = upto
        self.last = upto
        self.synced = upto
        self.pending_bytes = 0
        self._items: deque[Numbered[T]] = deque()
        self._batch_items = batch_items
        self._batch_bytes = batch_bytes
        self._window_bytes = window_bytes
        self._sent = upto
        self._sent_bytes = 0
        self._sent_at = 0.0
        self._heard_at = -math.inf
        self._batches: deque[int] = deque()
        """The last numbers of those that are under way."""

    def __iter__(self) -> Iterator[Numbered[T]]:
        """Iterates over what is not acknowledged yet."""
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def unsent(self) -> bool:
        return self._sent < self.last

    @property
    def in_flight(self) -> bool:
        """Whether an acknowledgement is to be expected."""
        return self._sent > self.acknowledged

    def append(self, item: T, size: int) -> int:
        self.last += 1
        self._items.append(Numbered(self.last, item, size))
        self.pending_bytes += size
        return self.last

    def replace(self, number: int, item: T) -> None:
        """Put another item under a number that is not acknowledged yet."""
        index = number - self.acknowledged - 1
        self._items[index] = Numbered(number, item, self._items[index].size)

    def shift(self, after: int, by: int) -> None:
        """Numbers above `after` grow by `by`: those in between were given out before, and lost.
        What was sent under the old numbers is to be sent again."""
        self._items = deque(
            Numbered(kept.number + by, kept.item, kept.size) if kept.number > after else kept
            for kept in self._items
        )
        self.last += by
        self.synced = self.last
        self.send_again()

    def due(self, now: float, upto: int | None = None) -> list[Batch[T]]:
        """Returns what to send now, up to item `upto`; it counts as sent."""
        limit = self.synced if upto is None else min(upto, self.synced)
        batches: list[Batch[T]] = []
        while self._sent < limit and self._has_window:
            start = self._sent - self.acknowledged
            items: list[T] = []
            size = 0
            for index in range(start, len(self._items)):
                kept = self._items[index]
                if kept.number > limit or len(items) >= self._batch_items:
                    break
                if items and size + kept.size > self._batch_bytes:
                    break
                items.append(kept.item)
                size += kept.size
            batches.append(Batch(self._sent + 1, tuple(items)))
            self._sent += len(items)
            self._sent_bytes += size
            self._sent_at = now
            self._batches.append(self._sent)
        return batches

    @property
    def _has_window(self) -> bool:
        return self._sent_bytes < self._window_bytes and len(self._batches) < BATCHES

    def acknowledge(self, upto: int) -> list[T]:
        """Remove what the manager has, and return it."""
        if upto > self.last:  # the files are older than the manager's memory: go on after it
            self.last = self.synced = upto
        cut: list[T] = []
        while self._items and self._items[0].number <= upto:
            kept = self._items.popleft()
            self.pending_bytes -= kept.size
            if kept.number <= self._sent:
                self._sent_bytes -= kept.size
            cut.append(kept.item)
        while self._batches and self._batches[0] <= upto:
            self._batches.popleft()
        self.acknowledged = max(self.acknowledged, upto)
        self._sent = max(self._sent, self.acknowledged)
        return cut

    def heard(self, now: float) -> None:
        """The manager acknowledged something: do not send again yet."""
        self._sent_at = self._heard_at = now

    def is_heard(self, now: float) -> bool:
        """Whether the manager takes something, if not as fast as it comes."""
        return now < self._heard_at + RESEND_AFTER

    def send_again(self) -> None:
        """There is a new connection, or what was sent is lost."""
        self._sent = self.acknowledged
        self._sent_bytes = 0
        self._batches.clear()

    def resend_at(self) -> float | None:
        """Returns when to call `send_again` unless an acknowledgement comes."""
        return self._sent_at + RESEND_AFTER if self.in_flight else None
