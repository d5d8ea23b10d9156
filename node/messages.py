"""What the actors of a node say to each other, apart from `session` and each actor's own."""

from __future__ import annotations

from dataclasses import dataclass

from manta.protocol.node import (
    Assignment,
    Desired,
    Instance,
    ListGlobals,
    ReadGlobal,
    SelectResults,
)

# To the node supervisor.


@dataclass(frozen=True)
class WholeDesired:
    """`fresh`: of a registration; else the answer to a fetch."""

    desired: Desired
    fresh: bool


@dataclass(frozen=True)
class FetchFailed:
    """The whole could not be fetched."""


@dataclass(frozen=True)
class HeardVersion:
    """The manager's version of what this node shall run."""

    version: int


@dataclass(frozen=True)
class ReadHeld:
    """Answered with a tuple of the instances that the node holds."""


@dataclass(frozen=True)
class TaskUp:
    """A task supervisor runs, for the first time or again: give it what it is to run."""

    swarm_id: str
    alias: str
    index: int


@dataclass(frozen=True)
class AttemptEnded:
    """Its TaskEnded is in the journal."""

    instance: Instance


# To a task supervisor.


@dataclass(frozen=True)
class Run:
    assignment: Assignment
    queued: float


@dataclass(frozen=True)
class Revoke:
    instance: Instance


# To the manager's link.


@dataclass(frozen=True)
class AskManager:
    """Relayed to the manager, now or when it is back; answered with its answer.

    It sees what `instance` wrote before.
    """

    request: ReadGlobal | ListGlobals | SelectResults
    instance: Instance


@dataclass(frozen=True)
class FetchWhole:
    """Ask the manager for all that the node shall run."""
