"""The embedded store: SQLite in WAL mode, one sync per commit.

Commits and reads have a connection each, so that neither waits for the other. Records are
JSON, so that other tools can read them; events and log lines are bytes that this module does
not interpret.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from manta.manager.errors import StorageUnavailable, StoreConflict, StoreError, StoreVersion
from manta.manager.store.interface import (
    AppendEvents,
    AppendLogs,
    Delete,
    Put,
    R,
    Reference,
    Release,
    RemoveSwarm,
    StoredEvent,
    StoredLine,
    Write,
)
from manta.manager.store.records import key_of
from manta.transports.codec.decoders import json_decoder

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        *(
            f"CREATE TABLE {table} (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
            for table in ("clusters", "nodes", "users", "keys", "tokens", "swarms")
        ),
        """CREATE TABLE events (
            swarm_id TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
            PRIMARY KEY (swarm_id, number))""",
        """CREATE TABLE log_lines (
            position INTEGER PRIMARY KEY, swarm_id TEXT NOT NULL, node_id TEXT NOT NULL,
            number INTEGER NOT NULL, body BLOB NOT NULL,
            UNIQUE (swarm_id, node_id, number))""",
        "CREATE INDEX log_lines_by_swarm ON log_lines (swarm_id, position)",
        """CREATE TABLE blob_references (
            digest TEXT NOT NULL, swarm_id TEXT NOT NULL,
            PRIMARY KEY (digest, swarm_id)) WITHOUT ROWID""",
        "CREATE INDEX blob_references_by_swarm ON blob_references (swarm_id)",
        "CREATE TABLE removed_swarms (swarm_id TEXT PRIMARY KEY) WITHOUT ROWID",
    ),
    tuple(
        f"CREATE TABLE {table} (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
        for table in ("grants", "roles")
    ),
    (
        "CREATE TABLE modules (key TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID",
        # Registered modules need blobs as well.
        "ALTER TABLE blob_references RENAME COLUMN swarm_id TO holder",
    ),
)
"""The statements that lead from each version of the schema to the next. Never edit one."""

_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it is read-only; make it writable",
    sqlite3.SQLITE_IOERR: "the disk fails; see the system's log",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check folder and permissions",
    sqlite3.SQLITE_BUSY: "another program holds it; end that program",
}
_PAGE = 500
_CHECKPOINT = 40_000
"""Pages in the WAL (160 MB) at which a commit copies them itself, if `tidy` has not."""


class SqliteStore:
    def __init__(self, path: Path) -> None:
        """Opens or creates the database and updates its schema.

        Raises StorageUnavailable, StoreVersion.
        """
        self._path = path
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
            self._migrate()
            self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            undo.callback(self._reader.close)
            self._reader.execute("PRAGMA query_only = ON")
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

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if why := _UNAVAILABLE.get(code):
                raise StorageUnavailable(f"{self._path} was not written: {why}.") from error
            raise StoreError(
                f"{self._path}: {error}; restore a backup if it is damaged."
            ) from error

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
            case AppendLogs(swarm_id, node_id, first, bodies):
                self._writer.executemany(
                    "INSERT OR IGNORE INTO log_lines (swarm_id, node_id, number, body) "
                    "VALUES (?, ?, ?, ?)",
                    (
                        (swarm_id, node_id, number, body)
                        for number, body in enumerate(bodies, first)
                    ),
                )
            case Reference(holder, digests):
                self._writer.executemany(
                    "INSERT OR IGNORE INTO blob_references VALUES (?, ?)",
                    ((digest, holder) for digest in digests),
                )
            case Release(holder, digests):
                self._writer.executemany(
                    "DELETE FROM blob_references WHERE digest = ? AND holder = ?",
                    ((digest, holder) for digest in digests),
                )
            case RemoveSwarm(swarm_id):
                execute("DELETE FROM swarms WHERE key = ?", (swarm_id,))
                execute("DELETE FROM blob_references WHERE holder = ?", (swarm_id,))
                execute("INSERT OR IGNORE INTO removed_swarms VALUES (?)", (swarm_id,))

    def _append_events(self, write: AppendEvents) -> None:
        swarm_id, first, bodies = write.swarm_id, write.first, write.bodies
        [(last,)] = self._writer.execute(
            "SELECT COALESCE(MAX(number), 0) FROM events WHERE swarm_id = ?", (swarm_id,)
        )
        held = max(0, min(last - first + 1, len(bodies)))
        rows = self._writer.execute(
            "SELECT body FROM events WHERE swarm_id = ? AND number >= ? ORDER BY number LIMIT ?",
            (swarm_id, first, held),
        )
        if first > last + 1 or tuple(body for (body,) in rows) != bodies[:held]:
            raise StoreConflict(f"Event {first} of swarm {swarm_id} does not continue its log.")
        self._writer.executemany(
            "INSERT INTO events VALUES (?, ?, ?)",
            ((swarm_id, number, body) for number, body in enumerate(bodies[held:], first + held)),
        )

    def tidy(self) -> None:
        """Copies the WAL into the database, so that the WAL starts over.

        It has a connection of its own: neither commits nor reads wait for it.
        """
        with self._translated(), contextlib.closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def purge(self, limit: int = 1000) -> bool:
        with self._write_lock, self._translated(), self._transaction():
            found = self._writer.execute("SELECT swarm_id FROM removed_swarms LIMIT 1").fetchone()
            if found is None:
                return False
            for table in ("events", "log_lines"):
                deleted = self._writer.execute(
                    f"DELETE FROM {table} WHERE rowid IN "
                    f"(SELECT rowid FROM {table} WHERE swarm_id = ? LIMIT ?)",
                    (*found, limit),
                ).rowcount
                if deleted == limit:
                    return True
            self._writer.execute("DELETE FROM removed_swarms WHERE swarm_id = ?", found)
            return True

    # Reads.

    def _select(self, statement: str, *arguments: Any) -> list[Any]:
        with self._read_lock, self._translated():
            return self._reader.execute(statement, arguments).fetchall()

    def get(self, kind: type[R], key: str) -> R | None:
        rows = self._select(f"SELECT record FROM {kind.table} WHERE key = ?", key)
        return json_decoder(kind).decode(rows[0][0]) if rows else None

    def all(self, kind: type[R]) -> list[R]:
        decode = json_decoder(kind).decode
        return [
            decode(text)
            for (text,) in self._select(f"SELECT record FROM {kind.table} ORDER BY key")
        ]

    def events(self, swarm_id: str, after: int = 0) -> Iterator[StoredEvent]:
        while True:  # in pages, so that other readers need not wait
            rows = self._select(
                "SELECT number, body FROM events WHERE swarm_id = ? AND number > ? "
                "ORDER BY number LIMIT ?",
                swarm_id,
                after,
                _PAGE,
            )
            yield from itertools.starmap(StoredEvent, rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def logs(self, swarm_id: str, after: int = 0, limit: int = 1000) -> list[StoredLine]:
        rows = self._select(
            "SELECT position, node_id, body FROM log_lines WHERE swarm_id = ? AND position > ? "
            "ORDER BY position LIMIT ?",
            swarm_id,
            after,
            limit,
        )
        return list(itertools.starmap(StoredLine, rows))

    def log_ends(self, swarm_id: str) -> dict[str, int]:
        return dict(
            self._select(
                "SELECT node_id, MAX(number) FROM log_lines WHERE swarm_id = ? GROUP BY node_id",
                swarm_id,
            )
        )

    def unreferenced(self, digests: Iterable[str]) -> set[str]:
        left = set(digests)
        batch = list(left)
        for start in range(0, len(batch), _PAGE):
            part = batch[start : start + _PAGE]
            marks = ", ".join("?" * len(part))
            rows = self._select(
                f"SELECT DISTINCT digest FROM blob_references WHERE digest IN ({marks})", *part
            )
            left.difference_update(digest for (digest,) in rows)
        return left

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()
