"""Distributed and federated algorithms on machines that people own.

Names are imported when they are asked for, so that each costs only what it needs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not typing's: it would be the first thing that every command waits for
if TYPE_CHECKING:
    from manta.apis.async_user_api import AsyncUserAPI as AsyncUserAPI
    from manta.apis.graph import Condition as Condition
    from manta.apis.module import Module as Module
    from manta.apis.results import Results as Results
    from manta.apis.swarm import Swarm as Swarm
    from manta.apis.task import Task as Task
    from manta.apis.user_api import UserAPI as UserAPI

__all__ = ["AsyncUserAPI", "Condition", "Module", "Results", "Swarm", "Task", "UserAPI"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from manta import apis

        return getattr(apis, name)
    raise AttributeError(f"module 'manta' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
