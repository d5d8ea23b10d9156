"""Which nodes have written more into their journals than has arrived. Pure.

What a heartbeat says has to be there by the next. What a node has when it registers, after it or
the manager was away, is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from manta.manager.views import Behind


@dataclass
class Backlogs:
    """`ahead`: by swarm, the number of a node's last entry, where the manager lacks some."""

    interval: float
    """Seconds between heartbeats."""
    _marks: dict[str, dict[str, Behind]] = field(default_factory=dict)
    """By node and swarm."""

    def registered(self, node_id: str, ahead: Mapping[str, int], now: float) -> None:
        self._marks[node_id] = {
            swarm_id: Behind(last, now, returned=True) for swarm_id, last in ahead.items()
        }

    def heard(self, node_id: str, ahead: Mapping[str, int], now: float) -> bool:
        """Returns whether `shown` may have changed."""
        before = self._marks.get(node_id, {})
        if not (ahead or before):
            return False
        self._marks[node_id] = {
            swarm_id: before.get(swarm_id, Behind(last, now, returned=False))
            for swarm_id, last in ahead.items()
        }
        return any(self._is_shown(mark, now) for mark in before.values())

    def stored(self, node_id: str, swarm_id: str, upto: int, now: float) -> bool:
        """Returns whether `shown` has changed."""
        marks = self._marks.get(node_id, {})
        mark = marks.get(swarm_id)
        if mark is None or upto < mark.last:
            return False
        del marks[swarm_id]
        return self._is_shown(mark, now)

    def swarm_ended(self, swarm_id: str) -> None:
        for marks in self._marks.values():
            marks.pop(swarm_id, None)

    def forget(self, node_id: str) -> None:
        self._marks.pop(node_id, None)

    def shown(self, now: float) -> dict[str, dict[str, Behind]]:
        """By swarm and node."""
        found: dict[str, dict[str, Behind]] = {}
        for node_id, marks in self._marks.items():
            for swarm_id, mark in marks.items():
                if self._is_shown(mark, now):
                    found.setdefault(swarm_id, {})[node_id] = mark
        return found

    def _is_shown(self, mark: Behind, now: float) -> bool:
        return mark.returned or now - mark.since > 0.9 * self.interval
