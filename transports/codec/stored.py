"""The gate through which everything that was stored is read.

A disk returns any bytes: a flipped bit, a cut file, another file. Decoders fail in many ways on
such bytes (bad UTF-8, deep nesting, a wrong type), and all of them become one error, which says
what is damaged, what is lost with it, and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from manta.transports.errors import TransportError
from manta.transports.files import SMALL, FileTooLarge, read_bounded

B = TypeVar("B", bytes, str)
T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """Something that is stored.

    `name` begins a sentence and says which it is and where; `lost` says what is gone with it,
    and `remedy` what to do.
    """

    name: str
    lost: str
    remedy: str
    flaw: str = "damaged"
    """What it is then; of a file that users write: not valid."""


class Damaged(TransportError, ValueError):
    """What was stored is not what is read; `why` is what is wrong with it."""

    def __init__(self, thing: Thing, why: str) -> None:
        super().__init__(f"{thing.name} is {thing.flaw} ({why}): {thing.lost}; {thing.remedy}.")
        self.thing = thing
        self.why = why


def read_stored(thing: Thing, decode: Callable[[B], T], content: B) -> T:
    """Decodes what a disk returned. Raises Damaged, whatever is wrong with it."""
    try:
        return decode(content)
    except Exception as error:  # also UnicodeDecodeError, RecursionError, OverflowError
        raise Damaged(thing, _reason(error)) from error


def read_stored_file(
    thing: Thing, decode: Callable[[bytes], T], path: str | os.PathLike[str], bound: int = SMALL
) -> T:
    """Decodes a file of at most `bound` bytes. Raises OSError, Damaged."""
    try:
        content = read_bounded(path, bound)
    except FileTooLarge as error:
        raise Damaged(thing, str(error)) from error
    return read_stored(thing, decode, content)


def _reason(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return f"it is not UTF-8 at byte {error.start}"
        case RecursionError():
            return "it is nested too deeply"
        case _:
            return (str(error) or type(error).__name__).rstrip(".")
