"""The SDK: how users write swarms and talk to a manager."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manta.apis.async_user_api import AsyncUserAPI as AsyncUserAPI
    from manta.apis.graph import Condition as Condition
    from manta.apis.module import Module as Module
    from manta.apis.results import Results as Results
    from manta.apis.swarm import Swarm as Swarm
    from manta.apis.task import Task as Task
    from manta.apis.user_api import UserAPI as UserAPI

_HOMES = {
    "AsyncUserAPI": "async_user_api",
    "Condition": "graph",
    "Module": "module",
    "Results": "results",
    "Swarm": "swarm",
    "Task": "task",
    "UserAPI": "user_api",
}
__all__ = ["AsyncUserAPI", "Condition", "Module", "Results", "Swarm", "Task", "UserAPI"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'manta.apis' has no attribute {name!r}")
    return getattr(import_module(f"manta.apis.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
