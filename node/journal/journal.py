"""What a node has to tell about a swarm: numbered, kept until acknowledged, sent in order.

Here are the file's format and the machine; `journal_file` holds the files.

A file is a row of records: length (4 bytes), CRC-32 (4 bytes), body. The first body is a
`Begin`: what was cut off before. All others are `Kept` items, numbered without a gap. Where a
record is torn or does not match its checksum, the file ends: what follows was never
acknowledged to anybody.

An item is sent when it is synced to disk and the blobs that it names, and those of all items
before it, have reached the manager. What was sent is sent again after a new connection and
when no acknowledgement has come for `resend_after` seconds; the manager ignores what it
has applied. An acknowledgement is cumulative, and may name blobs that the manager lost.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from manta.protocol.exchange import (
    Broadcasted,
    Checkpointed,
    ClaimsReturned,
    Contributed,
    LockReleased,
    LockWanted,
    Receiving,
    Sent,
)
from manta.protocol.node import (
    GlobalWritten,
    Instance,
    JournalEntry,
    LogLine,
    ResultWritten,
    TaskEnded,
    TaskError,
    TaskStarted,
)
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef, Payload

T = TypeVar("T")

# The file's format.

_HEAD = struct.Struct("<II")
MAX_RECORD = 16 * 1024 * 1024
RESEND_AFTER = 5.0
"""Seconds without an acknowledgement."""


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Everything up to and including `upto` is acknowledged and was cut off."""

    swarm_id: str
    upto: int = 0
    open: tuple[Instance, ...] = ()
    """Attempts that had started before and not ended."""


class KeptEntry(msgspec.Struct, frozen=True, tag=True):
    number: int
    entry: JournalEntry


class KeptLine(msgspec.Struct, frozen=True, tag=True):
    number: int
    line: LogLine


Record = Begin | KeptEntry | KeptLine

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    body = _encoder.encode(record)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def decode(data: bytes) -> tuple[list[Record], int]:
    """The records up to the first that is torn or damaged, and how many bytes they take."""
    records: list[Record] = []
    offset = 0
    while offset + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, offset)
        end = offset + _HEAD.size + length
        if length > MAX_RECORD or end > len(data):
            break
        body = data[offset + _HEAD.size : end]
        if zlib.crc32(body) != checksum:
            break
        try:
            records.append(_decoder.decode(body))
        except ValueError:
            break
        offset = end
    return records, offset


# The machine.


class Numbered(msgspec.Struct, Generic[T], frozen=True):
    number: int
    item: T
    size: int


class Batch(msgspec.Struct, Generic[T], frozen=True):
    first: int
    items: tuple[T, ...]


class Outbox(Generic[T]):
    """Numbered items on their way to the manager; no clock, no disk."""

    def __init__(
        self,
        upto: int = 0,
        *,
        batch_items: int = 256,
        batch_bytes: int = 256 * 1024,
        window_bytes: int = 4 * 1024 * 1024,
        resend_after: float | None = None,
    ) -> None:
        self.acknowledged = upto
        self.last = upto
        self.synced = upto
        self.pending_bytes = 0
        self._items: deque[Numbered[T]] = deque()
        self._batch_items = batch_items
        self._batch_bytes = batch_bytes
        self._window_bytes = window_bytes
        self._resend_after = RESEND_AFTER if resend_after is None else resend_after
        self._sent = upto
        self._sent_bytes = 0
        self._sent_at = 0.0

    def __iter__(self) -> Iterator[Numbered[T]]:
        """What is not acknowledged yet."""
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

    def drop_first(self) -> T | None:
        """Forget the oldest as though it were acknowledged."""
        if not self._items:
            return None
        item = self._items[0].item
        self.acknowledge(self.acknowledged + 1)
        return item

    def replace(self, number: int, item: T) -> None:
        """Another item under a number that is not acknowledged."""
        index = number - self.acknowledged - 1
        self._items[index] = Numbered(number, item, self._items[index].size)

    def due(self, now: float, upto: int | None = None) -> list[Batch[T]]:
        """What to send now, none of it beyond `upto`; counts as sent from here."""
        limit = self.synced if upto is None else min(upto, self.synced)
        batches: list[Batch[T]] = []
        while self._sent < limit and self._sent_bytes < self._window_bytes:
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
        return batches

    def acknowledge(self, upto: int) -> list[T]:
        """Cuts what the manager holds, and returns it."""
        if upto > self.last:  # the files are older than the manager's memory: go on after it
            self.last = self.synced = upto
        cut: list[T] = []
        while self._items and self._items[0].number <= upto:
            kept = self._items.popleft()
            self.pending_bytes -= kept.size
            if kept.number <= self._sent:
                self._sent_bytes -= kept.size
            cut.append(kept.item)
        self.acknowledged = max(self.acknowledged, upto)
        self._sent = max(self._sent, self.acknowledged)
        return cut

    def heard(self, now: float) -> None:
        """The manager acknowledges something: it is not deaf."""
        self._sent_at = now

    def send_again(self) -> None:
        """The connection is another one, or what was sent is lost."""
        self._sent = self.acknowledged
        self._sent_bytes = 0

    def resend_at(self) -> float | None:
        """When to call `send_again` unless an acknowledgement comes."""
        return self._sent_at + self._resend_after if self.in_flight else None


