"""Folds lines that an attempt logs again and again. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from manta.apis.overviews import LogOverview

HELD = 10.0
"""Seconds after which repetitions are shown, if the same line goes on coming."""


class Folded(NamedTuple):
    """A line, and how often it came."""

    item: LogOverview
    times: int = 1


class _Latest:
    """The latest line of an attempt; `count` of them have not been shown yet."""

    def __init__(self, item: LogOverview) -> None:
        self.item = item
        self.count = 0
        self.shown_at = item.at


class Folding:
    """A line is shown at once. If the same attempt goes on with the same one, how often it came is
    shown when the attempt writes something else, after a while, or at the end."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, int], _Latest] = {}

    def fold(self, items: Iterable[LogOverview]) -> list[Folded]:
        """Takes what came at once; returns what is shown of it, in the order of its arrival."""
        shown: dict[_Latest, None] = {}
        for item in items:
            who = (item.node_alias, item.alias, item.index)
            latest = self._latest.get(who)
            if latest is None or not _same(latest.item, item):
                if latest is not None and latest.count and latest not in shown:
                    shown[latest] = None
                latest = self._latest[who] = _Latest(item)
                shown[latest] = None
            latest.item = item
            latest.count += 1
            if latest not in shown and item.at - latest.shown_at > HELD:
                shown[latest] = None
        folded = [Folded(latest.item, latest.count) for latest in shown]
        for latest in shown:
            latest.count, latest.shown_at = 0, latest.item.at
        return folded

    def rest(self) -> list[Folded]:
        """Returns what has not been shown yet, at the end."""
        held = [latest for latest in self._latest.values() if latest.count]
        folded = [Folded(latest.item, latest.count) for latest in held]
        for latest in held:
            latest.count, latest.shown_at = 0, latest.item.at
        return folded


def _same(one: LogOverview, other: LogOverview) -> bool:
    """Whether only their times differ; empty lines stay."""
    return bool(one.text) and (one.text, one.stream, one.iteration, one.attempt) == (
        other.text,
        other.stream,
        other.iteration,
        other.attempt,
    )
