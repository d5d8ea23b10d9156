"""How asynchronous code waits; `sync/waiting.py` has the same functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
TICK = 1.0


async def outcome(future: Future[T], meanwhile: Callable[[], object] | None = None) -> T:
    """Calls `meanwhile` each TICK seconds."""
    waited = asyncio.wrap_future(future)
    while meanwhile is not None and not (await asyncio.wait({waited}, timeout=TICK))[0]:
        meanwhile()
    return await waited


async def in_thread(work: Callable[[], T]) -> T:
    """Does something slow without blocking the event loop."""
    return await asyncio.to_thread(work)


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)
