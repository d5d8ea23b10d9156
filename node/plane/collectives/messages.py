"""What planes say to each other about collectives, within the envelope of a swarm."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, structs

from manta.transports.codec.decoders import MALFORMED
from manta.transports.collectives import messages as collective
from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange.messages import Count, Name

Token = Annotated[bytes, Meta(max_length=16)]


class _Said(msgspec.Struct, frozen=True, array_like=True):
    pass


class Announcement(_Said, frozen=True, tag=1):
    message: collective.Announcement


class Probe(_Said, frozen=True, tag=2):
    message: collective.Probe


class Relayed(_Said, frozen=True, tag=3):
    message: collective.Relayed


class Wanted(_Said, frozen=True, tag=4):
    message: collective.Wanted


class Noted(_Said, frozen=True, tag=5):
    message: collective.Noted


class Finished(_Said, frozen=True, tag=6):
    message: collective.Finished


class Aborted(_Said, frozen=True, tag=7):
    message: collective.Aborted


class Begun(_Said, frozen=True, tag=8):
    message: collective.Begun


class Fits(_Said, frozen=True, tag=9):
    message: collective.Fits


class Left(_Said, frozen=True, tag=10):
    message: collective.Left


Tagged = Announcement | Probe | Relayed | Wanted | Fits | Noted | Begun | Finished | Aborted | Left
_TAGGED = {
    collective.Announcement: Announcement,
    collective.Probe: Probe,
    collective.Relayed: Relayed,
    collective.Wanted: Wanted,
    collective.Fits: Fits,
    collective.Noted: Noted,
    collective.Begun: Begun,
    collective.Finished: Finished,
    collective.Aborted: Aborted,
    collective.Left: Left,
}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Tagged).decode


def packed(message: collective.Message) -> bytes:
    return _encode(_TAGGED[type(message)](message))


def unpacked(data: bytes | bytearray) -> collective.Message:
    """Raises RemoteProtocolError."""
    try:
        tagged: Tagged = _decode(data)
    except MALFORMED as error:
        raise RemoteProtocolError(f"what is said of a collective is malformed: {error}") from error
    return tagged.message


class CallName(msgspec.Struct, frozen=True, array_like=True):
    """A collective: the call with that number, from 0, of all instances of a task in an era."""

    era: Count
    task: Name
    number: Count


class Places(msgspec.Struct, frozen=True, array_like=True):
    """Where the instances of a task are: of two rosters of an iteration, the later one has the
    greater `version`, or the same if no instance began another attempt meanwhile."""

    version: Count
    nodes: Token
    """Stands for the nodes, by rank."""
    begun: Count = 0
    """How often the call was begun anew there, as a plane had forgotten what its members gave."""

    @property
    def order(self) -> tuple[int, int]:
        """Those are later that have a greater one."""
        return self.version, self.begun

    def again(self) -> Places:
        return structs.replace(self, begun=self.begun + 1)


class Side(msgspec.Struct, frozen=True, array_like=True):
    """One end of what two planes say to each other about a swarm: a desk, which has a new token
    each time that it begins, and how often it has lost the other."""

    desk: Token
    losses: Count


class Introduced(_Said, frozen=True, tag=40):
    """The first on each link: who the sender is and whom it takes the receiver for (nothing if it
    has not heard yet), the next of that one's messages that is to come, the first of its own that
    it keeps, and whether the receiver is to introduce itself, too."""

    me: Side
    you: Side | None
    heard: Count
    first: Count
    asks: bool


class CollectiveSaid(_Said, frozen=True, tag=41):
    """A part of a message, with its serial to this receiver; `left` bytes of the message follow in
    further parts. `heard` is the next of the receiver's own parts that is to come, and `places` are
    those at which the sender carries the call out."""

    serial: Count
    heard: Count
    call: CallName
    places: Places
    part: bytes
    left: Count = 0


class CollectivesHeard(_Said, frozen=True, tag=42):
    """The next part that is to come. With `again` it, and what follows it, is to be said again:
    there was no room for it before. With `asks` the receiver is to say at once what it has heard.
    """

    heard: Count
    again: bool = False
    asks: bool = False


Message = Introduced | CollectiveSaid | CollectivesHeard
