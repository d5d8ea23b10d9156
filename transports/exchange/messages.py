"""What two peers of a group say to each other about letters and broadcasts.

Each message belongs to a group (a swarm, a mesh) and to an epoch of it, which the link's envelope
names. Messages of one link arrive in order; what a lost link swallowed is found out by `Known`,
which each side says when the link is up again.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Sentence = Annotated[str, msgspec.Meta(max_length=2000)]
Bytes = Annotated[bytes, msgspec.Meta(max_length=1 << 20)]

MOST = 1000
"""Entries of a list in one message."""


ParcelId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Parcel(msgspec.Struct, frozen=True, array_like=True, tag="p"):
    """A value too large for a message: its holder sends it when it is asked for it."""

    id: ParcelId
    size: Count


Value = Bytes | Parcel


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


class SentLetter(_Message, frozen=True, tag=1):
    """The letter `serial` of that sender to this peer under that tag, from 0 in its era."""

    era: Count
    task: Name
    rank: Count
    tag: Name
    serial: Count
    value: Value


class KnownLetters(msgspec.Struct, frozen=True, array_like=True):
    """So many letters of that sender under that tag have come, of which those with these serials
    were not consumed yet. Where these are too many for one entry, others of the kind follow."""

    tag: Name
    era: Count
    task: Name
    rank: Count
    count: Count
    kept: Annotated[tuple[Count, ...], msgspec.Meta(max_length=MOST)]


class Known(_Message, frozen=True, tag=2):
    """Which of the other side's letters have come here. After the last of these messages it sends
    all others again, and forgets those that were consumed. With `wants`, what it said so far was
    not heard here: it says what it knows and what it broadcast again."""

    letters: Annotated[tuple[KnownLetters, ...], msgspec.Meta(max_length=MOST)]
    is_last: bool
    wants: bool = False


class LetterName(msgspec.Struct, frozen=True, array_like=True):
    tag: Name
    era: Count
    task: Name
    rank: Count
    serial: Count


class Consumed(_Message, frozen=True, tag=3):
    """Nobody here will ask for these letters again."""

    letters: Annotated[tuple[LetterName, ...], msgspec.Meta(max_length=MOST)]


class EraEnded(_Message, frozen=True, tag=4):
    """That era, and those before it, are over: what was consumed of their letters by that `mark`
    has been told."""

    era: Count
    mark: Count = 0


class EraForgotten(_Message, frozen=True, tag=11):
    """Answers `EraEnded`: no letter of it that was consumed by then will be sent again."""

    era: Count
    mark: Count = 0


class WantRoom(_Message, frozen=True, tag=5):
    """That sender wants to send more letters, the first with a value of so many bytes."""

    task: Name
    rank: Count
    size: Count


class Granted(_Message, frozen=True, tag=6):
    """That sender may send so many letters, with so many bytes, beyond what it has sent."""

    task: Name
    rank: Count
    letters: Count
    size: Count


class Full(_Message, frozen=True, tag=7):
    """There is no room for that sender yet, and why; `Granted` follows when there is."""

    task: Name
    rank: Count
    sentence: Sentence


class SentBroadcast(_Message, frozen=True, tag=8):
    """A value for all; of those under one tag the one with the greatest time counts
    (Lamport 1978), and of two with one time that of the greater sender."""

    era: Count
    task: Name
    rank: Count
    tag: Name
    time: Count
    value: Value


class Flush(_Message, frozen=True, tag=9):
    """Asks for `Flushed` after all that was sent before."""

    number: Count


class Flushed(_Message, frozen=True, tag=10):
    number: Count


Message = (
    SentLetter
    | Known
    | Consumed
    | EraEnded
    | EraForgotten
    | WantRoom
    | Granted
    | Full
    | SentBroadcast
    | Flush
    | Flushed
)
