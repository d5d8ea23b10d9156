"""What the daemon is told of the links with other nodes: every few seconds, if they changed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from manta.node.plane import envelope
from manta.node.plane.bulk_paths import BulkPaths
from manta.node.plane.envelope import Ping
from manta.node.plane.links import LinkState, PeerLinks
from manta.protocol.peers import MOST_LINKS, LinkKind, LinksTold, PeerLink
from manta.transports.sealed.endpoint import BulkEndpoint

FIRST, INTERVAL = 0.5, 5.0
"""Seconds from a change until it is told."""
QUIET = 1000
"""Bytes on a link within which its round trip is not measured again."""


class LinkReports:
    """All of it on the transport's I/O thread. `tell` is told all links, or those with the
    most traffic where there are too many."""

    def __init__(
        self,
        links: PeerLinks,
        paths: BulkPaths,
        bulk: BulkEndpoint,
        tell: Callable[[LinksTold], None],
        call_later: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        self._links = links
        self._paths = paths
        self._bulk = bulk
        self._tell = tell
        self._call_later = call_later
        self._epoch = time.time() - time.monotonic()
        self._told: tuple[PeerLink, ...] = ()
        self._numbers = itertools.count(1)
        self._pings: dict[str, tuple[int, float]] = {}
        """By key: the number of the ping that has no answer yet, and when it was sent."""
        self._measured: dict[str, tuple[float, int]] = {}
        """By key: the round trip, and the bytes that had moved then."""
        self._due = False

    def changed(self) -> None:
        """A link has come up or gone down, or peers came to be known."""
        self._soon(FIRST)

    def ponged(self, key: str, number: int) -> None:
        expected, sent_at = self._pings.pop(key, (0, 0.0))
        if number == expected:
            self._measured[key] = time.monotonic() - sent_at, self._measured.get(key, (0, 0))[1]

    def _soon(self, delay: float) -> None:
        if not self._due:
            self._due = True
            self._call_later(delay, self._report)

    def _report(self) -> None:
        self._due = False
        states = list(self._links.states())
        known = {state.peer.key for state in states}
        self._pings = {key: ping for key, ping in self._pings.items() if key in known}
        self._measured = {key: one for key, one in self._measured.items() if key in known}
        moved = [(self._moved(state), state) for state in states]
        moved.sort(key=lambda one: (-sum(one[0]), one[1].peer.node_id))
        links = tuple(self._link(state, *bytes_) for bytes_, state in moved[:MOST_LINKS])
        for bytes_, state in moved[:MOST_LINKS]:
            if state.is_up:
                self._measure(state.peer.key, sum(bytes_))
        if links != self._told:
            self._told = links
            self._tell(links)
        if states:
            self._soon(INTERVAL)

    def _moved(self, state: LinkState) -> tuple[int, int]:
        bulk = self._bulk.peer(state.peer.key)
        return state.sent + bulk.sent, state.received + bulk.received

    def _measure(self, key: str, moved: int) -> None:
        before = self._measured.get(key)
        if before is not None and moved - before[1] < QUIET:
            return
        self._measured[key] = 0.0 if before is None else before[0], moved
        self._pings[key] = number, _ = next(self._numbers), time.monotonic()
        self._links.send(key, envelope.pack("", "", Ping(number)))

    def _link(self, state: LinkState, sent: int, received: int) -> PeerLink:
        key = state.peer.key
        kind = LinkKind.DOWN
        if state.is_up and state.is_relayed:
            kind = LinkKind.RELAYED
        elif state.is_up:
            kind = LinkKind.LOCAL if self._paths.is_local(key) else LinkKind.DIRECT
        error = state.error
        if kind is LinkKind.DIRECT:
            error = self._paths.trouble(key) or error
        round_trip = self._measured.get(key, (0.0, 0))[0] if state.is_up else 0.0
        return PeerLink(
            state.peer.node_id[:100],
            state.peer.alias[:100],
            kind,
            round(self._epoch + state.since, 3),
            sent,
            received,
            round(round_trip, 6),
            error[:300],
        )
