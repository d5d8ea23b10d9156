"""How a blob comes to all nodes of a swarm that want it without the manager sending it to each.

A node that is to fetch a blob asks the manager whom from (`WantBlob`), and is named a node that has
it, or is receiving it: that one passes on what it has. It tells how that ended (`BlobTold`), which
needs not arrive: then it is named to others, or not, a while longer. A node of which a task wrote
the blob, as a global or a result, tells so too.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from manta.protocol.base import Count, Message, Named, Ok
from manta.protocol.peers import Peer

MOST_FAILED = 16
"""Nodes that may be named as those that did not give a blob."""

MOST_FREED = 1000
"""Values of results that a node is told at a time to delete."""

SPREAD = 1 << 20
"""Bytes of a blob from which on the manager is asked whom to fetch it from."""

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class WantBlob(Message, frozen=True):
    """The node is about to fetch this blob of the swarm. `failed`: who did not give it, by id.
    With `whole`, only who has all of it is named: parts that others passed on were wrong. With
    `recall` only the manager is, once the holder has sent it there: other nodes did not give it, or
    the node has these bytes of another swarm, and asks whether they are this one's."""

    swarm_id: Named
    digest: Digest
    size: Count
    failed: Annotated[tuple[Named, ...], msgspec.Meta(max_length=MOST_FAILED)] = ()
    whole: bool = False
    holder: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """The node, by id, on which it stays, if it is a result that the manager does not have."""
    recall: bool = False


class BlobFrom(Message, frozen=True):
    """`source`: whom to fetch it from, with the addresses at which it gives blobs; None for the
    manager itself. With `wait`, neither: it is asked again after so many seconds."""

    source: Peer | None = None
    wait: float = 0.0


class BlobTold(Message, frozen=True):
    """The node has the blob, fetched or written by a task there, or could not get or keep it."""

    swarm_id: Named
    digest: Digest
    held: bool


# Manager to node.


class PushResult(Message, frozen=True):
    """The node is to push this result of the swarm, which it holds; answered when it has."""

    swarm_id: Named
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0)]


class FreeResults(Message, frozen=True):
    """Users have deleted these results of the swarm that stay on the node: it deletes their values,
    unless it still has something to tell of them."""

    swarm_id: Named
    digests: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MOST_FREED)]


class FreedResults(Message, frozen=True):
    """`kept`: those of them that the node has kept for now: it is asked again."""

    kept: tuple[Digest, ...] = ()


WantBlob.reply = BlobFrom
PushResult.reply = Ok
FreeResults.reply = FreedResults
BlobTold.reply = Ok
