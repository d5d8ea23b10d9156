"""The words of a plan: buffers, spans of them, transfers and reductions.

Offsets count from the start of a whole value, in bytes, wherever a buffer holds only a part.
"""

from __future__ import annotations

from typing import NamedTuple

VALUE = "value"  # what a rank gave
SHARE = "share"  # what a rank gave for another
PARTIAL = "partial"  # the values of a peer's ranks, reduced there
RING = "ring"  # an interim result on its way round
OUTCOME = "outcome"  # what all values are reduced to
ROLES = (VALUE, SHARE, PARTIAL, RING, OUTCOME)
VALUE_ROLES = (VALUE, SHARE)  # what a member gave, as it is


class Buffer(NamedTuple):
    """Memory by what it holds. Equal buffers hold equal bytes, on whichever peer."""

    role: str
    at: int
    """The rank whose value it is; the peer whose partial result; of a ring, the block."""
    stop: int
    start: int = 0
    to: int = -1
    """The rank that a share is for; of a ring, the peer that has reduced it last."""
    lost: tuple[int, ...] = ()
    """Ranks that are not in it, though they would be."""

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def is_interim(self) -> bool:
        """Is it a reduction of some values, which is to be reduced with others?"""
        return self.role in (PARTIAL, RING)

    def part(self, start: int, stop: int) -> Buffer:
        """Memory for these bytes of it alone."""
        return self._replace(start=start, stop=stop)


class Span(NamedTuple):
    """The bytes of a buffer from `start` to `stop`."""

    buffer: Buffer
    start: int
    stop: int


class Transfer(NamedTuple):
    """One span from peer to peer; both have a buffer that covers it."""

    key: str
    """Names the transfer among all of this collective, the same at both ends."""
    peer: int
    """The other end."""
    span: Span


class Reduction(NamedTuple):
    """`sources`, in this order, to `target`; all are of one length."""

    target: Span
    sources: tuple[Span, ...]


class Plan(NamedTuple):
    """What one peer does in a collective. Each byte of a buffer is written once."""

    sends: tuple[Transfer, ...] = ()
    receives: tuple[Transfer, ...] = ()
    reductions: tuple[Reduction, ...] = ()


def whole(buffer: Buffer) -> Span:
    return Span(buffer, buffer.start, buffer.stop)


def transfer_key(span: Span, source: int, to: int, attempt: int = 0) -> str:
    """Names a transfer by what it carries, so that two plans that share one go on with it."""
    buffer = span.buffer
    lost = ",".join(map(str, buffer.lost))
    what = f"{buffer.role}.{buffer.at}.{buffer.to}/{lost}"
    return f"{what}[{span.start}:{span.stop}]{source}>{to}@{attempt}"
