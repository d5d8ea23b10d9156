"""What the instances of a swarm exchange by way of the manager: checkpoints and locks, and in a
swarm that an earlier version created all else.

What a task says goes through its node's journal, like everything else; what it waits for, it
reads by long poll, which changes nothing.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from manta.protocol.base import Count, Instance, Message, Ok
from manta.protocol.values import INLINE_LIMIT, Payload

# Journal entries.


class Broadcasted(Message, frozen=True):
    """`get_broadcast` returns the latest value of a tag in an iteration."""

    instance: Instance
    tag: str
    value: Payload


class Sent(Message, frozen=True):
    """To the node with the id `to`. The k-th message that an instance sends there under a tag is
    the same in each attempt: a retry does not send twice."""

    instance: Instance
    to: str
    tag: str
    value: Payload


class Receiving(Message, frozen=True):
    """Claims the next message from the node `source` under the tag, for a ReadMessage.

    When the attempt fails, what it had claimed goes to the next claim.
    """

    instance: Instance
    source: str
    tag: str


class ClaimsReturned(Message, frozen=True):
    """Of the claims that the attempt made to messages from `source` under the tag, only the first
    `received` were served before it ended; what others had claimed goes to the next claim."""

    instance: Instance
    source: str
    tag: str
    received: Annotated[int, msgspec.Meta(ge=0)]


class Contributed(Message, frozen=True):
    """An instance's part in a collective of its task; `number` counts these from 0 in an iteration.

    `kind` is what it called, with what must be the same for all, as in "all_reduce(op='sum')".
    `to` is the rank that it is for, None for all. Of several attempts, the first to contribute
    counts, so that all see the same. `value` is None in a barrier.
    """

    instance: Instance
    number: Annotated[int, msgspec.Meta(ge=0)]
    kind: str
    value: Payload | None = None
    to: int | None = None


class LockWanted(Message, frozen=True):
    """Queues for a named lock of the swarm, which the end of the attempt releases."""

    instance: Instance
    name: str


class LockReleased(Message, frozen=True):
    instance: Instance
    name: str


class Checkpointed(Message, frozen=True):
    """What a later attempt of this instance in this iteration restores. The last one counts."""

    instance: Instance
    value: Payload


Said = (
    Broadcasted
    | Sent
    | Receiving
    | ClaimsReturned
    | Contributed
    | LockWanted
    | LockReleased
    | Checkpointed
)
"""What an instance tells others, or claims; entries of the journal."""

# Reads. `wait`: seconds after which they are answered in any case.

Wait = Annotated[float, msgspec.Meta(ge=0, le=25)]


class ResolvePeer(Message, frozen=True):
    """`name` is a node's id or alias in the instance's cluster. Refused when there is none, or
    when the networks of the swarm forbid this instance to talk to it."""

    instance: Instance
    name: str


class ResolvedPeer(Message, frozen=True, tag="Peer"):
    """`letters` and `size`: how many letters, with values of so many bytes that are no blobs, the
    instance may send there before it asks by ReadRoom; None from a manager that sets no bound."""

    node_id: str
    alias: str
    letters: int | None = None
    size: int = 0


class CheckNext(Message, frozen=True):
    """May the next iteration run on these nodes (ids or aliases), from the task with this alias?

    Refused when there is no such node in the instance's cluster, or no such task in its swarm.
    """

    instance: Instance
    node_ids: tuple[str, ...]
    alias: str | None


class ReadPeers(Message, frozen=True):
    instance: Instance


class PeerInstance(msgspec.Struct, frozen=True, array_like=True):
    """An instance of the same task in the same iteration. `share` is its part by measured
    speed; the shares of a task add up to 1."""

    rank: int
    node_id: str
    node_alias: str
    share: float


class PeerInstances(Message, frozen=True):
    peers: tuple[PeerInstance, ...]


class ReadBroadcast(Message, frozen=True):
    instance: Instance
    tag: str
    wait: Wait = 0.0


class ReadMessage(Message, frozen=True):
    """The `number`-th message, from 0, that this attempt claimed from `source` under the tag."""

    instance: Instance
    source: str
    tag: str
    number: Count
    wait: Wait = 0.0


class ReadRoom(Message, frozen=True):
    """May the instance send a letter to the node `to`, with a value of `size` bytes (0 for a blob)?
    Ready with how much it may send before it asks again: `letters` and `size` of Exchanged.
    Where `to` is empty it asks so of broadcasts and contributions."""

    instance: Instance
    to: str
    size: Annotated[int, msgspec.Meta(ge=0, le=INLINE_LIMIT)]
    wait: Wait = 0.0


class ReadContributions(Message, frozen=True):
    """What `ranks` (empty: all) contributed for this instance to a collective.

    Ready when all have contributed, or `enough` of them. `partial` asks for what is there now,
    ready or not. With `on_loss` "raise" a lost peer ends the wait, with "continue" it is left
    out. `after` entries were received already.
    """

    instance: Instance
    number: Count
    kind: str
    ranks: tuple[Count, ...] = ()
    enough: Count | None = None
    partial: bool = False
    on_loss: str = "raise"
    after: Count = 0
    wait: Wait = 0.0


class ReadLock(Message, frozen=True):
    """Ready once this attempt holds the lock that it queued for."""

    instance: Instance
    name: str
    wait: Wait = 0.0


class ReadCheckpoint(Message, frozen=True):
    instance: Instance


class Checkpoint(Message, frozen=True):
    """`value` is None when there is none."""

    value: Payload | None


class Contribution(msgspec.Struct, frozen=True, array_like=True):
    """`rank` is -1 where nobody's rank is asked for (broadcast, message, lock)."""

    rank: int
    value: Payload | None


class Exchanged(Message, frozen=True):
    """When `ready`, `values` are what was asked for. Else, when the wait can never end, `error`
    names a class of `manta.light.errors` and `sentence` says why; without `error`, `sentence`
    says who is waited for. `missing` ranks will never answer."""

    ready: bool
    values: tuple[Contribution, ...] = ()
    more: bool = False
    missing: tuple[int, ...] = ()
    error: str = ""
    sentence: str = ""
    letters: int = 0
    size: int = 0


ResolvePeer.reply = ResolvedPeer
CheckNext.reply = Ok
ReadPeers.reply = PeerInstances
ReadBroadcast.reply = Exchanged
ReadMessage.reply = Exchanged
ReadRoom.reply = Exchanged
ReadContributions.reply = Exchanged
ReadLock.reply = Exchanged
ReadCheckpoint.reply = Checkpoint

ExchangeRead = (
    ReadBroadcast
    | ReadMessage
    | ReadRoom
    | ReadContributions
    | ReadLock
    | ReadPeers
    | ReadCheckpoint
)
"""Answered by the swarm. The Gateway has a part in `ResolvePeer` and `CheckNext`."""
