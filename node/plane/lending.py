"""Sends values of this node's to the planes that ask for them, as bulk transfers.

What a peer can have under way is bounded, and costs no more than the values themselves: each is
mapped once, whoever it goes to, and sent to a peer at most once at a time; a transfer under another
id takes the place of the one before. It ends when nobody here keeps the value any more, and when
the peer has no part in the swarm.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from functools import partial

from manta.node.peers.known import KnownPeers
from manta.node.plane import envelope
from manta.node.plane.envelope import NoParcel, NotNow, WantParcel
from manta.node.plane.links import PeerLinks
from manta.node.plane.parcels import Own, Parcels
from manta.node.plane.value_room import NoRoom
from manta.transports.errors import BulkError, LocalTransportError, remedied
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.zeromq.io_thread import IoThread

MOST = 256
"""Transfers to one peer that are under way: more are refused until some have ended."""

log = logging.getLogger("manta.node.plane")


class _Lent:
    """One transfer. Implements `parcels.Transfer`."""

    def __init__(
        self, bulk: BulkEndpoint, key: str, said: envelope.Envelope, want: WantParcel
    ) -> None:
        self.key = key
        self.swarm_id = said.swarm_id
        self.parcel = want.parcel
        self.transfer = want.transfer
        self._bulk = bulk

    def cancel(self, why: str) -> None:
        with contextlib.suppress(LocalTransportError):  # its key is gone, and with it the transfer
            self._bulk.peer(self.key).cancel(self.transfer, why)


class ParcelLending:
    """For the plane's thread."""

    def __init__(
        self,
        io: IoThread,
        bulk: BulkEndpoint,
        links: PeerLinks,
        known: KnownPeers,
        parcels: Parcels,
    ) -> None:
        self._io = io
        self._bulk = bulk
        self._links = links
        self._known = known
        self._parcels = parcels
        self._lent: dict[tuple[str, bytes], _Lent] = {}
        """By key and parcel."""
        self._count: Counter[str] = Counter()
        """By key: those that have not ended, also where others took their places."""

    def serve(self, key: str, said: envelope.Envelope, want: WantParcel) -> None:
        """Sends a value to a peer of its swarm, unless it is under way, or says why not."""
        place = key, want.parcel
        former = self._lent.get(place)
        if former is not None and former.transfer == want.transfer:
            return  # it asks again
        own = self._parcels.own(want.parcel)
        if own is None or own.swarm_id != said.swarm_id:
            self._say(key, said, NoParcel(want.transfer))
            return
        if former is not None:
            del self._lent[place]
            former.cancel("it was asked for under another id")
        why = self._send(key, said, want, own)
        if why:
            log.info("A value is not sent to node %s now: %s", key[:8], why)
            self._say(key, said, NotNow(want.transfer, why[:500]))

    def _send(self, key: str, said: envelope.Envelope, want: WantParcel, own: Own) -> str:
        """Why it cannot be sent, or nothing."""
        if self._count[key] >= min(MOST, self._parcels.most_at_once):
            return f"{self._count[key]} values are on their way to that node already"
        lent = _Lent(self._bulk, key, said, want)

        def done(error: BulkError | None) -> None:  # on a thread of bulk's
            if not self._io.call(partial(self._ended, lent, own, error)):
                self._ended(lent, own, error)  # the plane has ended

        try:
            fd = self._parcels.opened(own)
            memfd = fd if own.in_memory else -1
            peer = self._bulk.peer(key)
            memory = own.mapped()
            arrived = memory.followed()
            peer.send(want.transfer, [memory.view], done=done, progress=arrived, memfd=memfd)
        except (OSError, NoRoom, BulkError, LocalTransportError) as error:
            self._parcels.unused(own)
            return remedied(error) if isinstance(error, OSError) else str(error)
        self._lent[key, want.parcel] = lent
        self._count[key] += 1
        own.transfers.add(lent)
        return ""

    def _ended(self, lent: _Lent, own: Own, error: BulkError | None) -> None:
        if error is None:
            own.has_it.add(lent.key)
        place = lent.key, lent.parcel
        if self._lent.get(place) is lent:
            del self._lent[place]
        self._count[lent.key] -= 1
        if not self._count[lent.key]:
            del self._count[lent.key]
        own.transfers.discard(lent)
        self._parcels.unused(own)

    def lacks(self, key: str, parcel: bytes, *, waits: bool) -> bool:
        """Is a value of this node's on its way to a peer; or, with `waits`, yet to be asked for?"""
        own = self._parcels.own(parcel)
        return own is not None and (
            (key, parcel) in self._lent or (waits and key not in own.has_it)
        )

    def _say(self, key: str, said: envelope.Envelope, body: NoParcel | NotNow) -> None:
        self._links.send(key, envelope.pack(said.swarm_id, said.epoch, body))

    def directories_changed(self) -> None:
        """Who has no part in a swarm any more gets none of its values."""
        for lent in list(self._lent.values()):
            if self._known.peer(lent.swarm_id, lent.key) is None:
                lent.cancel("the node has no part in the swarm any more")
