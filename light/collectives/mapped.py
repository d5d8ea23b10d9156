"""Memory that an attempt shares with its node's plane.

*Rooms* are the plane's memory into which the attempt writes arrays that are to be reduced. It is
given each by its number, and keeps the last few mapped, for as long as the plane has them: to map
one anew costs as much as to write it. *Blocks* are what outcomes lie in, mapped so that
what the attempt writes is its own. When nothing refers to such a mapping any more, the plane is
told with the next call, and uses the block again. It is not told of what a fork may still refer to.
"""

from __future__ import annotations

import mmap
import os
import sys
from _weakref import ref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = tuple[dict[str, Any], list[int]]

KEPT = 8
"""Rooms that stay mapped."""
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
"""A value may be larger than the memory: only what is written to needs any."""
_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


class _Forks:
    def __init__(self) -> None:
        self.count = 0
        os.register_at_fork(after_in_parent=self._forked)

    def _forked(self) -> None:
        self.count += 1


_forks = _Forks()


class Mapped:
    """Of one attempt."""

    def __init__(self) -> None:
        self._rooms: dict[int, mmap.mmap] = {}
        """The one that was used last is the last."""
        self._refs: dict[int, Any] = {}
        self._count = 0
        self._returned: list[int] = []

    def room(self, ask: Callable[[list[int]], Answer]) -> tuple[int, memoryview]:
        """The room that the plane names when it is asked, and told of those that are mapped; its
        number is 0 where there is none."""
        mapped = self._rooms.copy()  # what another thread drops meanwhile may be named
        told, fds = ask([*mapped])
        for gone in told["gone"]:
            self._rooms.pop(gone, None)
        number: int = told["room"]
        if not number:
            return 0, memoryview(b"")
        try:
            memory = mmap.mmap(fds[0], told["size"], **_UNTRACKED) if fds else mapped[number]
        finally:
            for fd in fds:
                os.close(fd)
        self._rooms.pop(number, None)
        self._rooms[number] = memory
        for dropped in [*self._rooms][:-KEPT]:
            self._rooms.pop(dropped, None)
        return number, memoryview(memory)

    def blocks(self, parts: list[list[int]], fds: list[int]) -> list[memoryview]:
        """The memory of these descriptors, as far as the parts of an answer reach; see
        `manta.node.plane.collectives.answers`."""
        sizes, blocks = [0] * len(fds), [0] * len(fds)
        for _, size, block, place, offset in parts:
            if place >= 0:
                sizes[place] = max(sizes[place], offset + size)
                blocks[place] = block
        try:
            return [self._map(*one) for one in zip(fds, sizes, blocks, strict=True)]
        finally:
            for fd in fds:
                os.close(fd)

    def _map(self, fd: int, size: int, block: int) -> memoryview:
        private = mmap.MAP_PRIVATE | _NO_RESERVE
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        memory = mmap.mmap(fd, size, private, protection, **_UNTRACKED)
        if block:
            self._count += 1
            number, forks, refs, returned = self._count, _forks.count, self._refs, self._returned

            def gone(_: Any) -> None:
                del refs[number]
                if _forks.count == forks:
                    returned.append(block)

            refs[number] = ref(memory, gone)
        return memoryview(memory)

    def returned(self) -> list[int]:
        """The blocks that are no longer mapped, since the last time."""
        found = self._returned[:]
        del self._returned[: len(found)]
        return found
