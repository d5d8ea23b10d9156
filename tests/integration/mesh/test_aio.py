"""A mesh for asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manta import AsyncMesh
from manta.mesh.aio_coordinators import AsyncSharing
from tests.integration.mesh.conftest import PATIENCE, SECRET

pytestmark = pytest.mark.timeout(300)


async def meet() -> None:
    options: dict[str, Any] = {"secret": SECRET, "timeout": PATIENCE}
    async with AsyncMesh.join(name="one", **options) as one:
        two = await AsyncMesh.join(peers=one.address, name="two", **options)
        try:
            await asyncio.gather(one.wait(2, PATIENCE), two.wait(2, PATIENCE))
            assert set(await asyncio.gather(one.all_reduce(1), two.all_reduce(2))) == {3}
            received = asyncio.create_task(two.receive("one", "tag", PATIENCE))
            await one.send("two", "tag", "value")
            assert await received == "value"
            async with one.lock("a lock"):
                with pytest.raises(TimeoutError):
                    async with two.lock("a lock", timeout=0.3):
                        raise AssertionError("both have it")
        finally:
            await two.leave()
        async for event in one.events():
            if event["event"] == "left":
                assert event["name"] == "two"
                break


async def coordinate() -> None:
    options: dict[str, Any] = {"secret": SECRET, "timeout": PATIENCE}
    async with (
        AsyncMesh.join(name="one", **options) as one,
        AsyncMesh.join(peers=one.address, name="two", **options) as two,
    ):
        await asyncio.gather(one.wait(2, PATIENCE), two.wait(2, PATIENCE))
        async with one.leader() as first, two.leader() as second:
            led = await asyncio.gather(first.wait(0, PATIENCE), second.wait(0, PATIENCE))
            assert {found.leader for found in led} == {min(one.id, two.id)}
            assert first.now == led[0]
        async with one.share(4) as here, two.share(4) as there:

            async def work(sharing: AsyncSharing) -> list[int]:
                mine = []
                async for item in sharing.items(PATIENCE):
                    await sharing.done(item, item.number)
                    mine.append(item.number)
                return mine

            mine, others = await asyncio.gather(work(here), work(there))
            assert sorted(mine + others) == [0, 1, 2, 3]
            assert [done.result for done in await there.wait(PATIENCE)] == [0, 1, 2, 3]
        async with one.market(0) as manager, two.market(5) as contractor:
            await manager.offer("work", 5)
            async for part in contractor.parts(PATIENCE):
                assert contractor.is_wanted(part)
                await contractor.done(part)
                break
            assert (await manager.outcome("work", PATIENCE)).done == 5


def test_coordination_is_awaited() -> None:
    asyncio.run(coordinate())


def test_all_that_waits_is_awaited() -> None:
    asyncio.run(meet())
