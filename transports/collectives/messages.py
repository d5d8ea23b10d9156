"""What peers tell each other about one collective, apart from the bytes of transfers.

Between two peers, messages arrive in the order in which they were told, each once.
"""

from __future__ import annotations

from typing import NamedTuple

from manta.transports.collectives.calls import Entry
from manta.transports.collectives.plans import Span


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


class Finished(NamedTuple):
    """The members of the sender have the outcome."""


class Aborted(NamedTuple):
    """There will be no outcome: the name of an error, and its sentence."""

    error: str
    sentence: str


Message = Announcement | Probe | Relayed | Wanted | Noted | Finished | Aborted
