"""`Leader`, `Sharing` and `Market` for asyncio: what waits is awaited, on a thread meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from manta.mesh.coordinators import (
    Done,
    Item,
    Leader,
    Leadership,
    Market,
    Outcome,
    Part,
    Sharing,
)

T = TypeVar("T")
_END: Any = object()


async def _each(items: Callable[[], T]) -> AsyncIterator[T]:
    while (item := await asyncio.to_thread(items)) is not _END:
        yield item


class AsyncLeader:
    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    @property
    def now(self) -> Leadership | None:
        """None while that is not decided."""
        return self._leader.now

    async def wait(self, after: int = 0, timeout: float | None = None) -> Leadership:
        """`Leader.wait`."""
        return await asyncio.to_thread(self._leader.wait, after, timeout)


class AsyncSharing:
    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self.owners = sharing.owners

    def items(self, timeout: float | None = None) -> AsyncIterator[Item]:
        """`Sharing.items`."""
        found = self._sharing.items(timeout)
        return _each(lambda: next(found, _END))

    async def done(self, item: Item, result: Any = None) -> None:
        """`Sharing.done`."""
        await asyncio.to_thread(self._sharing.done, item, result)

    async def wait(self, timeout: float | None = None) -> list[Done]:
        """`Sharing.wait`."""
        return await asyncio.to_thread(self._sharing.wait, timeout)


class AsyncMarket:
    def __init__(self, market: Market) -> None:
        self._market = market

    async def offer(self, work: str, units: int) -> None:
        """`Market.offer`."""
        await asyncio.to_thread(self._market.offer, work, units)

    async def outcome(self, work: str, timeout: float | None = None) -> Outcome:
        """`Market.outcome`."""
        return await asyncio.to_thread(self._market.outcome, work, timeout)

    def parts(self, timeout: float | None = None) -> AsyncIterator[Part]:
        """`Market.parts`."""
        found = self._market.parts(timeout)
        return _each(lambda: next(found, _END))

    def is_wanted(self, part: Part) -> bool:
        """`Market.is_wanted`."""
        return self._market.is_wanted(part)

    async def done(self, part: Part) -> None:
        """`Market.done`."""
        await asyncio.to_thread(self._market.done, part)
