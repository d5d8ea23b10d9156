"""What peers of a mesh say to each other about who is in it.

The names are those of SWIM (Das, Gupta and Motivala 2002) and Lifeguard (Dadgar, Phillips and
Currey 2018). A message travels over a link whose key is proved: the sender is that key. A peer's
*life* is a session, a number that it draws when it begins; within a session its *incarnations*
count what it announced. Messages may be lost, doubled and overtake each other.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from manta.transports.codec.decoders import MALFORMED, msgpack_decoder
from manta.transports.errors import LocalTransportError, RemoteProtocolError
from manta.transports.security.keys import KEY_CHARACTERS

ROOM = 1_100
"""Bytes of a message with what rides on it. With the heads of IPv6, TCP, ZMTP and CURVE (about 140)
it is within the 1,280 that every IPv6 path carries whole: one packet, lost or there."""
FIXED = 100
"""Of these, what a message takes itself, at most."""
CLAIM = 600
"""Bytes of a claim: of a peer's name and addresses, that is."""
PAGE = 128
"""Claims in a page of `Records`, which is the one message beyond ROOM."""
BUCKETS = 64
"""Into so many parts views are divided to be compared."""
LARGEST = PAGE * CLAIM + ROOM
"""Bytes of any message."""
MOST_ADDRESSES = 8

Key = Annotated[str, msgspec.Meta(min_length=KEY_CHARACTERS, max_length=KEY_CHARACTERS)]
Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
Incarnation = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Address = Annotated[str, msgspec.Meta(min_length=1, max_length=280)]
Addresses = Annotated[tuple[Address, ...], msgspec.Meta(max_length=MOST_ADDRESSES)]


class _Claim(msgspec.Struct, frozen=True, array_like=True):
    key: Key
    """The peer that it is about."""
    session: Number
    incarnation: Incarnation


class Alive(_Claim, frozen=True, tag=1):
    """A peer as it announces itself: who it is, and where it listens."""

    order: Number
    """Greater than that of all peers which it knew when it joined; one's rank follows from it."""
    name: Name
    addresses: Addresses


class Suspect(_Claim, frozen=True, tag=2):
    """Peer `by` had no answer from it. It refutes that with a higher incarnation."""

    by: Key


class Dead(_Claim, frozen=True, tag=3):
    """Peer `by` gave it up."""

    by: Key


class Left(_Claim, frozen=True, tag=4):
    """It left the mesh of its own will."""


Accusation = Suspect | Dead | Left
Claim = Alive | Accusation
News = Annotated[tuple[Claim, ...], msgspec.Meta(max_length=PAGE)]


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


class Ping(_Message, frozen=True, tag=1):
    """Asks for `Ack`. With `asks`, the answer has what the receiver announces of itself, if it is
    in the mesh."""

    number: Number
    session: Number
    """The sender's."""
    asks: bool = False
    news: News = ()


class Ack(_Message, frozen=True, tag=2):
    """The peer that was to be pinged lives: the sender, or whom it pinged for the receiver."""

    number: Number
    session: Number
    """That peer's."""
    news: News = ()


class PingRequest(_Message, frozen=True, tag=3):
    """Asks the receiver to ping another: it answers `Ack` or `Nack`."""

    number: Number
    target: Key
    news: News = ()


class Nack(_Message, frozen=True, tag=4):
    """No answer from that peer yet: but the sender lives, and so do the links with it."""

    number: Number
    news: News = ()


class Gossip(_Message, frozen=True, tag=5):
    news: News


class Compare(_Message, frozen=True, tag=6):
    """The digests of the sender's view, of bucket `at` and those after it. Asks for `Records`."""

    number: Number
    at: Annotated[int, msgspec.Meta(ge=0, lt=BUCKETS)]
    digests: Annotated[tuple[Number, ...], msgspec.Meta(max_length=BUCKETS)]


class Records(_Message, frozen=True, tag=7):
    """What the sender knows of peers in `buckets`, which are those up to `upto` that differ. With
    number 0 it is an answer to such: what that one lacked."""

    number: Number
    upto: Annotated[int, msgspec.Meta(ge=0, le=BUCKETS)]
    buckets: Annotated[tuple[int, ...], msgspec.Meta(max_length=BUCKETS)]
    news: News


class Refused(_Message, frozen=True, tag=8):
    """The sender does not take the receiver in, and why."""

    sentence: Annotated[str, msgspec.Meta(max_length=300)]


Message = Ping | Ack | PingRequest | Nack | Gossip | Compare | Records | Refused

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode


def decode(data: bytes | memoryview) -> Message:
    """Raises RemoteProtocolError."""
    if len(data) > LARGEST:
        raise RemoteProtocolError(f"a message about membership of {len(data):,} bytes")
    try:
        message: Message = msgpack_decoder(Message).decode(data)
    except MALFORMED as error:
        raise RemoteProtocolError(f"no message about membership: {error}") from None
    return message


def size_of(message: Message | Claim) -> int:
    """Bytes of a message, or of a claim within one."""
    return len(encode(message))


def announcement(
    key: str, session: int, name: str, addresses: tuple[str, ...], incarnation: int = 0
) -> Alive:
    """What a peer says of itself when it begins. Raises LocalTransportError for a name or for
    addresses that no message holds."""
    alive = Alive(key, session, incarnation, 0, name, addresses)
    try:
        msgpack_decoder(Alive).decode(encode(alive))
    except MALFORMED as error:
        raise LocalTransportError(f"a peer cannot announce itself so: {error}") from None
    if size_of(alive) > CLAIM:
        raise LocalTransportError(
            f"the name and the addresses of peer {name!r} take {size_of(alive)} bytes, and a "
            f"message has room for {CLAIM}: give it fewer addresses"
        )
    return alive
