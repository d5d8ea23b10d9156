"""What an attempt asks of the plane, over connections of its own.

The wire is that of `manta.light.wire`: numbered requests, one at a time on each connection, and one
answer to each. A value of more than INLINE_LIMIT encoded bytes comes as a memfd that the task has
sealed, whose size is told instead.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from manta.light.wire import INLINE_LIMIT
from manta.node.task_server.requests import Count, Numbered, Wait
from manta.protocol.spec import Name


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


PlaneRequest = FindNode | SendLetter | ReceiveLetter | ReturnLetters | SayToAll | HearBroadcast
