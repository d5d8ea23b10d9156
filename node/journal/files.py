"""A node's journals on disk, for several threads that append and one that sends.

Task supervisors and the server of tasks append; the manager's link syncs, sends and cuts.
An entry is in its file when `append` returns; it is synced, together with all that came
meanwhile, before it is sent. A blob that an entry names is copied to the spool first and
deleted from there when no entry names it any more. When the disk takes nothing more,
what a task wants to keep is refused; the ends of attempts are kept in memory then,
and the file is rewritten as soon as there is room. A file that holds much that is acknowledged
goes on as it is until there is room for another one.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manta.node.errors import StorageError
from manta.node.journal.entries import blob_of
from manta.node.journal.outbox import Outbox
from manta.node.journal.record_file import RecordFile, sync
from manta.node.journal.records import Begin, KeptEntry, KeptLine, Record, decode, encode
from manta.node.journal.swarm import Journal, Write, linger
from manta.node.journal.swarm_files import SwarmFiles
from manta.protocol.node import (
    Instance,
    JournalAck,
    JournalBatch,
    JournalEntry,
    LogAck,
    LogBatch,
    LogLine,
    TaskEnded,
    TaskStarted,
)
from manta.protocol.values import BlobRef
from manta.transports.errors import BlobMissing, BlobRefused, remedied

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.transports.blobs.file_depot import FileDepot

log = logging.getLogger(__name__)

COMPACT_AFTER = 1024 * 1024
"""Bytes of a file that are acknowledged before it is rewritten, which costs two syncs."""
LINES_LINGER = 0.1

_ENTRIES_LOST = (
    "what attempts told from there on is lost, and those that had not ended count as INTERRUPTED"
)
_LINES_LOST = "log lines from there on that the manager does not have are lost"


class Journals:
    """All journals of a node, encrypted where the spool is. May be used from any thread."""

    def __init__(self, folder: Path, spool: FileDepot, monotonic: Callable[[], float]) -> None:
        self._folder = folder
        self._spool, self._sealer = spool, spool.sealer
        self._now = monotonic
        self._lock = threading.RLock()
        self._swarms: dict[str, SwarmFiles] = {}
        self._holds: dict[str, int] = {}
        self._due: float | None = None
        self._grown: Callable[[], object] = lambda: None
        self._closed = False
        self._sends = False
        """Whether this daemon has begun to send."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._recover()

    # --- appending ------------------------------------------------------------------------

    def append(
        self,
        entry: JournalEntry,
        depot: TieredDepot | None = None,
        kept: Callable[[], object] = lambda: None,
    ) -> int:
        """Keep an entry; returns its number. A blob that it names is in `depot` or the spool.

        `kept` is called before the manager can hear of it. Raises StorageError when there is no
        room, unless the entry starts or ends an attempt; QuotaReached.
        """
        with self._lock:
            self._swarm(entry.instance.swarm_id).journal.spending.check(entry)
        blob = blob_of(entry)
        if blob is not None:
            self._hold(blob.digest)
        try:
            if blob is not None and depot is not None:
                try:
                    depot.copy_to(self._spool, blob.digest)
                except (BlobRefused, BlobMissing) as error:
                    raise StorageError(f"A value could not be kept: {error}") from error
            with self._lock:
                return self._append(entry, kept)
        finally:
            if blob is not None:
                self._release(blob.digest)

    def append_lines(self, swarm_id: str, lines: Iterable[LogLine]) -> None:
        """Keep log lines for the manager, as far as there is room for them."""
        with self._lock:
            swarm = self._swarm(swarm_id)
            records = swarm.append_lines(lines)
            self._write(swarm.lines_file, records, swarm.line_records)
            if self._closed:
                swarm.lines_file.close()
            self._will_send(LINES_LINGER)

    def append_output(self, instance: Instance, output: Iterable[tuple[str, float, str]]) -> None:
        """Keep what an attempt wrote: stream, seconds since the epoch, text of each line."""
        lines = [LogLine(instance, at, stream, text) for stream, at, text in output]
        self.append_lines(instance.swarm_id, lines)

    def all_open(self) -> tuple[Instance, ...]:
        """Returns every attempt that started and whose end was not reported."""
        with self._lock:
            return tuple(i for swarm in self._swarms.values() for i in swarm.journal.open)

    def last_write(self, instance: Instance) -> Write:
        """The attempt's last write that is not acknowledged, or one that is."""
        with self._lock:
            swarm = self._swarms.get(instance.swarm_id)
            return swarm.journal.last_write(instance) if swarm else Write(0)

    def is_acknowledged(self, swarm_id: str, write: Write) -> bool:
        """Also if its entry has another number by now, or is gone."""
        with self._lock:
            swarm = self._swarms.get(swarm_id)
            return swarm is None or swarm.journal.entries.acknowledged >= write.number

    def output_waits(self, swarm_id: str) -> bool:
        """Whether the swarm's tasks are to wait before they print more."""
        with self._lock:
            swarm = self._swarms.get(swarm_id)
            return swarm is not None and swarm.lines_are_ahead(self._now())

    def crowded(self, swarm_id: str) -> str:
        """Why the swarm's tasks may not write more for now; "" if they may."""
        with self._lock:
            swarm = self._swarms.get(swarm_id)
            return swarm.journal.crowded if swarm else ""

    def reports_wait(self, swarm_id: str) -> str:
        """As `crowded`, of metrics and progress."""
        with self._lock:
            swarm = self._swarms.get(swarm_id)
            return swarm.journal.reports_wait(self._now()) if swarm else ""

    def held(self, swarm_id: str) -> set[str]:
        """Digests of values of which the manager has yet to take that a result stays here."""
        with self._lock:
            swarm = self._swarms.get(swarm_id)
            return swarm.journal.held() if swarm is not None else set()

    def all_acknowledged(self) -> dict[str, int]:
        """By swarm: up to which entry the manager has said it holds the journal."""
        with self._lock:
            found = ((id_, one.journal.entries.acknowledged) for id_, one in self._swarms.items())
            return {swarm_id: upto for swarm_id, upto in found if upto}

    # --- sending: the manager's link alone ------------------------------------------------

    def unacknowledged(self) -> dict[str, int]:
        """Returns by swarm the number of the last entry, where not all are acknowledged."""
        with self._lock:
            boxes = ((swarm_id, one.journal.entries) for swarm_id, one in self._swarms.items())
            return {swarm_id: box.last for swarm_id, box in boxes if len(box)}

    def on_grown(self, grown: Callable[[], object]) -> None:
        """Have `grown` called, from any thread, when `due_at` is sooner or a blob is due."""
        with self._lock:
            self._grown = grown

    @property
    def due_at(self) -> float | None:
        """When the entries that wait must be sent at the latest; None if there are none."""
        return self._due

    def unacknowledged_ends(self) -> tuple[Instance, ...]:
        with self._lock:
            swarms = self._swarms.values()
            return tuple(i for s in swarms for i in s.journal.unacknowledged_ends)

    def sync(self) -> None:
        """Make everything that was appended so far survive a loss of power."""
        with self._lock:
            self._due = None
            dirty = [
                (swarm, swarm.journal.entries.last, swarm.file.descriptor())
                for swarm in self._swarms.values()
                if swarm.file.dirty
            ]
        for swarm, last, fd in dirty:
            try:
                sync(fd)
            except OSError as error:
                log.error("%s cannot be synced: %s", swarm.file.path, error.strerror)
            finally:
                os.close(fd)
            with self._lock:
                swarm.journal.entries.synced = last

    def due(self) -> list[JournalBatch | LogBatch]:
        """Returns what to send now, in order; it counts as sent."""
        now = self._now()
        messages: list[JournalBatch | LogBatch] = []
        with self._lock:
            self._sends = True
            for swarm_id, swarm in self._swarms.items():
                for lines in swarm.lines.due(now):  # before the ends of those who wrote them
                    messages.append(LogBatch(swarm_id, lines.first, lines.items))
                for batch in swarm.journal.due(now):
                    messages.append(JournalBatch(swarm_id, batch.first, batch.items))
        return messages

    @property
    def unsent(self) -> bool:
        with self._lock:
            return any(box.unsent for box in self._boxes())

    def blobs_to_push(self) -> list[BlobRef]:
        with self._lock:
            wanted = [blob for s in self._swarms.values() for blob in s.journal.blobs_to_push()]
        return list({blob.digest: blob for blob in wanted}.values())

    def pushed(self, digest: str) -> None:
        with self._lock:
            for swarm in self._swarms.values():
                swarm.journal.pushed(digest)

    def writers(self, digest: str) -> list[Instance]:
        """Returns whose entries name a blob that is to be pushed."""
        with self._lock:
            return [one for s in self._swarms.values() for one in s.journal.writers(digest)]

    def blob_lost(self, digest: str, at: float, refused: str = "") -> None:
        """As of the journal: the blob is not on this disk any more, or was `refused` for good."""
        with self._lock:
            for swarm in self._swarms.values():
                is_named = swarm.journal.names(digest)
                for instance in swarm.journal.blob_lost(digest, at, refused):
                    why = refused or "a value that it wrote is not on this disk any more"
                    log.error("%s: %s", instance, why)
                if is_named:
                    self._rewrite(swarm.file, swarm.records)
            self._delete_unnamed(digest)

    def disown(self, instance: Instance, at: float, *, goes_on: bool) -> None:
        """As of the journal: the manager wants another attempt under this name."""
        with self._lock:
            swarm = self._swarm(instance.swarm_id)
            if swarm.journal.disown(instance, at, goes_on=goes_on):
                self._rewrite(swarm.file, swarm.records)

    def send_again(self) -> None:
        """There is a new connection: send everything again that is not acknowledged."""
        with self._lock:
            for box in self._boxes():
                box.send_again()

    def send_overdue_again(self) -> None:
        now = self._now()
        with self._lock:
            for box in self._boxes():
                at = box.resend_at()
                if at is not None and at <= now:
                    box.send_again()

    def resend_at(self) -> float | None:
        with self._lock:
            times = [box.resend_at() for box in self._boxes()]
        return min((at for at in times if at is not None), default=None)

    def registered(self, acknowledged: dict[str, int]) -> None:
        """`acknowledged`: how much of each swarm's journal the manager has.

        If it has more than this daemon found at its start, the files were damaged or are old:
        what was written since follows what the manager has, not what was found.
        """
        first, self._sends = not self._sends, True
        for swarm_id, upto in acknowledged.items():
            with self._lock:
                if not upto and swarm_id not in self._swarms:
                    continue
                swarm = self._swarm(swarm_id)
                if first and upto > swarm.recovered:
                    self._follow(swarm, upto)
                self.acknowledge(JournalAck(swarm_id, upto))

    def begin_anew(self) -> None:
        """The manager takes the node for another one: its numbers begin again, and of what it told
        before only the log lines are of use."""
        with self._lock:
            for swarm_id, before in list(self._swarms.items()):
                swarm = self._swarms[swarm_id] = before.anew(self._folder)
                self._rewrite(swarm.file, swarm.records)
                self._rewrite(swarm.lines_file, swarm.line_records)
                for blob in before.journal.blobs():
                    self._delete_unnamed(blob.digest)

    def acknowledge(self, ack: JournalAck) -> None:
        with self._lock:
            swarm = self._swarms.get(ack.swarm_id)
            if swarm is None:
                return  # it is over
            if ack.upto > swarm.journal.entries.last:
                self._follow(swarm, ack.upto)
            freed = swarm.journal.acknowledge(ack.upto, ack.missing, self._now())
            swarm.journal.spending.told(ack.left, ack.counted, swarm.journal.entries)
            for blob in freed:
                self._delete_unnamed(blob.digest)
            self._compact(swarm.file, swarm.journal.entries, swarm.records)

    def acknowledge_lines(self, ack: LogAck) -> None:
        with self._lock:
            swarm = self._swarms.get(ack.swarm_id)
            if swarm is None:
                return
            if ack.upto > swarm.lines.last:  # as with entries
                known = max(swarm.lines_recovered, swarm.lines.acknowledged)
                swarm.lines.shift(known, ack.upto - known)
                swarm.lines_recovered, swarm.lines_file.stale = ack.upto, True
                swarm.lines.acknowledge(ack.upto)
                self._rewrite(swarm.lines_file, swarm.line_records)
            swarm.lines.acknowledge(ack.upto)
            swarm.lines.heard(self._now())
            self._compact(swarm.lines_file, swarm.lines, swarm.line_records)

    def keep_only(self, swarms: frozenset[str]) -> None:
        """Delete the files of other swarms once nothing of theirs is to be sent."""
        with self._lock:
            for swarm_id in [s for s in self._swarms if s not in swarms]:
                swarm = self._swarms[swarm_id]
                if not swarm.idle:
                    continue
                try:
                    swarm.file.delete()
                    swarm.lines_file.delete()
                except OSError:
                    return  # the disk takes nothing now, which is told elsewhere: the next time
                del self._swarms[swarm_id]

    def close(self) -> None:
        """What comes later, from threads that are still ending, is written and told after the next
        start."""
        self.sync()
        with self._lock:
            self._closed = True
            for swarm in self._swarms.values():
                swarm.file.close()
                swarm.lines_file.close()

    # --- inside, under the lock ------------------------------------------------------------

    def _boxes(self) -> Iterator[Outbox[Any]]:
        for swarm in self._swarms.values():
            yield swarm.journal.entries
            yield swarm.lines

    def _append(self, entry: JournalEntry, kept: Callable[[], object]) -> int:
        swarm = self._swarm(entry.instance.swarm_id)
        admitted = swarm.journal.admitted(entry)
        if admitted is None:
            kept()
            return swarm.journal.entries.last
        entry = admitted
        number = swarm.journal.entries.last + 1
        record = encode(KeptEntry(number, entry))
        try:
            if swarm.file.stale:
                swarm.file.rewrite(swarm.records())
            swarm.file.add(record)
        except OSError as error:
            if not isinstance(entry, TaskEnded | TaskStarted):
                raise StorageError(
                    f"{swarm.file.path} cannot be written ({error.strerror}): make room on the "
                    "node's disk."
                ) from error
            log.error("%s cannot be written: %s", swarm.file.path, error.strerror)
            swarm.file.stale = True
        swarm.journal.append(entry, len(record))
        if swarm.file.stale:
            swarm.journal.entries.synced = number  # memory is all that it has
        if self._closed:
            swarm.file.close()
        kept()
        expecting = bool(swarm.journal.open) and swarm.journal.entries.in_flight
        self._will_send(linger(entry, expecting=expecting), at_once=blob_of(entry) is not None)
        return number

    def _write(
        self, file: RecordFile[Record], records: list[bytes], everything: Callable[[], list[bytes]]
    ) -> None:
        try:
            if file.stale:
                file.rewrite(everything())
            else:
                file.add(b"".join(records))
        except OSError as error:
            file.stale = True
            log.error("%s cannot be written: %s", file.path, error.strerror)

    def _follow(self, swarm: SwarmFiles, upto: int) -> None:
        """The manager has more than was found here: what was written since comes after that."""
        entries = swarm.journal.entries
        known = max(swarm.recovered, entries.acknowledged)
        log.error(
            "%s lacks the last %d entries that the manager has: it was damaged, or is older than "
            "the node",
            *(swarm.file.path, upto - known),
        )
        swarm.journal.shift(known, upto - known)
        entries.acknowledge(upto)
        swarm.recovered, swarm.file.stale = upto, True
        self._rewrite(swarm.file, swarm.records)

    def _compact(
        self, file: RecordFile[Record], box: Outbox[Any], records: Callable[[], list[bytes]]
    ) -> None:
        """It takes COMPACT_AFTER and twice what is not acknowledged, at most."""
        least = COMPACT_AFTER + 2 * box.pending_bytes if len(box) else COMPACT_AFTER
        if file.size >= least:
            file.compaction.attempt(lambda: file.shrink(records()), self._now())

    def _rewrite(self, file: RecordFile[Record], records: Callable[[], list[bytes]]) -> None:
        try:
            file.rewrite(records())
        except OSError as error:
            log.error("%s cannot be rewritten: %s", file.path, error.strerror)

    def _will_send(self, delay: float, *, at_once: bool = False) -> None:
        """`at_once`: there is a blob to push."""
        due = self._now() + delay
        if self._due is None or due < self._due:
            self._due = due
            self._grown()
        elif at_once:
            self._grown()

    def _swarm(self, swarm_id: str) -> SwarmFiles:
        swarm = self._swarms.get(swarm_id)
        if swarm is None:
            swarm = self._swarms[swarm_id] = SwarmFiles(self._folder, swarm_id, self._sealer)
        return swarm

    def _hold(self, digest: str) -> None:
        with self._lock:
            self._holds[digest] = self._holds.get(digest, 0) + 1

    def _release(self, digest: str) -> None:
        with self._lock:
            self._holds[digest] -= 1
            if not self._holds[digest]:
                del self._holds[digest]
                self._delete_unnamed(digest)

    def _delete_unnamed(self, digest: str) -> None:
        named = any(one.journal.names(digest) for one in self._swarms.values())
        if digest not in self._holds and not named:
            self._spool.delete(digest)

    def _recover(self) -> None:
        for path in self._folder.glob("*.new"):
            path.unlink()
        for kind, recover in ("journal", self._recover_entries), ("lines", self._recover_lines):
            for path in sorted(self._folder.glob(f"*.{kind}")):
                try:
                    recover(RecordFile(path, decode, self._sealer))
                except OSError as error:
                    log.error("%s is left out: %s", path, remedied(error))
        for digest in list(self._spool):
            self._delete_unnamed(digest)

    def _recover_entries(self, file: RecordFile[Record]) -> None:
        if (journal := Journal.recover(file.read(_ENTRIES_LOST))) is None:
            file.delete()
        else:
            self._swarm(journal.swarm_id).recover(journal, file)

    def _recover_lines(self, file: RecordFile[Record]) -> None:
        records = file.read(_LINES_LOST)
        if not records or not isinstance(records[0], Begin):
            file.delete()
            return
        lines: Outbox[LogLine] = Outbox(records[0].upto)
        for record in records[1:]:
            if isinstance(record, KeptLine):
                lines.append(record.line, len(encode(record)))
        self._swarm(records[0].swarm_id).recover_lines(lines, file)
