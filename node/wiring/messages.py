"""What the actors of a node say to each other, apart from `session` and each actor's own."""

from __future__ import annotations

import msgspec

from manta.protocol.exchange import CheckNext, ExchangeRead, ResolvePeer
from manta.protocol.node import (
    Assignment,
    Desired,
    Instance,
    ListGlobals,
    ReadGlobal,
    SelectResults,
)

# To the node supervisor.


class WholeDesired(msgspec.Struct, frozen=True):
    """`fresh`: of a registration; else the answer to a fetch."""

    desired: Desired
    fresh: bool


class FetchFailed(msgspec.Struct, frozen=True):
    """The whole could not be fetched."""


class HeardVersion(msgspec.Struct, frozen=True):
    """The manager's version of what this node shall run."""

    version: int


class TaskUp(msgspec.Struct, frozen=True):
    """A task supervisor runs, for the first time or again: give it what it is to run."""

    swarm_id: str
    alias: str
    lane: int


class RoundsAreFresh(msgspec.Struct, frozen=True):
    """A runtime is ready: whether each of its rounds starts afresh, or an object lives on."""

    swarm_id: str
    alias: str
    lane: int
    fresh: bool


class AttemptEnded(msgspec.Struct, frozen=True):
    """Its TaskEnded is in the journal."""

    instance: Instance


# To a task supervisor.


class Run(msgspec.Struct, frozen=True):
    assignment: Assignment
    queued: float
    at: float


class Revoke(msgspec.Struct, frozen=True):
    instance: Instance


# To the manager's link.


class AskManager(msgspec.Struct, frozen=True):
    """Relayed to the manager, now or when it is back; answered with its answer.

    It sees what `instance` wrote before.
    """

    request: ReadGlobal | ListGlobals | SelectResults | ResolvePeer | CheckNext | ExchangeRead
    instance: Instance


class ReadNetworkQuality(msgspec.Struct, frozen=True):
    """Answered with a number from 0 to 1, once enough was measured."""


class BlobMoved(msgspec.Struct, frozen=True):
    """Between this node and its manager, in so many seconds."""

    size: int
    seconds: float


class Leave(msgspec.Struct, frozen=True):
    """The node is about to stop: answered once the manager knows, if it can be reached."""


class FetchWhole(msgspec.Struct, frozen=True):
    """Ask the manager for all that the node shall run, as `FetchDesired`."""

    version: int
    after: int
