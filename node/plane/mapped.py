"""Mapped memory of a value that is on its way to another node.

Pages that were touched count as this process's for as long as they are mapped, so a value larger
than what the process is to take is let go of piece by piece.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

STEP = 16 << 20
"""Bytes after which what lies behind is let go of; pages that are wanted again are found again."""


class Mapped:
    """A shared mapping, whose pages stay in the memfd or the file when they are let go of."""

    def __init__(self, fd: int, size: int) -> None:
        """To be read alone. Raises OSError."""
        self._memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)

    @property
    def view(self) -> memoryview:
        return memoryview(self._memory)

    def followed(self) -> Callable[[int], None]:
        """What a transfer calls with the bytes, from the start, that have arrived."""
        behind = 0

        def arrived(upto: int) -> None:
            nonlocal behind
            upto -= upto % mmap.PAGESIZE
            if upto - behind >= STEP:
                self._memory.madvise(mmap.MADV_DONTNEED, behind, upto - behind)
                behind = upto

        return arrived