class Journal:
    """One swarm's entries with the blobs that they name, and its attempts under way."""

    def __init__(self, begin: Begin, *, resend_after: float | None = None) -> None:
        self.swarm_id = begin.swarm_id
        self.entries: Outbox[JournalEntry] = Outbox(begin.upto, resend_after=resend_after)
        self._open: dict[Instance, None] = dict.fromkeys(begin.open)
        self._blobs: dict[int, BlobRef] = {}
        """By the number of the entry that names it, in order."""
        self._pushed: set[str] = set()

    @classmethod
    def recover(cls, records: list[Record], *, resend_after: float | None = None) -> Journal | None:
        """From a file's records; None when not even its beginning is there."""
        if not records or not isinstance(records[0], Begin):
            return None
        journal = cls(records[0], resend_after=resend_after)
        for record in records[1:]:
            if not isinstance(record, KeptEntry) or record.number != journal.entries.last + 1:
                break
            journal.append(record.entry, 0)
        journal.entries.synced = journal.entries.last
        return journal

    @property
    def open(self) -> tuple[Instance, ...]:
        """Started, and their end is not in the journal."""
        return tuple(self._open)

    @property
    def unacknowledged_ends(self) -> tuple[Instance, ...]:
        entries = [kept.item for kept in self.entries]
        return tuple(entry.instance for entry in entries if isinstance(entry, TaskEnded))

    def begin(self) -> Begin:
        """The first record of a file that holds what is not acknowledged.

        An attempt that such an entry starts, or had started, is open as of before it.
        """
        started = {k.item.instance for k in self.entries if isinstance(k.item, TaskStarted)}
        live = dict.fromkeys((*self._open, *self.unacknowledged_ends))
        before = tuple(instance for instance in live if instance not in started)
        return Begin(self.swarm_id, self.entries.acknowledged, before)

    def append(self, entry: JournalEntry, size: int) -> int:
        if isinstance(entry, TaskStarted):
            self._open[entry.instance] = None
        elif isinstance(entry, TaskEnded):
            self._open.pop(entry.instance, None)
        number = self.entries.append(entry, size)
        if (blob := blob_of(entry)) is not None:
            self._blobs[number] = blob
        return number

    def last_write(self, instance: Instance) -> int:
        """Number of the attempt's last entry that others may read and that is not
        acknowledged, or 0."""
        last = 0
        for kept in self.entries:
            if isinstance(kept.item, WITH_A_VALUE | WITHOUT):
                last = kept.number if kept.item.instance == instance else last
        return last

    def blobs(self) -> Iterator[BlobRef]:
        """All that entries name, not acknowledged ones."""
        yield from self._blobs.values()

    def blobs_to_push(self) -> list[BlobRef]:
        """Each once, in order; those whose push is under way among them."""
        wanted = {blob.digest: blob for blob in self.blobs() if blob.digest not in self._pushed}
        return list(wanted.values())

    def pushed(self, digest: str) -> None:
        self._pushed.add(digest)

    def due(self, now: float) -> list[Batch[JournalEntry]]:
        return self.entries.due(now, self._sendable())

    def acknowledge(self, upto: int, missing: tuple[BlobRef, ...], now: float) -> list[BlobRef]:
        """Returns the blobs that this journal no longer names."""
        self.entries.acknowledge(upto)
        self.entries.heard(now)
        cut = [self._blobs.pop(number) for number in [n for n in self._blobs if n <= upto]]
        if missing:
            self._pushed.difference_update(blob.digest for blob in missing)
            self.entries.send_again()
        still = {blob.digest for blob in self.blobs()}
        freed = {blob.digest: blob for blob in cut if blob.digest not in still}
        self._pushed.difference_update(freed)
        return list(freed.values())

    def blob_lost(self, digest: str, at: float) -> list[Instance]:
        """The blob is not on this disk any more: whose attempts are told INTERRUPTED instead.

        Other entries of the attempt follow; the manager holds to the end that it heard first.
        """
        lost: list[Instance] = []
        for kept in list(self.entries):
            blob = blob_of(kept.item)
            if blob is None or blob.digest != digest:
                continue
            sentence = (
                f"A value of {blob.size} bytes that {kept.item.instance} wrote was lost on its "
                "node before it reached the manager; the task is to be run again."
            )
            ended = TaskEnded(
                kept.item.instance,
                AttemptState.INTERRUPTED,
                at,
                error=TaskError("BlobLost", sentence),
            )
            self._open.pop(kept.item.instance, None)
            self.entries.replace(kept.number, ended)
            del self._blobs[kept.number]
            lost.append(kept.item.instance)
        return lost

    def _sendable(self) -> int:
        for number, blob in self._blobs.items():
            if blob.digest not in self._pushed:
                return number - 1
        return self.entries.last


WITH_A_VALUE = ResultWritten | GlobalWritten | Broadcasted | Sent | Contributed | Checkpointed
WITHOUT = Receiving | ClaimsReturned | LockWanted | LockReleased
"""Entries that reads of tasks rest on, with a value and without."""


def blob_of(entry: JournalEntry) -> BlobRef | None:
    """The blob that must be at the manager before the entry is."""
    value: Payload | None
    if isinstance(entry, WITH_A_VALUE):
        value = entry.value
    elif isinstance(entry, TaskEnded) and entry.output is not None:
        value = entry.output
    else:
        return None
    return value if isinstance(value, BlobRef) else None
