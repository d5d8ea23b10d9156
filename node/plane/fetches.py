"""Which values of other nodes are asked for, and when again. Pure: no clock, no chance, no bytes.

Theory of operation. A fetch is asked of the node that holds the value, under the id of a bulk
transfer, and comes as that. What is said may be lost with a link, come to a node that does not know
the swarm yet, or be refused for now; a transfer may break off. So it is asked again until it has
come, or never will:

| a fetch | leaves when |
|---|---|
| waits | few enough of that node's are under way, and of its swarm's among them: asked |
| asked | it has come, or its holder has it no more: ended |
| | nothing of it came for a while: asked again, under the same id |
| | it was refused for now, and another of that node's has ended: asked again |
| | its transfer failed: paused |
| paused | its time has come: asked, under another id |

All of them end when the holder has no part in the swarm any more, when there is no room for it
here, and when nobody wants it. One that no task waits for ends when it stalls: it takes room, and
whoever told of it may not have it. Each task that waits has a time limit of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from manta.node.plane.copies import Stalled, ValueGone, ValueLost
from manta.node.plane.shares import SharedRoom
from manta.transports.exchange.letters import Remote

LOOK = 0.5
"""Seconds between looks at what is under way."""
AGAIN = 1.0
"""Seconds without progress after which one is asked for again; twice as many each time."""
SELDOM = 8.0
"""Seconds that are the most of that."""
STALLED = 30.0
"""Seconds without progress after which one ends that no task waits for."""
MOST = 128
"""Of one node's that are under way at a time, for tasks that wait; of which swarms have shares."""
MOST_AHEAD = 32
"""Of one node's under way, at which none begins that no task waits for."""


@dataclass(eq=False)
class Fetch:
    swarm_id: str
    remote: Remote
    is_asked: bool
    """A task waits for it."""
    key: str = ""
    """Of whom it is asked."""
    transfer: bytes = b""
    """Empty while none is under way."""
    upto: int = 0
    """How many bytes of it have come; others may set it at any time."""
    why: str = ""
    """What went wrong last, for those who wait."""
    error: Exception | None = None
    """Set when it is to end with its transfer."""
    seen: int = 0
    moved_at: float = 0.0
    pause: float = AGAIN
    at: float = 0.0
    """When it is asked for again."""


class Shell(Protocol):
    def key(self, swarm_id: str, peer: str) -> str | None:
        """Of a node that has a part in the swarm."""

    def new_id(self) -> bytes:
        """For a transfer."""

    def expect(self, fetch: Fetch) -> None:
        """Begins the transfer. `transfer_ended` is to be called once, later."""

    def request(self, fetch: Fetch) -> None:
        """Tells the holder to send it."""

    def refuse(self, fetch: Fetch, why: str) -> None:
        """Ends its transfer."""

    def done(self, fetch: Fetch, error: Exception | None) -> None:
        """It is over."""


