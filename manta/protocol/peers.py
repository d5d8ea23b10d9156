"""What a node is told of the other nodes of a swarm, so that they can speak to each other directly.

The *directory* of a swarm lists the nodes that were given attempts in its current iteration or in
the one before. Each of them is told of all of them, and nobody else is of any. Like the desired
state it has a version: a node applies what continues its own, and otherwise fetches the whole.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from manta.protocol.base import Message, Version

MOST_ADDRESSES = 8
"""Addresses that a node may have others told."""

Address = Annotated[str, msgspec.Meta(min_length=1, max_length=280)]
"""`tcp://host:port`, where somebody listens for peers."""
Addresses = Annotated[tuple[Address, ...], msgspec.Meta(max_length=MOST_ADDRESSES)]


class Peer(msgspec.Struct, frozen=True, array_like=True):
    """A node of a swarm. `addresses` are tried in this order; it has none if it only dials."""

    node_id: str
    alias: str
    key: str
    addresses: tuple[str, ...] = ()


class LinkKind(StrEnum):
    """How what two nodes say to each other goes from one to the other."""

    DIRECT = "direct"
    """Encrypted, over a connection of their own."""
    LOCAL = "local"
    """So, but for large values, which they share in the memory of one machine."""
    RELAYED = "relayed"
    """As ciphertext, through the manager, or a node that both can connect to."""
    DOWN = "down"
    """It does not, for now."""


class PeerLink(msgspec.Struct, frozen=True, array_like=True):
    """A node's link with another, as the node sees it; `kind` is a LinkKind."""

    node_id: Annotated[str, msgspec.Meta(max_length=100)]
    alias: Annotated[str, msgspec.Meta(max_length=100)]
    kind: Annotated[str, msgspec.Meta(max_length=20)]
    since: Annotated[float, msgspec.Meta(ge=0)]
    """Seconds since the epoch by the node's clock."""
    sent: Annotated[int, msgspec.Meta(ge=0)]
    """Bytes of what tasks and nodes said, without what encryption adds."""
    received: Annotated[int, msgspec.Meta(ge=0)]
    round_trip: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Seconds; 0 if it is not known."""
    error: Annotated[str, msgspec.Meta(max_length=300)] = ""
    """Why the last attempt at a direct link failed, or why that was lost; of a direct link, why
    large values take a slower way."""


MOST_LINKS = 250
"""That a node tells of."""
LinksTold = Annotated[tuple[PeerLink, ...], msgspec.Meta(max_length=MOST_LINKS)]


class Departure(StrEnum):
    """Why a node is in a directory no longer."""

    REVOKED = "revoked"
    """It was removed from its cluster: its key is nobody's."""
    LOST = "lost"
    """The manager has heard nothing of it for long. It may come back."""
    OVER = "over"
    """It has no part in the swarm any more."""


class Departed(msgspec.Struct, frozen=True, array_like=True):
    """A node that was in the directory. `why` is a Departure; `sentence` says more of it, as the
    rest of a sentence that begins with the node's name, and may be empty."""

    node_id: str
    alias: str
    key: str
    why: str
    sentence: str = ""


# Manager to node.


class PeersChanged(Message, frozen=True):
    """Makes `version` of the version `since`; of nothing, if that is 0. A node that has another
    one fetches the whole, as it does if there is none that fits into a message (`since` is -1).

    `epoch` names the manager's timeline of the swarm: a manager that has gone back to an older
    state begins another. A node that finds itself among `departed` forgets the directory.
    """

    swarm_id: str
    epoch: str
    version: int
    since: int
    peers: tuple[Peer, ...] = ()
    departed: tuple[Departed, ...] = ()


# Node to manager.


class FetchPeers(Message, frozen=True):
    """The directory of a swarm; of `version`, what comes after the node with the id `after`."""

    swarm_id: str
    version: Version = 0
    after: str = ""


class Peers(Message, frozen=True):
    """A page of a directory, in order of the nodes' ids; `departed` is in the first.

    Where the version is not the one that was asked for, it is the first page of that one.
    """

    swarm_id: str
    epoch: str
    version: int
    peers: tuple[Peer, ...] = ()
    departed: tuple[Departed, ...] = ()
    more: bool = False


FetchPeers.reply = Peers
