"""`UserAPI`, and `AsyncUserAPI` for asynchronous code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manta.apis.sync.user_api import UserAPI

if TYPE_CHECKING:
    from manta.apis.aio.user_api import AsyncUserAPI

__all__ = ["AsyncUserAPI", "UserAPI"]


def __getattr__(name: str) -> object:
    """AsyncUserAPI is imported when it is asked for: it costs asyncio."""
    if name == "AsyncUserAPI":
        from manta.apis.aio import user_api

        return user_api.AsyncUserAPI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
