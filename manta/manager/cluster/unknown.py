"""Swarms that nodes report and their manager does not know. Pure.

So it is after an older database, or a backup, was put back: the swarms were created later, and
nobody would miss them by what the manager shows. A swarm that was removed while its node was away
is reported as well; those that were removed since the manager's start are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    def removed(self, swarm_id: str) -> None:
        self._removed[swarm_id] = None
        if len(self._removed) > MOST:
            del self._removed[next(iter(self._removed))]

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
        if not self._reports:
            return ""
        return told(
            [aliases.get(id_, id_) for id_ in self._reports],
            len(frozenset().union(*(report.swarms for report in self._reports.values()))),
        )


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
