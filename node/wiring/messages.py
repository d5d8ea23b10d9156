"""Messages between a node's actors, besides those that an actor's own module declares."""

from __future__ import annotations

import msgspec

from manta.protocol.exchange import CheckNext, ExchangeRead, ResolvePeer
from manta.protocol.node import (
    Desired,
    Instance,
    ListGlobals,
    ReadGlobal,
    SelectResults,
)

# To the node supervisor.


class WholeDesired(msgspec.Struct, frozen=True):
    """All that the node shall run. `fresh`: a registration brought it, not a fetch."""

    desired: Desired
    fresh: bool


class FetchFailed(msgspec.Struct, frozen=True):
    """All that the node shall run could not be fetched."""


class HeardVersion(msgspec.Struct, frozen=True):
    """A heartbeat told which version of the node's assignments the manager has."""

    version: int


class AttemptsAreFresh(msgspec.Struct, frozen=True):
    """A runtime is ready. `fresh`: nothing lives on from one of its attempts to the next."""

    swarm_id: str
    alias: str
    lane: int
    fresh: bool


class AttemptEnded(msgspec.Struct, frozen=True):
    """The attempt's TaskEnded is in the journal."""

    instance: Instance


# To the manager's link.


class AskManager(msgspec.Struct, frozen=True):
    """Asks the manager, now or when it is back, and is answered with its answer.

    The answer includes what `instance` wrote before.
    """

    request: ReadGlobal | ListGlobals | SelectResults | ResolvePeer | CheckNext | ExchangeRead
    instance: Instance


class ReadNetworkQuality(msgspec.Struct, frozen=True):
    """Answered with a number from 0 to 1, once enough was measured."""


class BlobMoved(msgspec.Struct, frozen=True):
    """A blob moved between this node and its manager."""

    size: int
    seconds: float


class Leave(msgspec.Struct, frozen=True):
    """The node is about to stop. Answered once the manager knows, if it can be reached."""


class FetchWhole(msgspec.Struct, frozen=True):
    """Asks for all that the node shall run; the fields are those of `FetchDesired`."""

    version: int
    after: int