class Fetches:
    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._all: dict[Remote, Fetch] = {}
        self._waiting: dict[tuple[str, bool], dict[str, dict[Remote, Fetch]]] = {}
        """By node, and whether tasks wait for them, then by swarm: those whose turn it is not; the
        first first."""
        self._under_way: dict[str, SharedRoom] = {}
        """By node: how many are asked or paused."""
        self._by_transfer: dict[bytes, Fetch] = {}
        self._refused: dict[str, dict[Remote, Fetch]] = {}
        """By node: those that it did not send when it was asked last."""
        self._looked = 0.0

    def get(self, remote: Remote) -> Fetch | None:
        return self._all.get(remote)

    # --- what is wanted -----------------------------------------------------------------------

    def begin(self, fetch: Fetch, now: float) -> None:
        if not self._all:
            self._looked = now
        self._all[fetch.remote] = fetch
        fetch.moved_at = now
        self._wait(fetch)
        self._start(fetch.remote.peer, now)

    def asked(self, remote: Remote, is_asked: bool, now: float) -> None:
        """Tasks wait for it, or none does any more."""
        fetch = self._all.get(remote)
        if fetch is None or fetch.is_asked == is_asked:
            return
        waits = self._leave(fetch)
        fetch.is_asked = is_asked
        if waits:
            self._wait(fetch)
            self._start(remote.peer, now)

    def give_up(self, remote: Remote, now: float) -> None:
        """Nobody wants it any more."""
        if (fetch := self._all.get(remote)) is not None:
            self._finish(fetch, ValueLost("nobody wants it any more"), now)

    # --- what comes of it ---------------------------------------------------------------------

    def transfer_ended(self, transfer: bytes, error: Exception | None, now: float) -> None:
        fetch = self._by_transfer.pop(transfer)
        fetch.transfer = b""
        if error is None or fetch.error is not None:
            self._end(fetch, fetch.error, now)
        else:
            fetch.why = str(error)
            self._pause(fetch, now)

    def gone(self, key: str, transfer: bytes) -> None:
        """Its holder has it no more."""
        if (fetch := self._of(key, transfer)) is not None:
            fetch.error = fetch.error or ValueGone()
            self._shell.refuse(fetch, str(fetch.error))

    def refused(self, key: str, transfer: bytes, why: str) -> None:
        """Its holder does not send it now."""
        if (fetch := self._of(key, transfer)) is not None:
            fetch.why = f"its node says: {why.rstrip('.')}"
            self._refused.setdefault(fetch.remote.peer, {})[fetch.remote] = fetch

    def _of(self, key: str, transfer: bytes) -> Fetch | None:
        fetch = self._by_transfer.get(transfer)
        return fetch if fetch is not None and fetch.key == key else None

    def link_up(self, key: str, now: float) -> None:
        """What was asked over the link before may not have arrived."""
        for fetch in [one for one in self._all.values() if one.key == key]:
            self._ask_at_once(fetch, now)

    def directory_changed(self, swarm_id: str, now: float) -> None:
        """Others take part in the swarm, or the same ones, who may have learnt of it only now."""
        for fetch in [one for one in self._all.values() if one.swarm_id == swarm_id]:
            key = self._shell.key(swarm_id, fetch.remote.peer)
            if key is None:
                self._finish(fetch, _left(), now)
            elif fetch.key == key:
                self._ask_at_once(fetch, now)
            elif fetch.transfer:  # it fails, and is asked for under the new key
                self._shell.refuse(fetch, "its node has another key")

    # --- time ---------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        return self._looked + LOOK if self._all else None

    def tick(self, now: float) -> None:
        if self.due is None or now < self.due:
            return
        self._looked = now
        for fetch in list(self._all.values()):
            if fetch.upto != fetch.seen:
                fetch.seen, fetch.moved_at, fetch.why = fetch.upto, now, ""
                fetch.pause, fetch.at = AGAIN, now + AGAIN
            elif not fetch.is_asked and now - fetch.moved_at >= STALLED:
                self._finish(fetch, Stalled(f"nothing of it came for {STALLED:g} s"), now)
            elif _is_open(fetch) and fetch.at <= now:
                self._ask(fetch, now)
        for peer, _ in list(self._waiting):
            self._start(peer, now)

    # --- inside -------------------------------------------------------------------------------

    def _wait(self, fetch: Fetch) -> None:
        place = fetch.remote.peer, fetch.is_asked
        rows = self._waiting.setdefault(place, {})
        rows.setdefault(fetch.swarm_id, {})[fetch.remote] = fetch

    def _leave(self, fetch: Fetch) -> bool:
        """Whether it waited for its turn."""
        place = fetch.remote.peer, fetch.is_asked
        rows = self._waiting.get(place, {})
        row = rows.get(fetch.swarm_id, {})
        found = row.pop(fetch.remote, None)
        if not row:
            rows.pop(fetch.swarm_id, None)
        if not rows:
            self._waiting.pop(place, None)
        return found is not None

    def _start(self, peer: str, now: float) -> None:
        """Begins those whose turn has come."""
        while (fetch := self._next(peer)) is not None:
            self._leave(fetch)
            self._under_way.setdefault(peer, SharedRoom(MOST)).take(fetch.swarm_id, 1)
            self._ask(fetch, now)

    def _next(self, peer: str) -> Fetch | None:
        room = self._under_way.get(peer) or SharedRoom(MOST)
        for is_asked, most in ((True, MOST), (False, MOST_AHEAD)):
            rows = self._waiting.get((peer, is_asked), {})
            swarms = [one for one in rows if room.used < most and room.fits(one, 1)]
            if swarms:  # it is the turn of the one that has fewest
                return next(iter(rows[min(swarms, key=room.of)].values()))
        return None

    def _ask(self, fetch: Fetch, now: float) -> None:
        self._not_refused(fetch)
        if fetch.transfer or self._open(fetch):
            self._shell.request(fetch)
            self._pause(fetch, now)

    def _open(self, fetch: Fetch) -> bool:
        """Expects it under another id; false if there is nobody to ask, and it is over."""
        key = self._shell.key(fetch.swarm_id, fetch.remote.peer)
        if key is None:
            self._over(fetch, _left())
            return False
        fetch.key, fetch.transfer = key, self._shell.new_id()
        fetch.upto = fetch.seen = 0
        self._by_transfer[fetch.transfer] = fetch
        self._shell.expect(fetch)
        return True

    def _ask_at_once(self, fetch: Fetch, now: float) -> None:
        if _is_open(fetch):
            fetch.pause = AGAIN
            self._ask(fetch, now)

    def _pause(self, fetch: Fetch, now: float) -> None:
        fetch.at = now + fetch.pause
        fetch.pause = min(2 * fetch.pause, SELDOM)

    def _finish(self, fetch: Fetch, error: Exception, now: float) -> None:
        fetch.error = fetch.error or error
        if fetch.transfer:
            self._shell.refuse(fetch, str(fetch.error))
        else:
            self._end(fetch, fetch.error, now)

    def _end(self, fetch: Fetch, error: Exception | None, now: float) -> None:
        self._over(fetch, error)
        peer = fetch.remote.peer
        refused = self._refused.get(peer, {}).values()
        if (first := next(filter(_is_open, refused), None)) is not None:
            self._ask_at_once(first, now)  # the place of the other may be free now
        self._start(peer, now)

    def _not_refused(self, fetch: Fetch) -> None:
        refused = self._refused.get(fetch.remote.peer, {})
        refused.pop(fetch.remote, None)
        if not refused:
            self._refused.pop(fetch.remote.peer, None)

    def _over(self, fetch: Fetch, error: Exception | None) -> None:
        peer = fetch.remote.peer
        del self._all[fetch.remote]
        self._not_refused(fetch)
        if not self._leave(fetch):
            self._under_way[peer].give(fetch.swarm_id, 1)
            if not self._under_way[peer].used:
                del self._under_way[peer]
        self._shell.done(fetch, error)


def _is_open(fetch: Fetch) -> bool:
    """Whether it is asked of somebody, and is not about to end."""
    return bool(fetch.key) and fetch.error is None


def _left() -> ValueLost:
    return ValueLost("its node has no part in the swarm any more")
