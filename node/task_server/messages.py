"""What a TaskSupervisor and the LightService say to each other about one runtime.

A *runtime* is a task process that outlives attempts; an *attempt* is one run of an instance in it.
What the task's code asks reaches the TaskSupervisor as a `requests.Request`; everything else that
the runtime does arrives as an event. Values are payloads: what is large lies in the node's memory
depot under its digest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from manta.protocol.node import Assignment, Instance, TaskError
    from manta.protocol.values import Payload


class Descriptor:
    """An open descriptor on its way to a task; it is closed by whoever has it last."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close


# To `RuntimeSessions.tell`, from any thread: nothing is lost while the service restarts.


class CloseSession(msgspec.Struct, frozen=True):
    session: str


class RunAttempt(msgspec.Struct, frozen=True):
    session: str
    assignment: Assignment
    datasets: dict[str, str]
    """Name -> path as the task sees it."""


class CancelAttempt(msgspec.Struct, frozen=True):
    """Asks the attempt's code to end, by SIGTERM; if it does not, the sender kills the runtime."""

    session: str
    instance: Instance
    reason: str
    stacks: bool = False
    """Its stacks are taken before, which StacksTaken tells."""


class CutAttempt(msgspec.Struct, frozen=True):
    """Kills the attempt, which has broken a protocol: `why` follows on "because"."""

    session: str
    instance: Instance
    why: str


class EndKept(msgspec.Struct, frozen=True):
    """The end of the session's latest attempt is in the journal: what came with its requests, and
    what it returned, is of no use here any more."""

    session: str


class TakeStacks(msgspec.Struct, frozen=True):
    """Asks for the stacks of the attempt's processes, which StacksTaken tells."""

    session: str
    instance: Instance


# From the LightService to the session's owner.


class PackagesFound(msgspec.Struct, frozen=True):
    """Names and versions of what the runtime's Python has."""

    session: str
    packages: tuple[tuple[str, str], ...]


class StacksTaken(msgspec.Struct, frozen=True):
    session: str
    instance: Instance
    text: str
    """Nothing where the attempt does not run."""
    asked: bool = True
    """By TakeStacks; else it is about to be ended."""


class How(msgspec.Struct, frozen=True):
    """How an attempt's process ended, as its runtime tells it; `Exited` of `wire` says more."""

    status: int | None = None
    """None where it goes on."""
    no_memory: bool = False
    moments: tuple[int, ...] = ()
    cpu: float | None = None
    memory: int | None = None


class RuntimeReady(msgspec.Struct, frozen=True):
    """Attempts may be sent."""

    session: str


class ObjectLives(msgspec.Struct, frozen=True):
    """It became known whether the module's object lives on between attempts."""

    session: str
    lives_on: bool


class AttemptExited(msgspec.Struct, frozen=True):
    """The attempt is over: all its output and requests came before. No error if it returned."""

    session: str
    instance: Instance
    output: Payload | None = None
    error: TaskError | None = None
    computing: float = 0.0
    """Seconds in the task's code, without its waits for the node."""
    moving: float = 0.0
    """Seconds that the task's code waited for the node."""
    loading: float = 0.0
    """Seconds in which the attempt imported the module."""
    platform: bool = False
    """The error is the node's fault, not that of the attempt's code."""
    how: How | None = None


class SessionLost(msgspec.Struct, frozen=True):
    """The runtime closed its connection without being asked to."""

    session: str
    sentence: str
