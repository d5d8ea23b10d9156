"""Live views in notebooks: whatever the API streams, as a table that is updated in place."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, overload

from manta.apis import checks, drawing
from manta.apis.errors import InvalidArgument
from manta.console import text
from manta.console.notebook import Shown

__all__ = ["watch"]

MOST_ROWS = 20
"""Rows that a view shows."""
PACE = 0.1
"""Seconds between updates at least, since much may come at once."""
Later = Callable[[float, Callable[[], None]], object]
"""Calls something in so many seconds."""


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
    view = _View(Shown(), _in_a_thread)
    for item in stream:
        view.add(item)
    view.show()
    return None


async def _watch(stream: AsyncIterable[Any]) -> None:
    view = _View(Shown(), asyncio.get_running_loop().call_later)
    async for item in stream:
        view.add(item)
    view.show()


def _in_a_thread(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class _View:
    """Shows an item at once, or with those that follow it within the pace. Thread-safe."""

    def __init__(self, shown: Shown, later: Later) -> None:
        self._shown = shown
        self._later = later
        self._lock = threading.Lock()
        self._shown_at = 0.0
        self._is_due = False
        """A later update is under way."""
        self._kind = "Nothing"
        self._rows: dict[object, dict[str, Any]] = {}
        self._others: set[object] = set()
        """The ids of those that have no row."""
        self._latest = 0
        """The number of the latest item that has no id."""

    def add(self, item: Any) -> None:
        """Takes one more item, or one with an id anew. Raises InvalidArgument."""
        if not hasattr(item, "row"):
            raise InvalidArgument(
                f"watch() is given a stream of {checks.shown(item)}: give one of the API."
            )
        with self._lock:
            self._take(item)
            if self._is_due:
                return
            wait = self._shown_at + PACE - time.monotonic()
            self._is_due = wait > 0
        if wait > 0:
            self._later(wait, self.show)
        else:
            self.show()

    def _take(self, item: Any) -> None:
        self._kind = type(item).__name__.removesuffix("Overview")
        key = getattr(item, "id", None)
        if key is None:
            self._latest += 1
            key = self._latest
            self._rows.pop(key - MOST_ROWS, None)
        elif key not in self._rows and len(self._rows) >= MOST_ROWS:
            self._others.add(key)
            return
        self._rows[key] = item.row()

    def show(self) -> None:
        """Shows the rows that there are."""
        with self._lock:
            self._is_due = False
            self._shown_at = time.monotonic()
            rows = [*self._rows.values()]
            more = len(self._others) + max(0, self._latest - len(rows))
            header, *body = drawing.cells(rows) if rows else [[self._kind]]
            plain = "\n".join(str(line) for line in text.table(header, body))
            self._shown.update(drawing.table(self._kind, rows, more), plain)
