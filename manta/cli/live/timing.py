"""Where a swarm's time went, along its critical path. Pure.

The path is followed backwards: from the attempt that ended last to the one that ended last before
that was placed, and so on. The time between them, and whatever an attempt's own timings leave
unexplained, counts as placing: deciding, telling the node, hearing from it. From when a task was
said to wait until it is placed, and while an attempt runs that its node lost, is waiting.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

from manta.protocol.node import Timings

PARTS = ("placing", "waiting", "starting", "loading", "computing", "moving")
_TOLERANCE = 0.002  # seconds between a node's clock and the manager's


class Span(NamedTuple):
    """One attempt: times in seconds since the epoch, and the timings from its node."""

    placed_at: float
    ended_at: float
    timings: Timings
    interrupted: bool = False
    """The platform lost it: what its timings do not explain was waiting."""


def shares(
    started_at: float, ended_at: float, attempts: Iterable[Span], waits: Iterable[float] = ()
) -> dict[str, float]:
    """Returns seconds per part, which add up to `ended_at - started_at`.

    `waits` are the times at which a task was said to wait for nodes, or to be tried again later.
    """
    parts = dict.fromkeys(PARTS, 0.0)
    now, said = ended_at, sorted(waits)

    def between(since: float, until: float) -> None:
        """Adds what passed between two attempts."""
        first = bisect_left(said, since - _TOLERANCE)
        waiting = max(since, min([until, *said[first : first + 1]]))
        parts["placing"] += waiting - since
        parts["waiting"] += until - waiting

    for span in sorted(attempts, key=lambda span: span.ended_at, reverse=True):
        if span.ended_at > now + _TOLERANCE or span.placed_at < started_at - _TOLERANCE:
            continue
        end, begin = min(span.ended_at, now), min(max(span.placed_at, started_at), now)
        between(end, now)
        its = span.timings
        known = {
            "starting": its.queued + its.preparing + its.starting,
            "loading": its.loading,
            "computing": its.computing,
            "moving": its.moving,
        }
        scale = min(1.0, (end - begin) / total) if (total := sum(known.values())) else 0.0
        for part, seconds in known.items():
            parts[part] += seconds * scale
        rest = max(0.0, end - begin - total * scale)
        parts["waiting" if span.interrupted else "placing"] += rest
        now = begin
    between(min(now, started_at), now)
    return parts
