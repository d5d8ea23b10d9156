"""Messages between a node's actors, besides those that an actor's own module declares."""

from __future__ import annotations

import msgspec

from manta.node.policy.rules import SumLimit
from manta.node.scheduling.lanes import Lane
from manta.protocol.exchange import CheckNext, ExchangeRead, ResolvePeer
from manta.protocol.node import (
    Instance,
    ListGlobals,
    ReadGlobal,
    SelectResults,
)
from manta.protocol.peers import FetchPeers
from manta.protocol.roster import WantRoster
from manta.protocol.spread import BlobTold, WantBlob

# To the node supervisor, besides what the manager answers.


class FetchFailed(msgspec.Struct, frozen=True):
    """The desired state could not be fetched."""


class AttemptsAreFresh(msgspec.Struct, frozen=True):
    """An attempt has shown it. `fresh`: nothing lives on from one of its attempts to the next."""

    lane: Lane
    fresh: bool


class AttemptEnded(msgspec.Struct, frozen=True):
    """The attempt's TaskEnded is in the journal."""

    instance: Instance


class GpusFound(msgspec.Struct, frozen=True):
    """The machine has other GPUs than before: those of the context."""


class Drain(msgspec.Struct, frozen=True):
    """The operator wants the node to end once nothing runs on it, after `deadline` seconds in any
    case."""

    deadline: float | None


# To the node supervisor and the manager's link.


class Reconfigured(msgspec.Struct, frozen=True):
    """What the node offers may have changed with its configuration."""


class TroubleChanged(msgspec.Struct, frozen=True):
    """The node can no longer keep anything, or can again (`Storage.trouble`)."""


# To the keeper of the directories.


class SwarmOver(msgspec.Struct, frozen=True):
    """The manager wants nothing of the swarm any more."""

    swarm_id: str


# To the keeper of the plane.


class Connect(msgspec.Struct, frozen=True):
    """The attempt exchanges with others. Answered with the Descriptor of a connection to the plane;
    the first one begins it there. The actor at the path `owner` is told if the plane ends."""

    instance: Instance
    owner: str
    sums: SumLimit | None = None
    """All that it may tell others; None: there is no limit."""


class EndExchange(msgspec.Struct, frozen=True):
    """The attempt is over, and asks for nothing more. `counts`: nobody will take its place.
    `is_gone`: its process has ended, and all that it started.

    Answered once what it told others outlives the plane and the node; with False if it has no
    connection to the plane that there is.
    """

    instance: Instance
    counts: bool
    is_gone: bool = False


# From the keeper of the plane.


class ExchangeLost(msgspec.Struct, frozen=True):
    """The plane to which the attempt was connected has ended, or has forgotten what it said; `how`
    says why, if it is not the former, as a sentence without its end."""

    instance: Instance
    how: str = ""


class ExchangeBroken(msgspec.Struct, frozen=True):
    """The attempt has sent the plane what the protocol forbids; `why` follows on "because"."""

    instance: Instance
    why: str


# To the manager's link.


class AskGateway(msgspec.Struct, frozen=True):
    """Asks the manager, if the node is registered with it, and is answered with its answer."""

    request: FetchPeers | WantRoster | WantBlob | BlobTold


class AskManager(msgspec.Struct, frozen=True):
    """Asks the manager, now or when it is back, and is answered with its answer.

    The answer includes what `instance` wrote before.
    """

    request: ReadGlobal | ListGlobals | SelectResults | ResolvePeer | CheckNext | ExchangeRead
    instance: Instance


class AwaitWrites(msgspec.Struct, frozen=True):
    """Is answered once the manager has applied what the attempt has written by now, maybe when it
    is back."""

    instance: Instance


class ReadNetworkQuality(msgspec.Struct, frozen=True):
    """Answered with a number from 0 to 1, once enough was measured."""


class BlobMoved(msgspec.Struct, frozen=True):
    """A blob moved between this node and its manager."""

    size: int
    seconds: float


class Leave(msgspec.Struct, frozen=True):
    """The node is about to stop. Answered once the manager knows, if it can be reached."""
