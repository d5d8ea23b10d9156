"""How much each swarm takes in a database: counted with each write, so that nobody has to look."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from manta.manager.store.interface import AppendLogs, Extent

SIZE = "page_count * page_size"
"""The bytes that the database has, its log included."""
COLUMNS = (
    ", ".join(f"CAST({name} AS INTEGER)" for name in Extent._fields)
    + " FROM extents, pragma_page_count(), pragma_page_size()"
)


def extend(connection: sqlite3.Connection, swarm_id: str, by: Extent) -> None:
    connection.execute(
        "INSERT INTO extents VALUES (?, ?, ?, ?) ON CONFLICT (swarm_id) DO UPDATE SET "
        "event_bytes = event_bytes + excluded.event_bytes, lines = lines + excluded.lines, "
        "line_bytes = line_bytes + excluded.line_bytes",
        (swarm_id, *by),
    )


def append_logs(connection: sqlite3.Connection, write: AppendLogs) -> None:
    """Appends those lines that are not there."""
    swarm_id, node_id, first = write.swarm_id, write.node_id, write.first
    held = connection.execute(
        "SELECT number FROM log_lines WHERE swarm_id = ? AND node_id = ? "
        "AND number BETWEEN ? AND ?",
        (swarm_id, node_id, first, first + len(write.bodies) - 1),
    )
    known = {number for (number,) in held}
    fresh = [
        (swarm_id, node_id, number, body)
        for number, body in enumerate(write.bodies, first)
        if number not in known
    ]
    connection.executemany(
        "INSERT INTO log_lines (swarm_id, node_id, number, body) VALUES (?, ?, ?, ?)", fresh
    )
    size = sum(len(body) for *_, body in fresh)
    extend(connection, swarm_id, Extent(lines=len(fresh), line_bytes=size))


def read(row: Iterable[Any], most: int) -> Extent:
    """`most`: the bytes that the database has; what says more is damaged, and counts as nothing."""
    found = Extent(*row)
    return found if all(0 <= count <= most for count in found) else Extent()
