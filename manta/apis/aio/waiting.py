"""How asynchronous code waits; `sync/waiting.py` has the same functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def outcome(future: Future[T]) -> T:
    return await asyncio.wrap_future(future)


async def in_thread(work: Callable[[], T]) -> T:
    """Does something slow without blocking the event loop."""
    return await asyncio.to_thread(work)


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)
