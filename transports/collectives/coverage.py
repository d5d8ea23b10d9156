"""Which bytes of a buffer are there."""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Coverage:
    """A set of bytes, as ranges that neither meet nor overlap."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> None:
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def reach(self, start: int) -> int:
        """Up to where all bytes from `start` on are there."""
        at = bisect_right(self._starts, start) - 1
        return max(start, self._stops[at]) if at >= 0 else start

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The ranges between `start` and `stop` that are not there."""
        found = []
        while start < stop:
            here = self.reach(start)
            if here > start:
                start = here
                continue
            at = bisect_right(self._starts, start)
            end = min(stop, self._starts[at]) if at < len(self._starts) else stop
            found.append((start, end))
            start = end
        return found
