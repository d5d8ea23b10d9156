"""Writes snapshots of swarms into a database."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from manta.manager.store.chain import End, chained
from manta.manager.store.interface import PutPages, PutSnapshot

SIZE = "SELECT COALESCE(SUM(LENGTH(body)), 0) FROM snapshots WHERE swarm_id = ?"
"""Selects the bytes of a swarm's snapshot, without its pages."""

PAGE = (
    "SELECT CAST(body AS BLOB), CAST(checksum AS BLOB) FROM snapshot_pages "
    "WHERE swarm_id = ? AND name = ?"
)
"""Selects a page and its checksum."""


def put(connection: sqlite3.Connection, write: PutSnapshot | PutPages, end: End | None) -> None:
    """`end`: of the swarm's log."""
    swarm_id = write.swarm_id
    _put_pages(connection, swarm_id, write.pages)
    if isinstance(write, PutPages) or end is None or end.number != write.number:
        connection.execute("DELETE FROM snapshots WHERE swarm_id = ?", (swarm_id,))
    else:
        # Chained to its event: the snapshot of a log that was set back is none of what follows.
        connection.execute(
            "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)",
            (swarm_id, write.number, write.body, chained(end.checksum, write.body)),
        )


def _put_pages(connection: sqlite3.Connection, swarm_id: str, pages: Mapping[str, bytes]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO snapshot_pages VALUES (?, ?, ?, ?)",
        ((swarm_id, name, body, chained(None, body)) for name, body in pages.items()),
    )
