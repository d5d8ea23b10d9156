"""What a TaskSupervisor and the LightService say to each other about one runtime.

A *runtime* is a task process that outlives rounds; a *round* is one attempt of one
instance, run in it. Requests of the task's code reach the TaskSupervisor as `Request`
with a reply to be filled in; everything else that the runtime does arrives as an event.
Values are payloads: what is large lies in the node's memory depot under its digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from manta.actors import Ref
    from manta.protocol.node import Assignment, Instance, TaskError
    from manta.protocol.values import Payload


# To the LightService.


class OpenSession(msgspec.Struct, frozen=True):
    """Answered with SessionOpened."""

    session: str
    owner: Ref


class SessionOpened(msgspec.Struct, frozen=True):
    token: str
    socket: str
    """Path of the Unix socket; its folder is what a container mounts."""


# To `Sessions.tell`, from any thread: nothing is lost while the service is restarted.


class CloseSession(msgspec.Struct, frozen=True):
    session: str


class RunRound(msgspec.Struct, frozen=True):
    session: str
    assignment: Assignment
    node_alias: str
    datasets: dict[str, str]
    """Name -> path as the task sees it."""


class CancelRound(msgspec.Struct, frozen=True):
    """Asks the round's code to end, by SIGTERM; who says so kills a runtime that does not."""

    session: str
    instance: Instance
    reason: str


# From the LightService to the session's owner.


class RuntimeReady(msgspec.Struct, frozen=True):
    """The module was imported (or will be, anew each round); rounds may be given."""

    session: str
    mode: str
    """fork, resident or spawn."""
    why: str = ""
    """What makes it spawn."""


class RuntimeFailed(msgspec.Struct, frozen=True):
    """The module could not be imported or has nothing to run."""

    session: str
    error: TaskError


class Output(msgspec.Struct, frozen=True):
    """Lines that the round wrote; `stream` is stdout, stderr or a logging level."""

    session: str
    instance: Instance
    stream: str
    lines: tuple[tuple[float, str], ...]


class RoundEnded(msgspec.Struct, frozen=True):
    """`error` is None when it returned. All its output and requests came before."""

    session: str
    instance: Instance
    output: Payload | None
    error: TaskError | None
    computing: float
    """Seconds in the task's code, waiting for values left out."""
    moving: float
    """Seconds that the task's code waited for the node."""


class SessionLost(msgspec.Struct, frozen=True):
    """The runtime's connection closed without being asked to."""

    session: str
    sentence: str
