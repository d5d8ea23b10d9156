"""What the controls of two peers say to each other about views and locks, over the link between
their planes. What they say about membership is in `manta.transports.membership.messages`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from manta.transports.codec.decoders import MALFORMED
from manta.transports.errors import RemoteProtocolError

MOST_PEERS = 4_096
"""In a view."""
MOST_SAID = 4 << 20
"""Bytes of a word."""
NONE = -1
"""Of calls: there is no such one."""

Id = Annotated[str, Meta(min_length=1, max_length=40)]
Count = Annotated[int, Meta(ge=0, lt=2**53)]
Call = Annotated[int, Meta(ge=NONE, lt=2**53)]
Text = Annotated[str, Meta(max_length=300)]


class _Said(msgspec.Struct, frozen=True, array_like=True):
    pass


class Ballot(_Said, frozen=True, order=True):
    """Names a proposal and the view that comes of it: the higher one counts."""

    number: Count
    proposer: Id


class Propose(_Said, frozen=True, tag=10):
    ballot: Ballot
    members: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=MOST_PEERS)]


class Ending(_Said, frozen=True):
    """The sender has heard a commit: of which view, after which call its last one in the former
    view comes (or that there is none), which members of that are given up there, and whether it
    has what comes of the last call."""

    next: Ballot
    limit: Call | None
    lost: Annotated[tuple[Id, ...], Meta(max_length=MOST_PEERS)]
    is_done: bool


class Position(_Said, frozen=True, tag=11):
    """Where the sender is in its view, named by its ballot: the last call that has ended, the one
    that it is in, whether one waits to begin, and whether it waits for a view."""

    ballot: Ballot
    view: Ballot
    done: Call
    inside: Call
    is_pending: bool
    is_free: bool
    ending: Ending | None

    @property
    def target(self) -> Ballot:
        """The last view of which the sender has heard the commit."""
        return self.view if self.ending is None else self.ending.next


class Group(_Said, frozen=True):
    """Members that make the same last call in a former view: the one after that number, or none
    where the view is over at once."""

    view: Ballot
    limit: Call | None
    members: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=MOST_PEERS)]


class Commit(_Said, frozen=True, tag=12):
    """Each member of the view is in one of the groups."""

    ballot: Ballot
    members: Annotated[tuple[Id, ...], Meta(min_length=1, max_length=MOST_PEERS)]
    groups: Annotated[tuple[Group, ...], Meta(min_length=1, max_length=MOST_PEERS)]


class Refuse(_Said, frozen=True, tag=13):
    """The proposal does not count there; `highest` is the ballot that does."""

    ballot: Ballot
    highest: Ballot


class Begin(_Said, frozen=True, tag=14):
    """All members have what comes of their last calls: the view begins."""

    ballot: Ballot


class Apart(_Said, frozen=True, tag=15):
    """The members of the sender's view, which has that ballot, are not those whom it takes for
    alive: the receiver is to propose another."""

    view: Ballot


class Locks(_Said, frozen=True, tag=20):
    """What the sender has and wants of the locks of a view, in order: it says all of it whenever
    that changes. A want is a name and a number of the sender's own."""

    view: Ballot
    has: Annotated[tuple[tuple[Text, Count], ...], Meta(max_length=10_000)]
    wants: Annotated[tuple[tuple[Text, Count], ...], Meta(max_length=10_000)]


class Granted(_Said, frozen=True, tag=21):
    """The sender's lock with that name is the receiver's, for the want of that number."""

    view: Ballot
    name: Text
    number: Count


class Holders(_Said, frozen=True, tag=22):
    """Who has the locks that the receiver waits for: names of locks, and ids."""

    view: Ballot
    of: Annotated[tuple[tuple[Text, Id], ...], Meta(max_length=10_000)]


class Word(_Said, frozen=True, tag=30):
    """What the sender's process says to the receiver's about a topic, as those who coordinate do.
    It may be lost."""

    topic: Text
    data: Annotated[bytes, Meta(max_length=MOST_SAID)]


Proposals = Propose | Position | Commit | Refuse | Begin | Apart
Locking = Locks | Granted | Holders
Said = Proposals | Locking | Word

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Said).decode


def pack(said: Said) -> bytes:
    return _encode(said)


def unpack(data: bytes) -> Said:
    """Raises RemoteProtocolError."""
    try:
        found: Said = _decode(data)
    except MALFORMED as error:
        raise RemoteProtocolError(f"what a peer of the mesh says is malformed: {error}") from error
    return found
