"""What a collective wants done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from manta.transports.collectives.messages import Message
from manta.transports.collectives.plans import Buffer, Span, Transfer


class Tell(NamedTuple):
    peer: int
    message: Message


class Store(NamedTuple):
    """Make a buffer of these bytes."""

    buffer: Buffer
    data: bytes


class Forget(NamedTuple):
    """What the buffer holds is of no use; it may be filled with something else."""

    buffer: Buffer


class Expect(NamedTuple):
    """Let the transfer's bytes come into its span; say `received` as they do."""

    transfer: Transfer


class Send(NamedTuple):
    """Open the transfer; its bytes are ready as `Ready` says. Say `sent` once all have arrived, or
    the receiver has cancelled it."""

    transfer: Transfer


class Ready(NamedTuple):
    """The first so many bytes of a transfer that is open may be sent."""

    key: str
    upto: int


class Cancel(NamedTuple):
    """Give up a transfer, at either end. Bytes that still come do no harm: a buffer that is of
    no use any more is never used for anything else."""

    key: str


class Reduce(NamedTuple):
    """Reduce the sources, in this order, into the target; say `reduced`.

    A source may be an interim result (`Buffer.is_interim`).
    """

    number: int
    target: Span
    sources: tuple[Span, ...]
    members: int
    """Of how many members' values the outcome is; 0 if it is an interim result."""


@dataclass(frozen=True)
class Outcome:
    """What a member gets."""

    buffers: tuple[Buffer, ...]
    """The reduction; or values, by rank."""
    ranks: tuple[int, ...]
    """Whose values are in it."""
    lost: dict[int, str]
    """The other ranks, and why: lost, or late."""
    notes: tuple[bytes, ...] = ()

    @property
    def weight(self) -> float:
        """The fraction of the members that is in it."""
        return len(self.ranks) / (len(self.ranks) + len(self.lost))


class Deliver(NamedTuple):
    rank: int
    outcome: Outcome


class Fail(NamedTuple):
    """The member's call raises an error of this name."""

    rank: int
    error: str
    sentence: str


class Close(NamedTuple):
    """No peer needs anything of this one any more; outcomes stay for next attempts."""


Action = Tell | Store | Forget | Expect | Send | Ready | Cancel | Reduce | Deliver | Fail | Close


class Why(NamedTuple):
    """Why a call was refused before it was begun anew, or is to be; empty where it was not."""

    sentence: str = ""
    was_told: bool = False
    """Were members told so?"""
