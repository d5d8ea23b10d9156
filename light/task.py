"""The class that a module may derive its work from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manta.light.local import Local
from manta.light.world import World

if TYPE_CHECKING:
    import logging


class Task:
    """Derive from it and write `run()`, or `setup()` and `execute()`.

    With `run()` each round has a new object in a new process. With `execute()` the object,
    and all else that the module holds, lives on between the rounds on its node; `setup()`
    is called once, before the first. What `run` or `execute` returns is kept as the task's
    output. `__init__` may be left out, and need not call this class's.
    """

    @property
    def world(self) -> World:
        """The swarm around this task."""
        return World()

    @property
    def local(self) -> Local:
        """The node that this task runs on."""
        return Local()

    @property
    def logger(self) -> logging.Logger:
        """Its records reach the user live, with node, task and iteration."""
        from manta.light.log import logger

        return logger()
