"""Swarms that nodes report and their manager does not know. Pure.

So it is after an older database, or a backup, was put back: the swarms were created later, and
nobody would miss them by what the manager shows. Those that were removed are left out, as far as
the manager remembers them. What nodes hold of the others is the only copy, and stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from manta.protocol.names import listed

TOLD = 3600.0
"""Seconds for which users are told."""
MOST, REPORTED = 10_000, 1000
"""Swarms that are remembered: those that were removed, and those that one node reports."""
ID = 64
"""Characters of what may be an id."""


class _Report(NamedTuple):
    swarms: frozenset[str]
    at: float


@dataclass
class UnknownSwarms:
    _removed: dict[str, None] = field(default_factory=dict)
    """The oldest first."""
    _reports: dict[str, _Report] = field(default_factory=dict)
    """By node."""
    _held: dict[str, frozenset[str]] = field(default_factory=dict)
    """By node: those of which it holds results."""

    def removed(self, swarm_id: str) -> str:
        """Returns the one that is forgotten for it; "" if none is."""
        self._removed[swarm_id] = None
        if len(self._removed) <= MOST:
            return ""
        oldest = next(iter(self._removed))
        del self._removed[oldest]
        return oldest

    def was_removed(self, swarm_id: str) -> bool:
        return swarm_id in self._removed

    def holds(self, node_id: str, swarms: Collection[str]) -> tuple[tuple[str, ...], bool]:
        """A node holds results of these, which the manager does not know. Returns which of them
        were removed, and whether others among them are news."""
        over = tuple(id_ for id_ in swarms if id_ in self._removed)
        found = [id_ for id_ in swarms if id_ not in self._removed and len(id_) <= ID]
        before = self._held.pop(node_id, frozenset())
        now = before.union(found[: REPORTED - len(before)])
        if found:
            self._held[node_id] = now
        return over, len(now) > len(before)

    def forget(self, node_id: str) -> None:
        """The node says anew of which it holds results, or was removed."""
        self._held.pop(node_id, None)

    def report(self, node_id: str, swarms: Iterable[str], now: float) -> int:
        """Returns how many of these, which the manager does not know, it never knew."""
        found = [id_ for id_ in swarms if id_ not in self._removed and len(id_) <= ID]
        if found:
            self._reports[node_id] = _Report(frozenset(found[:REPORTED]), now)
        return len(found)

    def sentence(self, aliases: Mapping[str, str], now: float) -> str:
        """What users are told now, or nothing."""
        self._reports = {
            id_: report for id_, report in self._reports.items() if now < report.at + TOLD
        }
        sentences = []
        if self._reports:
            swarms = frozenset().union(*(report.swarms for report in self._reports.values()))
            sentences.append(told([aliases.get(id_, id_) for id_ in self._reports], len(swarms)))
        if self._held:
            swarms = frozenset().union(*self._held.values())
            sentences.append(kept([aliases.get(id_, id_) for id_ in self._held], len(swarms)))
        return " ".join(sentences)


def told(names: list[str], count: int) -> str:
    """`count` swarms are reported by the nodes of these names."""
    report = "reports" if len(names) == 1 else "report"
    swarms, were, them = ("a swarm", "it was", "it")
    if count > 1:
        swarms, were, them = (f"{count} swarms", "they were", "them")
    return (
        f"{listed(sorted(names))} {report} {swarms} that this manager does not know: its database "
        f"is older (was manta.db copied back, or a backup restored?), or {were} removed while a "
        f"node was away. What ran of {them} is ended: put a newer database back, or deploy {them} "
        "again."
    )


def kept(names: list[str], count: int) -> str:
    """Nodes of these names hold results of `count` swarms."""
    keep = "keeps" if len(names) == 1 else "keep"
    swarms, them = ("a swarm", "it") if count == 1 else (f"{count} swarms", "them")
    return (
        f"{listed(sorted(names))} {keep} results of {swarms} that this manager does not know: put "
        f"a newer database back, or, if nobody needs {them} any more, delete {them} there "
        "(manta_node results --delete)."
    )
