"""What a node has to tell about one swarm: its entries and the blobs that they name. Pure.

An entry is sent when it is synced to disk and the blobs that it names, and those of all
entries before it, have reached the manager. What was sent is sent again after a new
connection and when no acknowledgement has come for RESEND_AFTER seconds; the manager
ignores what it has applied. An acknowledgement is cumulative, and may name blobs that the
manager lost.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from weakref import WeakSet

import msgspec

from manta.node.journal.entries import WITH_A_VALUE, WITHOUT, blob_of
from manta.node.journal.outbox import Batch, Outbox
from manta.node.journal.records import Begin, KeptEntry, Record, encode
from manta.node.journal.spending import Spending
from manta.protocol.exchange import Said
from manta.protocol.node import (
    GlobalWritten,
    Instance,
    JournalEntry,
    ResultWritten,
    TaskEnded,
    TaskError,
    TaskStarted,
)
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef

PUSHES = 64
"""Blobs that are pushed at one time."""
ENTRIES_BOUND, BYTES_BOUND = 100_000, 64 << 20
"""Entries that wait for the manager, and their bytes. From there on tasks have to wait as well."""
REPORTS_AHEAD, REPORTED_BYTES = 10_000, 4 << 20
"""The same for what tasks only report, metrics and progress, while the manager takes some."""


@dataclass(eq=False)
class Write:
    """An entry that others may read; `number` changes with that of the entry."""

    number: int


class Journal:
    """One swarm's entries with the blobs that they name, and its attempts under way."""

    def __init__(self, begin: Begin) -> None:
        self.swarm_id = begin.swarm_id
        self.entries: Outbox[JournalEntry] = Outbox(begin.upto)
        self._open: dict[Instance, None] = dict.fromkeys(begin.open)
        self._blobs: OrderedDict[int, BlobRef] = OrderedDict()
        """By the number of the entry that names it, in order."""
        self._named: Counter[str] = Counter()
        """By digest: how many entries name it."""
        self._pushed: set[str] = set()
        self._unpushed: dict[str, BlobRef] = {}
        self._writes: dict[Instance, Write] = {}
        """The attempt's last entry that others may read, if it is not acknowledged."""
        self._awaited: WeakSet[Write] = WeakSet()
        """Those that somebody may wait for, and of which later ones have taken the place."""
        self._disowned: set[Instance] = set()
        """Attempts under way of which only the end counts."""
        self.spending = Spending()

    @classmethod
    def recover(cls, records: list[Record]) -> Journal | None:
        """From a file's records; None when not even its beginning is there."""
        if not records or not isinstance(records[0], Begin):
            return None
        journal = cls(records[0])
        for record in records[1:]:
            if not isinstance(record, KeptEntry) or record.number != journal.entries.last + 1:
                break
            journal.append(record.entry, len(encode(record)))
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

    @property
    def crowded(self) -> str:
        """Why tasks may not write more for now; "" if they may."""
        return self._crowded(ENTRIES_BOUND, BYTES_BOUND)

    def reports_wait(self, now: float) -> str:
        """Why tasks may not report more for now; "" if they may."""
        if (crowded := self.crowded) or not self.entries.is_heard(now):
            return crowded
        return self._crowded(REPORTS_AHEAD, REPORTED_BYTES)

    def _crowded(self, most: int, most_bytes: int) -> str:
        count, size = len(self.entries), self.entries.pending_bytes
        if count < most and size < most_bytes:
            return ""
        return (
            f"the manager has yet to take {count:,} entries of at most {most:,} "
            f"({size / 2**20:,.1f} of {most_bytes / 2**20:g} MiB) that tasks of this swarm wrote "
            "on this node: it is away, or they write more than it can store"
        )

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
        self.spending.wrote(entry, size)
        if isinstance(entry, WITH_A_VALUE | WITHOUT):
            self._writes[entry.instance] = Write(number)
        if (blob := blob_of(entry)) is not None:
            self._blobs[number] = blob
            self._named[blob.digest] += 1
            if blob.digest not in self._pushed:
                self._unpushed[blob.digest] = blob
        return number

    def admitted(self, entry: JournalEntry) -> JournalEntry | None:
        """What is to be appended in its place; None if nothing is."""
        if entry.instance not in self._disowned:
            return entry
        if not isinstance(entry, TaskEnded):
            return None
        self._disowned.remove(entry.instance)
        return _of_another_timeline(entry.instance, entry.at)

    def disown(self, instance: Instance, at: float, *, goes_on: bool) -> bool:
        """What the attempt told, and is yet to tell if it goes on, does not count any more: its end
        tells so. Returns whether that is in the journal already."""
        ends = [kept for kept in self.entries if isinstance(kept.item, TaskEnded)]
        ends = [kept for kept in ends if kept.item.instance == instance]
        for kept in ends:
            self.entries.replace(kept.number, _of_another_timeline(instance, at))
            if (blob := self._blobs.pop(kept.number, None)) is not None:
                self._forget(blob)
        if goes_on and not ends:
            self._disowned.add(instance)
        return bool(ends)

    def last_write(self, instance: Instance) -> Write:
        """The attempt's last entry that others may read and that is not acknowledged, or one that
        is."""
        write = self._writes.get(instance)
        if write is None:
            return Write(0)
        self._awaited.add(write)
        return write

    def end(self) -> None:
        """Nobody will acknowledge what is in it, so nobody waits for that any more."""
        for write in self._awaited:
            write.number = 0

    def names(self, digest: str) -> bool:
        return digest in self._named

    def blobs(self) -> Iterator[BlobRef]:
        """All that entries name, not acknowledged ones."""
        yield from self._blobs.values()

    def blobs_to_push(self) -> list[BlobRef]:
        """The next ones, each once; those whose push is under way among them."""
        return list(islice(self._unpushed.values(), PUSHES))

    def pushed(self, digest: str) -> None:
        self._pushed.add(digest)
        self._unpushed.pop(digest, None)

    def due(self, now: float) -> list[Batch[JournalEntry]]:
        return self.entries.due(now, self._sendable())

    def shift(self, after: int, by: int) -> None:
        """As of the outbox."""
        self.entries.shift(after, by)
        blobs = self._blobs.items()
        self._blobs = OrderedDict((n + by if n > after else n, blob) for n, blob in blobs)
        for write in {*self._writes.values(), *self._awaited}:
            write.number += by if write.number > after else 0

    def acknowledge(self, upto: int, missing: tuple[BlobRef, ...], now: float) -> list[BlobRef]:
        """Returns the blobs that this journal no longer names."""
        self.entries.acknowledge(upto)
        self.entries.heard(now)
        self._writes = {at: one for at, one in self._writes.items() if one.number > upto}
        freed: dict[str, BlobRef] = {}
        while self._blobs and next(iter(self._blobs)) <= upto:
            _, blob = self._blobs.popitem(last=False)
            if self._forget(blob):
                freed[blob.digest] = blob
        if missing:
            self._pushed.difference_update(blob.digest for blob in missing)
            self._unpushed |= {blob.digest: blob for blob in missing if self.names(blob.digest)}
            self.entries.send_again()
        return list(freed.values())

    def _forget(self, blob: BlobRef) -> bool:
        """An entry that named it is gone; whether it was the last."""
        self._named[blob.digest] -= 1
        if self._named[blob.digest]:
            return False
        del self._named[blob.digest]
        self._pushed.discard(blob.digest)
        self._unpushed.pop(blob.digest, None)
        return True

    def held(self) -> set[str]:
        """Digests of values of which an entry that is not acknowledged says that a result stays
        here."""
        entries = (kept.item for kept in self.entries)
        return {
            one.value.digest
            for one in entries
            if isinstance(one, ResultWritten) and one.held and isinstance(one.value, BlobRef)
        }

    def writers(self, digest: str) -> list[Instance]:
        """Whose entries name the blob, each once."""
        if not self.names(digest):
            return []
        blobs = ((kept.item.instance, blob_of(kept.item)) for kept in self.entries)
        named = (instance for instance, blob in blobs if blob and blob.digest == digest)
        return list(dict.fromkeys(named))

    def blob_lost(self, digest: str, at: float, refused: str = "") -> list[Instance]:
        """The blob is not on this disk any more: whose attempts are told INTERRUPTED instead. Or
        the manager will never take it, as `refused` says: they are told FAILED. An
        end that is a failure goes without it: it is the list of packages.

        Other entries of the attempt follow; the manager holds to the end that it heard first.
        """
        lost: list[Instance] = []
        for kept in list(self.entries):
            blob = blob_of(kept.item)
            if blob is None or blob.digest != digest:
                continue
            instance = kept.item.instance
            if isinstance(kept.item, TaskEnded) and kept.item.error is not None:
                self.entries.replace(kept.number, without_packages(kept.item))
                self._forget(self._blobs.pop(kept.number))
                continue
            if refused:
                state, error = AttemptState.FAILED, f"{instance} failed: {refused}"
                told = TaskError("ResourceExhaustionError", error)
            else:
                state = AttemptState.INTERRUPTED
                sentence = (
                    f"A value of {blob.size} bytes that {instance} wrote was lost on its node "
                    "before it reached the manager; the task is to be run again."
                )
                told = TaskError("BlobLost", sentence)
            self._open.pop(instance, None)
            self.entries.replace(kept.number, TaskEnded(instance, state, at, error=told))
            self._forget(self._blobs.pop(kept.number))
            lost.append(instance)
        return lost

    def _sendable(self) -> int:
        for number, blob in self._blobs.items() if self._unpushed else ():
            if blob.digest not in self._pushed:
                return number - 1
        return self.entries.last


