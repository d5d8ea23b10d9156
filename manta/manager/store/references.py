"""Who needs which blobs, in SQLite: the table blob_references."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from manta.manager.store.interface import Reference, Release

Select = Callable[..., list[Any]]

_BATCH = 256
"""Values of one kind in a statement at most."""


def write(connection: sqlite3.Connection, one: Reference | Release) -> None:
    if isinstance(one, Reference):
        connection.executemany(
            "INSERT OR IGNORE INTO blob_references VALUES (?, ?, ?)",
            ((digest, one.holder, one.scope) for digest in one.digests),
        )
    else:
        connection.executemany(
            "DELETE FROM blob_references WHERE digest = ? AND holder = ?",
            ((digest, one.holder) for digest in one.digests),
        )


def unreferenced(select: Select, digests: Iterable[str]) -> set[str]:
    left = set(digests)
    for part in _batches(left):
        rows = select(
            f"SELECT DISTINCT digest FROM blob_references WHERE digest IN ({_marks(part)})", *part
        )
        left.difference_update(digest for (digest,) in rows)
    return left


def named(
    select: Select, digests: Iterable[str], holders: Iterable[str], scopes: Iterable[str]
) -> set[str]:
    """As `Store.named`: for each blob and place it looks at one entry of an index."""
    wanted, found = set(digests), set[str]()
    for column, places in (("holder", holders), ("scope", scopes)):
        for some in _batches(place for place in places if place):
            for part in _batches(wanted - found):
                rows = select(
                    f"WITH asked (digest) AS (VALUES {', '.join(['(?)'] * len(part))}) "
                    "SELECT digest FROM asked WHERE EXISTS (SELECT 1 FROM blob_references AS one "
                    f"WHERE one.digest = asked.digest AND one.{column} IN ({_marks(some)}))",
                    *part,
                    *some,
                )
                found.update(digest for (digest,) in rows)
    return found


def _batches(values: Iterable[str]) -> Iterator[list[str]]:
    """Batches of 1, 2, 4, ... values, the last one of which is repeated to that end: a statement is
    compiled, and kept, for each number of them."""
    every = list(values)
    for start in range(0, len(every), _BATCH):
        part = every[start : start + _BATCH]
        lacking = (1 << (len(part) - 1).bit_length()) - len(part)
        yield part + part[-1:] * lacking


def _marks(values: list[str]) -> str:
    return ", ".join("?" * len(values))
