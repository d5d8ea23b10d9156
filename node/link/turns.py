"""The swarms that a heartbeat names: where there are too many, each in its turn. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from manta.protocol.node import MOST_HOLDS


class Turns:
    def __init__(self) -> None:
        self._told = 0

    def next(self, found: Sequence[str]) -> tuple[str, ...]:
        if len(found) <= MOST_HOLDS:
            return tuple(found)
        start = self._told % len(found)
        self._told += MOST_HOLDS
        return tuple([*found[start:], *found[:start]][:MOST_HOLDS])