def _of_another_timeline(instance: Instance, at: float) -> TaskEnded:
    sentence = (
        f"The manager was restored while its node knew of another {instance}, in the past that the "
        "manager has lost: it is run again."
    )
    error = TaskError("Restored", sentence)
    return TaskEnded(instance, AttemptState.INTERRUPTED, at, error=error)


def without_packages(entry: TaskEnded) -> TaskEnded:
    """The same end, where the list of packages finds no room."""
    error = entry.error
    if error is None or error.bundle is None:
        return entry
    bundle = msgspec.structs.replace(error.bundle, packages=None)
    return msgspec.structs.replace(entry, error=msgspec.structs.replace(error, bundle=bundle))


def linger(entry: JournalEntry, *, expecting: bool = False) -> float:
    """Returns how many seconds an entry may wait, to share a sync and a message with others.

    One that names a blob is sent when that has been pushed, so it waits without harm. For
    what is said to other instances these wait already. An end waits if others are to be
    expected soon, and an acknowledgement, with which it goes (Nagle's algorithm, RFC 896).
    """
    if isinstance(entry, TaskEnded):
        return 0.01 if expecting else 0.0
    if blob_of(entry) is not None:
        return 0.05
    if isinstance(entry, Said):
        return 0.0
    return 0.003 if isinstance(entry, ResultWritten | GlobalWritten) else 0.05
