"""What an attempt asks of the plane, over connections of its own.

The wire is that of `manta.light.wire`: numbered requests, one at a time on each connection, and one
answer to each. A value of more than INLINE_LIMIT encoded bytes comes as a memfd that the task has
sealed, whose size is told instead.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from manta.light.wire import INLINE_LIMIT
from manta.node.task_server.requests import Count, Number, Numbered, Wait
from manta.protocol.spec import Name
from manta.transports.collectives.calls import Kind

MOST_LEAVES = 4096
ALIGNED = 64
"""Bytes: arrays begin at a multiple of it."""
Offset = Annotated[int, Meta(ge=0, lt=2**53)]
Word = Annotated[str, Meta(max_length=1000)]


class Handed(msgspec.Struct, frozen=True, array_like=True):
    """A value of that many bytes, in the descriptor that comes with the request."""

    size: Annotated[int, Meta(ge=1, lt=2**53)]


Value = Annotated[bytes, Meta(max_length=INLINE_LIMIT)] | Handed


class FindNode(Numbered, frozen=True):
    """`name` is a node's id or alias -> its id, or nothing if no node of that name has a part in
    the swarm, as far as this node was told"""

    name: Name


class SendLetter(Numbered, frozen=True):
    """`to` is a node's id -> nothing"""

    to: Name
    tag: Name
    value: Value
    timeout: Wait
    fds: int = 0


class ReceiveLetter(Numbered, frozen=True):
    """The letter of that number, from 0, that the attempt receives from the node with that id under
    a tag; asked again it is the same one -> a value"""

    source: Name
    tag: Name
    number: Count
    timeout: Wait


class ReturnLetters(Numbered, frozen=True):
    """The attempt is over and received only so many -> nothing"""

    source: Name
    tag: Name
    received: Count


class SayToAll(Numbered, frozen=True):
    """-> nothing"""

    tag: Name
    value: Value
    fds: int = 0


class HearBroadcast(Numbered, frozen=True):
    """-> a value"""

    tag: Name
    timeout: Wait


class MakeRoom(Numbered, frozen=True):
    """Memory to write arrays into that are to be reduced -> its number, and its descriptor unless
    the attempt has it mapped; 0 where there is none, and they are to be handed in as a value. And
    which of those that it has mapped are gone"""

    size: Annotated[int, Meta(ge=1, lt=2**53)]
    mapped: Annotated[tuple[Number, ...], Meta(max_length=100)] = ()
    """By number."""


class Leaf(msgspec.Struct, frozen=True, array_like=True):
    """An array among those to be reduced; see `manta.node.reduction.kernel.Leaf`."""

    start: Offset
    stop: Offset
    dtype: Word
    where: Word
    said: Word
    into: Word


class CallCollective(Numbered, frozen=True):
    """The collective `number` of the attempt, from 0 -> what comes of it; see
    `manta.node.plane.collectives.answers`.

    What it gives is in a room (arrays, to be reduced by `op` as `leaves` say) or in `value`. A
    second call under the same number, by a next attempt too, is answered like the first.
    """

    number: Count
    kind: Kind
    words: Word
    timeout: Wait
    root: Count = 0
    goes_on: bool = False
    op: Word = ""
    leaves: Annotated[tuple[Leaf, ...], Meta(max_length=MOST_LEAVES)] = ()
    sizes: Annotated[tuple[Offset, ...], Meta(max_length=100_000)] = ()
    """See `manta.transports.collectives.calls.Entry`. Of several, each begins at a multiple of
    `ALIGNED` in `value`, and at once after the other in a room."""
    forms: Annotated[tuple[tuple[Word, Word], ...], Meta(max_length=32)] = ()
    digest: Annotated[bytes, Meta(max_length=32)] = b""
    room: Number | None = None
    value: Value | None = None
    quorum: Number | Literal["alive"] | None = None
    """Of a gather, at its root: how many values are enough."""
    deadline: Wait | Literal["auto"] | None = None
    settles: bool = False
    """It is made once the manager has applied what the attempt wrote before."""
    returned: Annotated[tuple[Number, ...], Meta(max_length=100_000)] = ()
    """Blocks of which one mapping each is no longer in use."""
    fds: int = 0


PlaneRequest = (
    FindNode
    | SendLetter
    | ReceiveLetter
    | ReturnLetters
    | SayToAll
    | HearBroadcast
    | MakeRoom
    | CallCollective
)
