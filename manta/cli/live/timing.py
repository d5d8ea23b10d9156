"""Where a swarm's time went, along its critical path. Pure.

The path is followed backwards: from the attempt that ended last to the one that ended last before
that was placed, and so on. The time between them, and whatever an attempt's own timings leave
unexplained, counts as placing: deciding, telling the node, hearing from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from manta.protocol.node import Timings

PARTS = ("placing", "starting", "computing", "moving")
_TOLERANCE = 0.002  # seconds between a node's clock and the manager's


class Span(NamedTuple):
    """One attempt: times in seconds since the epoch, and the timings from its node."""

    placed_at: float
    ended_at: float
    timings: Timings


def shares(started_at: float, ended_at: float, attempts: Iterable[Span]) -> dict[str, float]:
    """Returns seconds per part, which add up to `ended_at - started_at`."""
    parts = dict.fromkeys(PARTS, 0.0)
    now = ended_at
    for span in sorted(attempts, key=lambda span: span.ended_at, reverse=True):
        if span.ended_at > now + _TOLERANCE or span.placed_at < started_at - _TOLERANCE:
            continue
        end, begin = min(span.ended_at, now), min(max(span.placed_at, started_at), now)
        parts["placing"] += now - end
        its = span.timings
        known = {
            "starting": its.queued + its.preparing + its.starting,
            "computing": its.computing,
            "moving": its.moving,
        }
        scale = min(1.0, (end - begin) / total) if (total := sum(known.values())) else 0.0
        for part, seconds in known.items():
            parts[part] += seconds * scale
        parts["placing"] += max(0.0, end - begin - total * scale)
        now = begin
    parts["placing"] += max(0.0, now - started_at)
    return parts
