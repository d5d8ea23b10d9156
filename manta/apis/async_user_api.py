"""`AsyncUserAPI`, for asynchronous code."""

from __future__ import annotations

from manta.apis.aio.user_api import AsyncUserAPI

__all__ = ["AsyncUserAPI"]
