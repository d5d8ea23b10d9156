"""Live views in notebooks: whatever the API streams, as a table that is updated in place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Iterable
from typing import Any, overload

from manta.apis import checks, drawing
from manta.apis.errors import InvalidArgument
from manta.console import text
from manta.console.notebook import Shown

__all__ = ["watch"]

MOST_ROWS = 20
"""Rows that a view shows."""
PACE = 0.1
"""Seconds between updates at the arrival of what has no id, of which much may come at once."""


@overload
def watch(stream: AsyncIterable[Any]) -> asyncio.Task[None]: ...
@overload
def watch(stream: Iterable[Any]) -> None: ...
def watch(stream: Any) -> asyncio.Task[None] | None:
    """Shows what a stream of the API yields as a table in this cell, which is updated in place.

        watch(api.stream_nodes("lab", follow=True))
        watch(api.stream_metrics(swarm))

    Nodes, swarms and whatever else has an id have a row each, the first 20, as they are now; of
    results, metrics, events and log lines there are the latest 20. With a UserAPI the cell runs
    until the stream ends or the kernel is interrupted. With an AsyncUserAPI the view lives in the
    running loop while other cells run, and this returns its task: await it, or cancel() it.
    Raises InvalidArgument, outside of a notebook too, and what the stream raises.
    """
    if isinstance(stream, AsyncIterable):
        return asyncio.get_running_loop().create_task(_watch(stream))
    if not isinstance(stream, Iterable):
        raise InvalidArgument(
            f"watch() is given {checks.shown(stream)}: give a stream of the API, such as "
            'api.stream_nodes("lab", follow=True).'
        )
    view = _View(Shown())
    for item in stream:
        view.add(item)
    view.show()
    return None


async def _watch(stream: AsyncIterable[Any]) -> None:
    view = _View(Shown())
    async for item in stream:
        view.add(item)
    view.show()


class _View:
    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._shown_at = 0.0
        self._kind = "Nothing"
        self._rows: dict[object, dict[str, Any]] = {}
        self._latest = 0
        """The number of the latest item that has no id."""

    def add(self, item: Any) -> None:
        """Shows one more item, or one with an id anew. Raises InvalidArgument."""
        if not hasattr(item, "row"):
            raise InvalidArgument(
                f"watch() is given a stream of {checks.shown(item)}: give one of the API."
            )
        self._kind = type(item).__name__.removesuffix("Overview")
        key = getattr(item, "id", None)
        if key is None:
            self._latest += 1
            key = self._latest
            self._rows.pop(key - MOST_ROWS, None)
        self._rows[key] = item.row()
        if not self._latest or time.monotonic() - self._shown_at >= PACE:
            self.show()

    def show(self) -> None:
        """Shows the rows that there are."""
        rows = [*self._rows.values()][:MOST_ROWS]
        more = max(self._latest, len(self._rows)) - len(rows)
        header = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[str(row.get(column, "")) for column in header] for row in rows]
        plain = text.table(header, cells) if rows else [self._kind]
        self._shown.update(
            drawing.table(self._kind, rows, more), "\n".join(str(line) for line in plain)
        )
        self._shown_at = time.monotonic()
