"""Long lists of which mostly the end is used: what lies before it is kept packed.

A `Packed` list behaves like the list of its items. Its older items are encoded and compressed in
pages, which take a small part of the memory, and which a snapshot stores once instead of again
and again. An item that is asked for by its position is unpacked with its page, and may be changed
in place until `settle` packs it again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar, overload

import msgspec

T = TypeVar("T")

encode = msgspec.msgpack.Encoder().encode


def decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """Decodes a page of items of this kind."""
    return msgspec.msgpack.Decoder(list[kind])


class Packed(Generic[T]):
    def __init__(self, pages: msgspec.msgpack.Decoder[Any], size: int, keep: int = 1) -> None:
        """`size` items to a page, of which the last `keep` are not packed."""
        self._decode = pages.decode
        self._size, self._most = size, size * (keep + 1)
        self._pages: list[bytes] = []
        self.packed_size = 0
        """Bytes of all pages."""
        self._tail: list[T] = []
        self._open: dict[int, list[T]] = {}
        self._changed: set[int] = set()
        """Pages that were packed since `changes` returned them."""

    def append(self, item: T) -> None:
        self._tail.append(item)
        if len(self._tail) >= self._most:
            self._pack(len(self._pages), self._tail[: self._size])
            del self._tail[: self._size]

    def settle(self) -> None:
        """Packs what was unpacked and may have been changed; items that were got before no longer
        belong to the list."""
        for page, items in self._open.items():
            self._pack(page, items)
        self._open.clear()

    def _pack(self, page: int, items: list[T]) -> None:
        packed = zlib.compress(encode(items), 1)
        if page == len(self._pages):
            self._pages.append(b"")
        elif self._pages[page] == packed:
            return
        self.packed_size += len(packed) - len(self._pages[page])
        self._pages[page] = packed
        self._changed.add(page)

    def _unpack(self, page: int) -> list[T]:
        items: list[T] = self._decode(zlib.decompress(self._pages[page]))
        return items

    # As a list.

    def __len__(self) -> int:
        return len(self._pages) * self._size + len(self._tail)

    def __iter__(self) -> Iterator[T]:
        return self.between(0, len(self))

    def between(self, start: int, stop: int) -> Iterator[T]:
        """Items to look at."""
        return self.at(range(start, min(stop, len(self))))

    def at(self, positions: Iterable[int]) -> Iterator[T]:
        """Items to look at: what is packed is unpacked for the reader alone, page by page."""
        read, items = -1, list[T]()
        for position in positions:
            page, place = divmod(position, self._size)
            if page >= len(self._pages):
                yield self._tail[position - len(self._pages) * self._size]
                continue
            if page != read:
                read, items = page, self._open.get(page) or self._unpack(page)
            yield items[place]

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> list[T]: ...
    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            start, stop, _ = at.indices(len(self))
            return list(self.between(start, stop))
        items, place = self._place(at)
        return items[place]

    def __setitem__(self, at: int, item: T) -> None:
        items, place = self._place(at)
        items[place] = item

    def _place(self, at: int) -> tuple[list[T], int]:
        position = at + len(self) if at < 0 else at
        page, place = divmod(position, self._size)
        if position < 0 or position >= len(self):
            raise IndexError(at)
        if page >= len(self._pages):
            return self._tail, position - len(self._pages) * self._size
        if page not in self._open:
            self._open[page] = self._unpack(page)
        return self._open[page], place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed | list) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    # As part of a snapshot.

    @property
    def pages(self) -> int:
        return len(self._pages)

    @property
    def tail(self) -> list[T]:
        """The items that are not packed."""
        return self._tail

    def changes(self, most: int) -> dict[int, bytes]:
        """Pages that were packed or changed since they were last returned by this: the first, of
        about so many bytes."""
        self.settle()
        found: dict[int, bytes] = {}
        for page in sorted(self._changed):
            if most <= 0:
                break
            found[page] = self._pages[page]
            most -= len(found[page])
        self._changed -= found.keys()
        return found

    @property
    def has_changes(self) -> bool:
        return bool(self._changed)

    def change_again(self, pages: Iterable[int]) -> None:
        """These were not stored after all."""
        self._changed.update(pages)

    def load(self, pages: list[bytes], tail: list[T]) -> None:
        self._pages, self._tail = pages, tail
        self.packed_size = sum(map(len, pages))
