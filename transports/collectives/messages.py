"""What peers tell each other about one collective, apart from the bytes of transfers.

Between two peers, messages arrive in the order in which they were told, each once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from manta.transports.collectives.calls import Entry
from manta.transports.collectives.plans import Span

_BASE = 128
"""Bytes of what each message, or wish, has beside what it names."""


class Member(NamedTuple):
    """A member that has made the call."""

    rank: int
    entry: Entry
    data: tuple[tuple[int, bytes], ...] = ()
    """Small values: for the rank named, or for all (-1)."""


class Done(NamedTuple):
    """A peer has the outcome."""

    lost: tuple[int, ...]
    """Ranks that are not in it."""
    notes: tuple[bytes, ...] = ()
    members: tuple[Member, ...] = ()
    """Those that are in it and were lost since, as others may never have heard of them."""


class Announcement(NamedTuple):
    """Members of a peer have made the call."""

    peer: int
    members: tuple[Member, ...]
    """Those that were not announced to the receiver before."""
    lost: tuple[int, ...] = ()
    """The round: ranks that the sender has given up."""
    done: Done | None = None

    @property
    def seeks(self) -> bool:
        """Is it of one that lacks the outcome, and can't get it from all that have made the call?
        Who has it gives it; who has not says so in the same way."""
        return not self.members and not self.lost and self.done is None


class Probe(NamedTuple):
    """An announcement to the one that compares calls while announcements are disseminated."""

    member: Member
    asks: bool = False
    """It is yet to make the call: that this would be in vain, as others are lost, is to be told."""


class Relayed(NamedTuple):
    """Announcements of several peers, in one step of their dissemination."""

    step: int
    announcements: tuple[Announcement, ...]


class Want(NamedTuple):
    """What the sender awaits from the receiver, under which key."""

    key: str
    span: Span


class Wanted(NamedTuple):
    """The sender has buffers for these."""

    lost: tuple[int, ...]
    wants: tuple[Want, ...]


class Noted(NamedTuple):
    """The notes of what the sender has reduced, when all of it is."""

    lost: tuple[int, ...]
    notes: tuple[bytes, ...]


class Fits(NamedTuple):
    """The sender has room for all that is to come to it, of members that it all knows."""


class Begun(NamedTuple):
    """The sender has begun the call, of which it has nothing else to say yet."""


class Finished(NamedTuple):
    """The members of the sender have the outcome."""


class Aborted(NamedTuple):
    """There will be no outcome: the name of an error, and its sentence."""

    error: str
    sentence: str


class Left(NamedTuple):
    """The sender makes no call from that one on. Of those before, but these, it has what its
    members called for, and the receiver all that comes to it from there."""

    but: tuple[int, ...] = ()


Message = Announcement | Probe | Relayed | Wanted | Fits | Noted | Begun | Finished | Aborted | Left


def weight_of(message: Message) -> int:
    """About how many bytes it takes, and no fewer than are sent."""
    match message:
        case Announcement(_, members, lost, done):
            return _weight(members, lost) + (0 if done is None else _weight_of_done(done))
        case Probe(member):
            return _weight([member])
        case Relayed(_, announcements):
            return _BASE + sum(map(weight_of, announcements))
        case Wanted(lost, wants):
            spans = sum(len(want.key) + 9 * len(want.span.buffer.lost) for want in wants)
            return _weight((), lost) + spans + _BASE * len(wants)
        case Noted(lost, notes):
            return _weight((), lost, notes)
        case Left(but):
            return _weight((), but)
        case Aborted(error, sentence):
            return _BASE + 4 * (len(error) + len(sentence))
    return _BASE


def _weight_of_done(done: Done) -> int:
    return _weight(done.members, done.lost, done.notes)


def _weight(
    members: Iterable[Member], lost: Sequence[int] = (), notes: Sequence[bytes] = ()
) -> int:
    size = _BASE + 9 * len(lost) + sum(5 + len(note) for note in notes)
    for member in members:
        size += member.entry.weight + sum(14 + len(part) for _, part in member.data)
    return size
