"""The class that a module may derive its tasks from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from manta.light.local import Local
from manta.light.world import World

if TYPE_CHECKING:
    import logging

T = TypeVar("T")


class _Given(Generic[T]):
    """An attribute that is there even without `__init__` and that user code may replace."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __get__(self, instance: Any, owner: type) -> T:
        return self._make()


def _logger() -> logging.Logger:
    from manta.light.log import logger

    return logger()


class Task:
    """The base of tasks, which define `run()`, or `setup()` and `execute()`.

    With `run()` each attempt has a new object in a new process. With `execute()` the object, and
    all else that the module holds, lives on between attempts on its node; `setup()` is called
    once, before the first. What `run` or `execute` returns is kept as the task's output.
    `__init__` may be left out and need not call this class's.

    `world` is the swarm around the task, `local` the node that it runs on. Records of `logger`
    reach the user live, with node, task and iteration.
    """

    world = _Given(World)
    local = _Given(Local)
    logger = _Given(_logger)
