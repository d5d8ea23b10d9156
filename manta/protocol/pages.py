"""Pages of what may be too large for one message. Pure.

A list is read in order of its keys, each page after the last key of the page before: so an
item that stays is read exactly once, whatever comes and goes meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

T = TypeVar("T")

PAGE_BYTES = 1024 * 1024


def after(
    items: Iterable[T],
    key: Callable[[T], str],
    cursor: str,
    size: Callable[[T], int],
    room: int | None = None,
) -> tuple[tuple[T, ...], bool]:
    """A page of the items whose keys come after the cursor, and whether there are more."""
    rest = sorted((item for item in items if key(item) > cursor), key=key)
    shown, more = fitting(rest, size, room)
    return tuple(shown), more


def fitting(
    items: Iterable[T], size: Callable[[T], int], room: int | None = None
) -> tuple[list[T], bool]:
    """The first items that fit into `room` bytes, or a page, but at least one; are there more?"""
    shown: list[T] = []
    room = PAGE_BYTES if room is None else room
    for item in items:
        room -= size(item)
        if room < 0 and shown:
            return shown, True
        shown.append(item)
    return shown, False


def encoded(item: object) -> int:
    """The bytes that an item takes in a message."""
    return len(_encoder.encode(item))


_encoder = msgspec.msgpack.Encoder()
