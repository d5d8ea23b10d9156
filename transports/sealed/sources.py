"""What is sent: one range of bytes that lies in one or several places in memory."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from manta.transports.interface import Buffer


class Source:
    """Buffers as one range, in their order.

    `memfd` is the descriptor of a memfd that holds the same bytes from its byte `at` on, or -1.
    """

    def __init__(self, parts: Sequence[Buffer], memfd: int = -1, at: int = 0) -> None:
        """Raises TypeError for memory that is not contiguous."""
        self._parts = [memoryview(part).cast("B") for part in parts if memoryview(part).nbytes]
        self._ends = list(accumulate(map(len, self._parts)))
        self.size = self._ends[-1] if self._ends else 0
        self.memfd = memfd
        self.at = at

    def read(self, offset: int, length: int) -> Buffer:
        """A view of the bytes where they lie in one part; else a copy."""
        at = bisect_right(self._ends, offset)
        found: list[memoryview] = []
        while length > 0:
            part, end = self._parts[at], self._ends[at]
            start = offset - (end - len(part))
            piece = part[start : start + length]
            found.append(piece)
            offset, length, at = offset + len(piece), length - len(piece), at + 1
        return found[0] if len(found) == 1 else b"".join(found)
