"""The embedded store: SQLite in WAL mode, one sync per commit.

Commits and reads have a connection each, so that neither waits for the other. Records are
JSON, so that other tools can read them; events and log lines are bytes that this module does
not interpret.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from manta.manager.errors import StorageUnavailable, StoreConflict, StoreError, StoreVersion
from manta.manager.store import extents, references, snapshots
from manta.manager.store.chain import End, chained, checked, end_of
from manta.manager.store.interface import (
    AppendEvents,
    AppendLogs,
    Delete,
    Extent,
    Put,
    PutPages,
    PutSnapshot,
    R,
    Reference,
    Release,
    RemoveSwarm,
    SkipLogs,
    StoredEvent,
    StoredLine,
    StoredSnapshot,
    Write,
)
from manta.manager.store.migrations import MIGRATIONS
from manta.manager.store.records import Record, key_of
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Damaged, Thing, read_stored

_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it is read-only; make it writable",
    sqlite3.SQLITE_IOERR: "the disk fails; see the system's log",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check folder and permissions",
    sqlite3.SQLITE_BUSY: "another program holds it; end that program",
}
_NEEDED = 65536
"""Bytes that SQLite takes at once, for its shared memory: with fewer free, the disk is full."""
_PAGE = 500
_WAL_KEPT = 16_000_000
"""Bytes to which a WAL that starts over is cut."""
_CHECKPOINT = 40_000
"""Pages in the WAL (160 MB) at which a commit copies them itself, if `tidy` has not."""
_CACHE = 1000
"""KiB of pages that each of the two connections keeps, half of what SQLite would: any swarm fills
them within some hundred iterations. Others are in the system's cache of the file."""


# A cell may hold anything: it is read as bytes, and as a number only if it is one.
RECORDS = "SELECT CAST(key AS BLOB), CAST(record AS BLOB) FROM {} ORDER BY key"
"""Selects all keys and records of a table."""
EVENT = "CAST(number AS INTEGER), CAST(body AS BLOB), CAST(checksum AS BLOB)"
"""The columns that `chain.checked` takes: none but the number that is awaited passes."""
END = "iif(typeof(number) = 'integer', number, NULL), CAST(checksum AS BLOB)"
"""The columns that `chain.end_of` takes."""

log = logging.getLogger("manta.manager.store")


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def read_record(path: Path | str, kind: type[R], key: bytes, content: bytes) -> R:
    """Raises Damaged."""
    name = f"The record {_text(key)} of the {kind.table} in {path}"
    thing = Thing(name, kind.lost, kind.remedy)
    record = read_stored(thing, json_decoder(kind).decode, content)
    if key_of(record).encode() != key:  # else it would stand beside the one that is stored next
        raise Damaged(thing, "its key is another")
    return record


def is_new(path: Path) -> bool:
    """Whether no store was ever opened there, as far as the file says. Raises StoreError."""
    if not path.exists():
        return True
    with _translated(path), contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'migrations'")
        return found.fetchone() is None


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_IOERR and _is_full(path):  # of a file beside it, too
            code = sqlite3.SQLITE_FULL
        if code == sqlite3.SQLITE_TOOBIG:
            raise StoreConflict(f"{path} takes nothing so large: {error}.") from error
        if why := _UNAVAILABLE.get(code):
            raise StorageUnavailable(f"{path} was not written: {why}.") from error
        raise StoreError(f"{path}: {error}; restore a backup if it is damaged.") from error
    except UnicodeDecodeError as error:  # of a text that is none
        raise StoreError(f"{path} is damaged: {error}; restore a backup.") from error


def _is_full(path: Path) -> bool:
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize < _NEEDED


