"""How asynchronous code waits for the session's futures; `sync/waiting.py` is its twin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def outcome(future: Future[T]) -> T:
    return await asyncio.wrap_future(future)


async def in_thread(work: Callable[[], T]) -> T:
    """Do what may take long without holding up the event loop."""
    return await asyncio.to_thread(work)


async def pause(seconds: float) -> None:
    await asyncio.sleep(seconds)
