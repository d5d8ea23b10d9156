"""What tasks told each other and must outlive the plane, the daemon and the machine's restart.

A thread of its own writes: first the values that are too large for a record, each a file, then the
records, and syncs each file once for all attempts that ended together (group commit). Only then is
it said, on the plane's thread, that it is done. What the disk does not take is tried again until it
does: an attempt's end waits for it (a minute, `node/tasks/direct.py`), and nothing else does. What
is kept no longer takes its room until the disk has enough to write the rest anew; nothing waits for
that but who wants to know.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from manta.node.journal.record_file import RecordFile, sync
from manta.node.plane import spool_records
from manta.node.plane.spool_records import Begin, Record
from manta.transports.errors import remedied
from manta.transports.exchange.kept import Kept

RETRY = 1.0
"""Seconds until what the disk did not take is tried again."""
VALUES = "values"
"""The folder in its own for values that are files, by their ids."""

_LOST = (
    "what attempts that had ended told others is lost from there on, and those who wait for it are "
    "told so"
)

log = logging.getLogger("manta.node.plane")

Done = Callable[[], object]


class Timeline(NamedTuple):
    """Of a swarm; `epoch` is the manager's."""

    swarm_id: str
    epoch: str


@dataclass(eq=False)
class _Job:
    write: Callable[[], None]
    """Raises OSError, after which it is called again."""
    done: Done
    of: Timeline | None
    """Jobs of one timeline are done in their order."""


@dataclass
class _Compaction:
    still: list[Kept]
    """What the file is to hold."""
    then: list[Done]


