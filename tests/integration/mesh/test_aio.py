"""A mesh for asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manta import AsyncMesh
from tests.integration.mesh.conftest import PATIENCE, SECRET

pytestmark = pytest.mark.timeout(120)


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


def test_all_that_waits_is_awaited() -> None:
    asyncio.run(meet())
