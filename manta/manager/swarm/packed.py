"""Long lists of which mostly the end is used: what lies before it is kept packed.

A `Packed` list behaves like the list of its items. Its older items are encoded and compressed in
pages, which a snapshot stores once instead of again and again. A page that is stored is let go: it
takes no memory, and is read from there when it is asked for. An item that is asked for by its
position is unpacked with its page, and may be changed in place until `settle` packs it again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

import msgspec

T = TypeVar("T")

Read = Callable[[int], bytes]
"""Reads a page that was stored."""

encode = msgspec.msgpack.Encoder().encode


def decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """Decodes a page of items of this kind."""
    return msgspec.msgpack.Decoder(list[kind])


class Packed(Generic[T]):
    def __init__(self, pages: msgspec.msgpack.Decoder[Any], size: int, keep: int = 1) -> None:
        """`size` items to a page, of which the last `keep` are not packed."""
        self._decode = pages.decode
        self._size, self._most = size, size * (keep + 1)
        self.pages = 0
        """How many there are."""
        self._held: dict[int, bytes] = {}
        """Those that were not let go: of a page that was, nothing is kept."""
        self._read: Read | None = None
        self.held_size = 0
        """Bytes of the pages that are held in memory."""
        self._tail: list[T] = []
        self._open: dict[int, tuple[list[T], bytes]] = {}
        """Items of pages that may be changed, and these as they were packed before."""
        self._changed: set[int] = set()
        """Pages that were packed since `changes` returned them."""

    def append(self, item: T) -> None:
        self._tail.append(item)
        if len(self._tail) >= self._most:
            self.pages += 1
            self._put(self.pages - 1, _pack(self._tail[: self._size]))
            del self._tail[: self._size]

    def extend(self, items: Iterable[T]) -> None:
        for item in items:
            self.append(item)

    def settle(self) -> None:
        """Packs what was unpacked and may have been changed; items that were got before no longer
        belong to the list."""
        for page, (items, before) in self._open.items():
            if (packed := _pack(items)) != before:
                self._put(page, packed)
        self._open.clear()

    def _put(self, page: int, packed: bytes) -> None:
        self.held_size += len(packed) - len(self._held.get(page, b""))
        self._held[page] = packed
        self._changed.add(page)

    def _packed(self, page: int) -> bytes:
        held = self._held.get(page)
        if held is not None:
            return held
        if self._read is None:
            raise RuntimeError(f"page {page} was let go and cannot be read")
        return self._read(page)

    def _unpack(self, packed: bytes) -> list[T]:
        items: list[T] = self._decode(zlib.decompress(packed))
        return items

    # As a list.

    def __len__(self) -> int:
        return self.pages * self._size + len(self._tail)

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
            if page >= self.pages:
                yield self._tail[position - self.pages * self._size]
                continue
            if page != read:
                read, items = page, self._items(page)
            yield items[place]

    def _items(self, page: int) -> list[T]:
        if page in self._open:
            return self._open[page][0]
        return self._unpack(self._packed(page))

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
        if page >= self.pages:
            return self._tail, position - self.pages * self._size
        if page not in self._open:
            packed = self._packed(page)
            self._open[page] = self._unpack(packed), packed
        return self._open[page][0], place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed | list) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    # As part of a snapshot.

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
            found[page] = self._packed(page)
            most -= len(found[page])
        self._changed -= found.keys()
        return found

    @property
    def has_changes(self) -> bool:
        return bool(self._changed)

    def change_again(self, pages: Iterable[int]) -> None:
        """These were not stored after all."""
        self._changed.update(pages)

    def let_go(self, stored: Mapping[int, bytes], read: Read) -> None:
        """These were stored as `changes` returned them, and are read from there from now on, unless
        they have changed since."""
        self._read = read
        for page, content in stored.items():
            if self._held.get(page) is content and page not in self._changed:
                self.held_size -= len(content)
                del self._held[page]

    def load(self, pages: int, read: Read, tail: list[T]) -> None:
        """The list of a snapshot, of which so many pages are stored."""
        self.pages, self._read, self._tail = pages, read, tail


def _pack(items: list[T]) -> bytes:
    return zlib.compress(encode(items), 1)
