"""What of an attempt that has ended must outlive the process in which it exchanged.

Letters and broadcasts of an attempt that runs need not: should the process die, the attempt is
interrupted, and the next one says the same again. Of one that has ended in good order there is no
next one. So its end is told only after this is on disk (output commit: Strom and Yemini 1985), and
a peer that comes back begins with what it kept.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from manta.transports.exchange.messages import Count, Name, Value

Span = tuple[Count, Count]
"""The first of a row of numbers, and how many there are."""


class _Item(msgspec.Struct, frozen=True, array_like=True):
    pass


class KeptLetter(_Item, frozen=True, tag=1):
    """A letter to a peer that may still ask for it."""

    to: Name
    tag: Name
    serial: Count
    value: Value


class KeptBroadcast(_Item, frozen=True, tag=2):
    """What the member last said under a tag, at a time by its peer's clock."""

    tag: Name
    time: Count
    value: Value


class Received(_Item, frozen=True, tag=3):
    """Letters of one sender that the attempt received, by their serials: nobody else is given
    them, if the attempt counts."""

    source: Name
    tag: Name
    era: Count
    task: Name
    rank: Count
    serials: tuple[Span, ...]


class KeptCall(_Item, frozen=True, tag=4):
    """What came of a collective, or what the attempt gave to it, which its peer understands. The
    bytes that belong to it are in the value, from `at` on."""

    what: bytes
    value: Value
    at: Count = 0


Item = KeptLetter | KeptBroadcast | Received | KeptCall


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """Of one attempt."""

    era: Count
    task: Name
    rank: Count
    number: Count
    items: tuple[Item, ...]


def spans(numbers: Iterable[int]) -> tuple[Span, ...]:
    """Rows of numbers that follow each other."""
    rows: list[list[int]] = []
    for number in sorted(numbers):
        if rows and number == sum(rows[-1]):
            rows[-1][1] += 1
        else:
            rows.append([number, 1])
    return tuple((first, count) for first, count in rows)