class Spool:
    """`call` has something run on the plane's thread, to which all methods belong."""

    def __init__(self, folder: Path, node_id: str, call: Callable[[Done], object]) -> None:
        self._folder = folder
        self.values = folder / VALUES
        """The folder for values that are files, by their ids."""
        self._node_id = node_id
        self._call = call
        self.untaken: dict[Timeline, list[Kept]] = {}
        """What was kept before, of timelines that nobody has asked for yet; the oldest first."""
        self._files: dict[Timeline, RecordFile[Record]] = {}
        """The writer's, once it has begun."""
        self._dirty: dict[RecordFile[Record], bool] = {}
        """To be synced; whether a sync has failed, after which nothing says what is on disk."""
        self._written: list[_Job] = []
        """Jobs that have to be synced."""
        self._compactions: dict[Timeline, _Compaction] = {}
        """That are to be done; the writer's."""
        self._renamed = False
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._closed = False
        self._trouble = False
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._recover()
        self._writer = threading.Thread(target=self._write, name="plane-spool", daemon=True)
        self._writer.start()

    def take(self, timeline: Timeline) -> list[Kept]:
        """What was kept of a timeline, those first that ended first."""
        return self.untaken.pop(timeline, [])

    def keep(self, timeline: Timeline, kept: Kept, values: Sequence[Done], then: Done) -> None:
        """Calls `then` once it, and what `values` write, is on disk for good."""

        def write() -> None:
            for value in values:
                value()
                self._renamed = True
            file = self._file(timeline)
            if not file.size:
                file.rewrite([spool_records.begin(self._node_id, *timeline)])
                self._renamed = True
            elif file.stale:  # what was begun could not be cut off
                os.truncate(file.path, file.size)
                file.stale = False
            file.add(spool_records.encode(kept))
            self._dirty.setdefault(file, False)
            if (compaction := self._compactions.get(timeline)) is not None:
                compaction.still.append(kept)

        self._do(_Job(write, then, timeline))

    def keep_only(self, timeline: Timeline, still: Sequence[Kept], then: Done) -> None:
        """Calls `then` once nothing else of the timeline, but for what is kept later, would be
        found after a restart."""

        def note() -> None:
            before = self._compactions.get(timeline)
            waiting = [] if before is None else before.then
            self._compactions[timeline] = _Compaction(list(still), [*waiting, then])

        self._do(_Job(note, _nothing, timeline))

    def drop(self, timeline: Timeline) -> None:
        """The timeline is over."""
        self.untaken.pop(timeline, None)
        self.keep_only(timeline, (), _nothing)

    def do(self, write: Callable[[], None], then: Done | None = None) -> None:
        """Has the writer do something that raises no OSError, and calls `then` afterwards."""
        self._do(_Job(write, then or _nothing, None))

    def _do(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Ends the writer once it has tried all that it was given."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._writer.join()
        for file in self._files.values():
            file.close()

    # --- the writer ---------------------------------------------------------------------------

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._jobs or self._written or self._closed, self._until_due()
                )
                jobs, self._jobs = self._jobs, []
            failed = self._carry_out(jobs)
            with self._changed:
                self._jobs = failed + self._jobs
                if (failed or self._written) and not self._closed:
                    self._changed.wait_for(lambda: self._closed, RETRY)
                if self._closed and (failed or self._written or not self._jobs):
                    return

    def _until_due(self) -> float | None:
        """Seconds until a compaction is to be tried."""
        due = min((self._file(one).compaction.at for one in self._compactions), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _carry_out(self, jobs: list[_Job]) -> list[_Job]:
        """Returns those that are to be tried again."""
        failed: list[_Job] = []
        for job in jobs:
            if job.of is not None and any(other.of == job.of for other in failed):
                failed.append(job)
                continue
            try:
                job.write()
            except OSError as error:
                self._tell_trouble(error)
                failed.append(job)
            else:
                self._written.append(job)
        self._compact()
        trouble = self._sync()
        if trouble is not None:
            self._tell_trouble(trouble)
        elif self._trouble and not failed:
            self._trouble = False
            log.info("What ended attempts told others is kept again in %s.", self._folder)
        written, self._written = self._written, []
        for job in written:
            if self._is_synced(job):
                self._call(job.done)
            else:
                self._written.append(job)
        return failed

    def _compact(self) -> None:
        now = time.monotonic()
        for timeline, compaction in list(self._compactions.items()):
            replace = partial(self._replace, timeline, compaction.still)
            if self._file(timeline).compaction.attempt(replace, now):
                del self._compactions[timeline]
                self._written += [_Job(_nothing, then, timeline) for then in compaction.then]

    def _replace(self, timeline: Timeline, still: Sequence[Kept]) -> None:
        """Raises OSError."""
        if not still:
            self._delete(timeline)
            return
        file = self._file(timeline)
        begin = spool_records.begin(self._node_id, *timeline)
        file.shrink([begin, *map(spool_records.encode, still)])
        self._renamed = True
        self._dirty[file] = False

    def _sync(self) -> OSError | None:
        """Why something is not on disk for good yet."""
        trouble = None
        for file, has_failed in list(self._dirty.items()):
            try:
                self._sync_file(file, has_failed=has_failed)
            except OSError as error:
                trouble = error
        try:
            if self._renamed:
                sync_folder(self._folder)
                sync_folder(self.values)
                self._renamed = False
        except OSError as error:
            trouble = error
        return trouble

    def _sync_file(self, file: RecordFile[Record], *, has_failed: bool) -> None:
        """Raises OSError."""
        if has_failed:  # the system may hold for written what it has dropped
            file.rewrite([file.path.read_bytes()])
            self._renamed = True
        fd = file.descriptor()
        try:
            sync(fd)
        except OSError:
            self._dirty[file] = True
            raise
        finally:
            os.close(fd)
        del self._dirty[file]

    def _is_synced(self, job: _Job) -> bool:
        if job.of is None:
            return True
        return not self._renamed and self._files.get(job.of) not in self._dirty

    def _tell_trouble(self, error: OSError) -> None:
        if not self._trouble:
            self._trouble = True
            log.error(
                "What ended attempts told others cannot be kept in %s (%s): their ends wait.",
                *(self._folder, remedied(error)),
            )

    def _file(self, timeline: Timeline) -> RecordFile[Record]:
        file = self._files.get(timeline)
        if file is None:
            path = self._folder / f"{_name(timeline)}.spool"
            file = self._files[timeline] = RecordFile(path, spool_records.decode)
        return file

    def _delete(self, timeline: Timeline) -> None:
        file = self._file(timeline)
        self._dirty.pop(file, None)
        file.delete()
        del self._files[timeline]
        self._renamed = True

    # --- the start ----------------------------------------------------------------------------

    def _recover(self) -> None:
        for path in self._folder.glob("*.new"):
            path.unlink()
        paths = [(path.stat().st_mtime, path) for path in self._folder.glob("*.spool")]
        for _, path in sorted(paths):
            file = RecordFile(path, spool_records.decode)
            try:
                records = file.read(_LOST)
            except OSError as error:
                log.error("%s is left out: %s", path, remedied(error))
                continue
            begin = records[0] if records else None
            if not isinstance(begin, Begin) or not self._is_ours(begin, path):
                log.warning("%s is of another node, or of another version: it is deleted.", path)
                file.delete()
                continue
            timeline = Timeline(begin.swarm_id, begin.epoch)
            self._files[timeline] = file
            self.untaken[timeline] = spool_records.whole(records)
        self._delete_unnamed()

    def _delete_unnamed(self) -> None:
        self.values.mkdir(mode=0o700, exist_ok=True)
        wanted = {id_.hex() for kept in self.untaken.values() for id_ in named(kept)}
        for path in self.values.iterdir():
            if path.name not in wanted:
                path.unlink()

    def _is_ours(self, begin: Begin, path: Path) -> bool:
        name = _name(Timeline(begin.swarm_id, begin.epoch))
        ours = spool_records.VERSION, self._node_id, name
        return ours == (begin.version, begin.node_id, path.stem)


def _nothing() -> None:
    pass


def sync_folder(folder: Path) -> None:
    """Makes the names of its files outlive a loss of power. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def named(kept: Iterable[Kept]) -> set[bytes]:
    """The ids of the values that are files."""
    return {parcel.id for parcel in spool_records.parcels(kept)}


def _name(timeline: Timeline) -> str:
    return blake2b("\0".join(timeline).encode(), digest_size=16).hexdigest()