class SqliteStore:
    def __init__(self, path: Path) -> None:
        """Opens or creates the database and updates its schema.

        Raises StorageUnavailable, StoreVersion.
        """
        self._path = path
        self._told: set[str] = set()
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        with contextlib.ExitStack() as undo, self._translated():
            try:  # the file holds password hashes: nobody else may read it
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            except OSError as error:
                raise StorageUnavailable(f"{path} cannot be opened: {error.strerror}.") from error
            self._writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            undo.callback(self._writer.close)
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
            self._writer.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}")
            self._writer.execute(f"PRAGMA cache_size = -{_CACHE}")
            self._migrate()
            self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            undo.callback(self._reader.close)
            self._reader.execute("PRAGMA query_only = ON")
            self._reader.execute(f"PRAGMA cache_size = -{_CACHE}")
            undo.pop_all()

    def _migrate(self) -> None:
        self._writer.execute(
            "CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, at REAL NOT NULL)"
        )
        [(version,)] = self._writer.execute("SELECT COALESCE(MAX(version), 0) FROM migrations")
        if version > len(MIGRATIONS):
            raise StoreVersion(
                f"{self._path} was written by a later version of Manta (schema {version}, "
                f"this one knows {len(MIGRATIONS)}): install that version, or restore a backup."
            )
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            with self._transaction():
                for statement in statements:
                    self._writer.execute(statement)
                self._writer.execute("INSERT INTO migrations VALUES (?, ?)", (number, time.time()))

    # Writes.

    def commit(self, writes: Sequence[Write]) -> None:
        with self._write_lock, self._translated(), self._transaction():
            for write in writes:
                self._write(write)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return _translated(self._path)

    def _write(self, write: Write) -> None:
        execute = self._writer.execute
        match write:
            case Put(record):
                execute(
                    f"INSERT OR REPLACE INTO {record.table} VALUES (?, ?)",
                    (key_of(record), msgspec.json.encode(record).decode()),
                )
            case Delete(kind, key):
                execute(f"DELETE FROM {kind.table} WHERE key = ?", (key,))
            case AppendEvents():
                self._append_events(write)
            case PutSnapshot(swarm_id) | PutPages(swarm_id):
                snapshots.put(self._writer, write, self._end(self._writer, swarm_id))
            case AppendLogs():
                extents.append_logs(self._writer, write)
            case SkipLogs(swarm_id, node_id, upto):
                execute(
                    "INSERT OR REPLACE INTO skipped_lines VALUES (?, ?, ?)",
                    (swarm_id, node_id, upto),
                )
            case Reference() | Release():
                references.write(self._writer, write)
            case RemoveSwarm(swarm_id):
                execute("DELETE FROM swarms WHERE key = ?", (swarm_id,))
                execute("DELETE FROM blob_references WHERE holder = ?", (swarm_id,))
                for table in (
                    *("event_ends", "snapshots", "snapshot_pages"),
                    *("skipped_lines", "extents"),
                ):
                    execute(f"DELETE FROM {table} WHERE swarm_id = ?", (swarm_id,))
                execute("INSERT OR IGNORE INTO removed_swarms VALUES (?)", (swarm_id,))

    def _append_events(self, write: AppendEvents) -> None:
        swarm_id, first, bodies = write.swarm_id, write.first, write.bodies
        end = self._end(self._writer, swarm_id)
        if end is None:  # a new swarm, or one of a version without checksums
            [(last,)] = self._writer.execute(
                "SELECT COALESCE(MAX(number), 0) FROM events WHERE swarm_id = ?", (swarm_id,)
            )
        else:
            last = end.number
        held = max(0, min(last - first + 1, len(bodies)))
        rows = self._writer.execute(
            "SELECT body FROM events WHERE swarm_id = ? AND number >= ? ORDER BY number LIMIT ?",
            (swarm_id, first, held),
        )
        if first > last + 1 or tuple(body for (body,) in rows) != bodies[:held]:
            raise StoreConflict(f"Event {first} of swarm {swarm_id} does not continue its log.")
        if held == len(bodies):
            return
        checksum = end.checksum if end else None
        fresh = []
        for number, body in enumerate(bodies[held:], first + held):
            checksum = chained(checksum, body)
            fresh.append((swarm_id, number, body, checksum))
        self._writer.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", fresh)
        self._writer.execute(
            "INSERT OR REPLACE INTO event_ends VALUES (?, ?, ?)",
            (swarm_id, fresh[-1][1], checksum),
        )
        extents.extend(self._writer, swarm_id, Extent(sum(map(len, bodies[held:]))))

    @staticmethod
    def _end(connection: sqlite3.Connection, swarm_id: str) -> End | None:
        found = connection.execute(
            f"SELECT {END} FROM event_ends WHERE swarm_id = ?", (swarm_id,)
        ).fetchone()
        return end_of(*found) if found else None

    def tidy(self) -> None:
        """Copies the WAL into the database, so that the WAL starts over.

        It has a connection of its own: neither commits nor reads wait for it.
        """
        with self._translated(), contextlib.closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def probe(self) -> None:
        with self._write_lock, self._translated(), self._transaction():
            self._writer.execute("PRAGMA user_version = 1")

    def purge(self, limit: int = 1000) -> bool:
        with self._write_lock, self._translated(), self._transaction():
            first = "(SELECT swarm_id FROM removed_swarms ORDER BY swarm_id LIMIT 1)"
            for table in ("events", "log_lines"):
                deleted = self._writer.execute(
                    f"DELETE FROM {table} WHERE rowid IN "
                    f"(SELECT rowid FROM {table} WHERE swarm_id = {first} LIMIT ?)",
                    (limit,),
                ).rowcount
                if deleted == limit:
                    return True
            removed = f"DELETE FROM removed_swarms WHERE swarm_id = {first}"
            return self._writer.execute(removed).rowcount > 0

    # Reads.

    def _select(self, statement: str, *arguments: Any) -> list[Any]:
        with self._read_lock, self._translated():
            return self._reader.execute(statement, arguments).fetchall()

    def get(self, kind: type[R], key: str) -> R | None:
        rows = self._select(
            f"SELECT CAST(key AS BLOB), CAST(record AS BLOB) FROM {kind.table} WHERE key = ?", key
        )
        return next(self._whole(kind, rows), None)

    def all(self, kind: type[R]) -> list[R]:
        return list(self._whole(kind, self._select(RECORDS.format(kind.table))))

    def count(self, kind: type[Record]) -> int:
        [(count,)] = self._select(f"SELECT COUNT(*) FROM {kind.table}")
        return int(count)

    def _whole(self, kind: type[R], rows: Iterable[tuple[bytes, bytes]]) -> Iterator[R]:
        """The records that are not damaged."""
        for key, content in rows:
            try:
                yield read_record(self._path, kind, key, content)
            except Damaged as damaged:
                if str(damaged) not in self._told:
                    self._told.add(str(damaged))
                    log.error("%s", damaged)

    def events(self, swarm_id: str, after: int = 0) -> Iterator[StoredEvent]:
        with self._read_lock, self._translated():
            end = self._end(self._reader, swarm_id)
        before = self._checksum(swarm_id, after)
        return checked(self._rows(swarm_id, after), end, before, after)

    def _rows(self, swarm_id: str, after: int) -> Iterator[tuple[int, bytes, bytes | None]]:
        while True:  # in pages, so that other readers need not wait
            rows = self._select(
                f"SELECT {EVENT} FROM events "
                "WHERE swarm_id = ? AND number > ? ORDER BY number LIMIT ?",
                swarm_id,
                after,
                _PAGE,
            )
            yield from rows
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def _checksum(self, swarm_id: str, number: int) -> bytes | None:
        found: list[tuple[bytes | None]] = self._select(
            "SELECT CAST(checksum AS BLOB) FROM events WHERE swarm_id = ? AND number = ?",
            swarm_id,
            number,
        )
        return found[0][0] if found else None

    def snapshot(self, swarm_id: str) -> StoredSnapshot | None:
        thing, pages, damaged = self._snapshot(swarm_id), set[str](), False
        with self._read_lock, self._translated():
            self._reader.execute("BEGIN")  # so that its parts are of one moment
            try:
                found = self._reader.execute(
                    "SELECT CAST(number AS INTEGER), CAST(body AS BLOB), CAST(checksum AS BLOB) "
                    "FROM snapshots WHERE swarm_id = ?",
                    (swarm_id,),
                ).fetchone()
                if found is None:
                    return None
                rows = self._reader.execute(
                    "SELECT CAST(name AS BLOB), CAST(body AS BLOB), CAST(checksum AS BLOB) "
                    "FROM snapshot_pages WHERE swarm_id = ?",
                    (swarm_id,),
                )
                for name, page, checksum in rows:  # of which no two are in memory
                    pages.add(name.decode(errors="replace"))
                    damaged = damaged or checksum != chained(None, page)
            finally:
                self._reader.execute("COMMIT")
        number, body, checksum = found
        event = self._checksum(swarm_id, number)
        if event is None or checksum != chained(event, body):
            log.warning("%s", Damaged(thing, "it is not of these events"))
            return None
        if damaged:
            log.warning("%s", Damaged(thing, "the checksum of a page is another"))
            return None
        return StoredSnapshot(number, body, frozenset(pages))

    def snapshot_size(self, swarm_id: str) -> int:
        [(size,)] = self._select(snapshots.SIZE, swarm_id)
        return int(size)

    def page(self, swarm_id: str, name: str) -> bytes:
        for body, checksum in self._select(snapshots.PAGE, swarm_id, name):
            if checksum == chained(None, body):
                return bytes(body)
        raise Damaged(self._snapshot(swarm_id), f"its page {name} is missing or another")

    def _snapshot(self, swarm_id: str) -> Thing:
        return Thing(
            f"The snapshot of swarm {swarm_id} in {self._path}",
            "nothing is lost but time",
            "its events are replayed instead",
        )

    def logs(self, swarm_id: str, after: int = 0, limit: int = 1000) -> list[StoredLine]:
        rows = self._select(
            "SELECT position, CAST(node_id AS BLOB), CAST(body AS BLOB) FROM log_lines "
            "WHERE swarm_id = ? AND position > ? ORDER BY position LIMIT ?",
            swarm_id,
            after,
            limit,
        )
        return [StoredLine(position, _text(node), body) for position, node, body in rows]

    def log_ends(self, swarm_id: str) -> dict[str, int]:
        rows = self._select(
            "SELECT CAST(node_id AS BLOB), MAX(number) FROM log_lines "
            "WHERE swarm_id = ? AND typeof(number) = 'integer' GROUP BY node_id",
            swarm_id,
        )
        ends = {_text(node_id): number for node_id, number in rows}
        skipped = self._select(
            "SELECT CAST(node_id AS BLOB), CAST(number AS INTEGER) FROM skipped_lines "
            "WHERE swarm_id = ?",
            swarm_id,
        )
        for node_id, number in skipped:
            ends[_text(node_id)] = max(number, ends.get(_text(node_id), 0))
        return ends

    def extents(self) -> dict[str, Extent]:
        found = self._select(f"SELECT {extents.SIZE}, CAST(swarm_id AS BLOB), {extents.COLUMNS}")
        return {_text(swarm_id): extents.read(row, size) for size, swarm_id, *row in found}

    def extent(self, swarm_id: str) -> Extent:
        read = f"SELECT {extents.SIZE}, {extents.COLUMNS} WHERE swarm_id = ?"
        return next(
            (extents.read(row, size) for size, *row in self._select(read, swarm_id)), Extent()
        )

    def references(self) -> Iterator[tuple[str, str]]:
        # Over a connection of its own, so that other readers need not wait.
        with self._translated(), contextlib.closing(sqlite3.connect(self._path)) as connection:
            for holder, digest in connection.execute(
                "SELECT CAST(holder AS BLOB), CAST(digest AS BLOB) FROM blob_references"
            ):
                yield _text(holder), _text(digest)

    def unreferenced(self, digests: Iterable[str]) -> set[str]:
        return references.unreferenced(self._select, digests)

    def named(
        self, digests: Iterable[str], *, holders: Iterable[str] = (), scopes: Iterable[str] = ()
    ) -> set[str]:
        return references.named(self._select, digests, holders, scopes)

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()
