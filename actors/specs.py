"""How supervisors treat their children, in OTP's terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from manta.actors.address import Address
from manta.actors.exits import ExitReason


class Strategy(StrEnum):
    """Which siblings are restarted with a child."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


class Restart(StrEnum):
    """After which exits a child is restarted."""

    PERMANENT = "permanent"  # all
    TRANSIENT = "transient"  # abnormal ones
    TEMPORARY = "temporary"  # none


class ChildType(StrEnum):
    """What a child is. By default, a supervisor has unlimited time to stop."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"


class AutoShutdown(StrEnum):
    """Whether a supervisor ends when significant children end by themselves."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


class ChildSpec(msgspec.Struct, frozen=True):
    """How to start, restart and stop one child.

    `start` returns a new Actor; it is called in the child's own thread, for each
    restart again. `shutdown` is how many seconds the child has to stop before it
    is abandoned; the default is 5 for a worker, and no limit for a supervisor.
    """

    id: str
    start: Callable[[], Any]
    restart: Restart = Restart.PERMANENT
    shutdown: float | None = None
    significant: bool = False
    type: ChildType = ChildType.WORKER

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("A ChildSpec needs an id: it is the last part of the child's path.")
        if self.significant and self.restart is Restart.PERMANENT:
            raise ValueError(
                f"Child {self.id!r} is permanent, so it never ends by itself and cannot be "
                "significant: make it transient or temporary."
            )

    @property
    def seconds_to_stop(self) -> float:
        if self.shutdown is not None:
            return self.shutdown
        return math.inf if self.type is ChildType.SUPERVISOR else 5.0


class Phase(StrEnum):
    """The state of a child."""

    DOWN = "down"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RETRYING = "retrying"  # its last start failed, and the next one is about to be tried


class ChildInfo(msgspec.Struct, frozen=True):
    """A child as its supervisor sees it."""

    id: str
    phase: Phase
    type: ChildType
    restart: Restart
    restarts: int
    address: Address | None
    last_exit: ExitReason | None
