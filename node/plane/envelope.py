"""A message about a swarm as it crosses the link between two planes."""

from __future__ import annotations

from typing import Annotated

import msgspec

from manta.node.plane.collectives.messages import Message as OfCollective
from manta.protocol.base import Named
from manta.transports.codec.decoders import MALFORMED
from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange import messages

VERSION = 1


class WantParcel(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """The holder is to send the parcel as the bulk transfer with this id."""

    parcel: messages.ParcelId
    transfer: messages.ParcelId


class NoParcel(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """The holder has it no more: a later value has taken its place, or what named it is over."""

    transfer: messages.ParcelId


class BulkAt(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """Where the sender takes bulk, at its host, and the ticket that admits the receiver there.
    `mark` says on what machine it is, to who is there as well (`local`). With `over_link`, bulk is
    to go over the link alone."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    ticket: bytes
    mark: Annotated[str, msgspec.Meta(max_length=64)] = ""
    over_link: bool = False


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=35):
    """`Pong` answers at once."""

    number: int


class Pong(msgspec.Struct, frozen=True, array_like=True, tag=36):
    number: int


class NotNow(msgspec.Struct, frozen=True, array_like=True, tag=37):
    """The holder does not send it yet, and why: it is to be asked again."""

    transfer: messages.ParcelId
    why: messages.Sentence


class Aside(msgspec.Struct, frozen=True, array_like=True, tag=38):
    """What those have to say to each other who keep the two planes, as the peers of a mesh."""

    data: bytes


Body = (
    messages.Message | WantParcel | NoParcel | NotNow | BulkAt | Ping | Pong | Aside | OfCollective
)


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """`epoch` is the manager's timeline of the swarm. Both are empty for what concerns the link."""

    version: int
    swarm_id: Named
    epoch: Named
    body: Body


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Envelope).decode


def pack(swarm_id: str, epoch: str, body: Body) -> bytes:
    return _encode(Envelope(VERSION, swarm_id, epoch, body))


def unpack(data: bytes | bytearray | memoryview) -> Envelope:
    """Raises RemoteProtocolError."""
    try:
        return _decode(data)
    except MALFORMED as error:
        raise RemoteProtocolError(f"a message between nodes is malformed: {error}") from error
