"""Finds what is damaged in a database that SQLite itself finds intact."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import deque
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from manta.manager.errors import DamagedLog
from manta.manager.store.chain import checked, end_of
from manta.manager.store.records import Record
from manta.manager.store.sqlite import END, EVENT, RECORDS, read_record
from manta.transports.codec.stored import Damaged

_EVENTS = (
    f"SELECT CAST(swarm_id AS BLOB), {EVENT} FROM events "
    "WHERE swarm_id NOT IN (SELECT swarm_id FROM removed_swarms) ORDER BY swarm_id, number"
)
_ENDS = f"SELECT CAST(swarm_id AS BLOB), {END} FROM event_ends"


def flaws(database: Path, name: str) -> Iterator[str]:
    """Yields a sentence for each record and each log that is damaged; in them the database is
    called `name`. It may be of an earlier schema, and in use. Raises sqlite3.Error."""
    uri = f"file:{database}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.execute("BEGIN")  # all of one moment
        tables = {
            table for (table,) in connection.execute("SELECT name FROM sqlite_master").fetchall()
        }
        for kind in Record.__subclasses__():
            if kind.table in tables:
                for key, content in connection.execute(RECORDS.format(kind.table)):
                    try:
                        read_record(name, kind, key, content)
                    except Damaged as damaged:
                        yield str(damaged)
        if "event_ends" in tables:
            yield from _log_flaws(connection, name)


def _log_flaws(connection: sqlite3.Connection, name: str) -> Iterator[str]:
    ends = {swarm_id: end for swarm_id, *end in connection.execute(_ENDS)}
    for swarm_id, rows in groupby(connection.execute(_EVENTS), lambda row: row[0]):
        try:
            end = end_of(*ends.pop(swarm_id)) if swarm_id in ends else None
            deque(checked((row[1:] for row in rows), end), maxlen=0)
        except DamagedLog as damaged:
            yield f"{name}: the event log of swarm {_text(swarm_id)} is damaged: {damaged}."
    for swarm_id in ends:
        yield f"{name}: the event log of swarm {_text(swarm_id)} is gone."


def _text(swarm_id: bytes) -> str:
    return swarm_id.decode(errors="replace")
