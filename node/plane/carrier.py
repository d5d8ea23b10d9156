"""Moves values between this plane and those of other nodes: each is asked for over the link, and
comes as a bulk transfer."""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from manta.node.peers.known import KnownPeers
from manta.node.plane import envelope
from manta.node.plane.envelope import NoParcel, WantParcel
from manta.node.plane.links import PeerLinks
from manta.node.plane.parcels import GONE, Own, Place
from manta.transports.errors import BulkError, LocalTransportError
from manta.transports.exchange.letters import Remote
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.zeromq.io_thread import IoThread

log = logging.getLogger("manta.node.plane")


class _Fetch(NamedTuple):
    swarm_id: str
    remote: Remote
    key: str
    done: Callable[[str], None]


class ParcelCarrier:
    """Implements `parcels.Carrier`, on the plane's thread. `ended` is called after each fetch."""

    def __init__(
        self,
        io: IoThread,
        bulk: BulkEndpoint,
        links: PeerLinks,
        known: KnownPeers,
        ended: Callable[[], None],
    ) -> None:
        self._io = io
        self._bulk = bulk
        self._links = links
        self._known = known
        self._ended = ended
        self._fetches: dict[bytes, _Fetch] = {}
        """By transfer: what is under way from other nodes."""
        self._gone: set[bytes] = set()
        """Transfers whose sender has the value no more."""

    # --- to others ----------------------------------------------------------------------------

    def serve(self, key: str, said: envelope.Envelope, want: WantParcel, own: Own | None) -> None:
        """Sends a value of this node's, or says that it is not there any more."""
        if own is None:
            told = envelope.pack(said.swarm_id, said.epoch, NoParcel(want.transfer))
            self._links.send(key, told)
            return
        ours = os.dup(own.fd)
        memory = mmap.mmap(ours, os.fstat(ours).st_size, mmap.MAP_SHARED, mmap.PROT_READ)

        def done(_: BulkError | None) -> None:
            os.close(ours)  # the mapping ends when nobody refers to it any more

        try:
            memfd = ours if own.in_memory else -1
            self._bulk.peer(key).send(want.transfer, [memoryview(memory)], done=done, memfd=memfd)
        except (BulkError, LocalTransportError) as error:  # asked for twice, or too many wait
            log.info("A value was not sent to node %s: %s", key[:8], error)
            done(None)

    # --- from others --------------------------------------------------------------------------

    def fetch(
        self,
        swarm_id: str,
        remote: Remote,
        transfer: bytes,
        place: Place,
        done: Callable[[str], None],
    ) -> None:
        node = self._known.node(swarm_id, remote.peer)
        if node is None:
            self._io.call(partial(done, "its node has no part in the swarm any more"))
            return
        self._fetches[transfer] = fetch = _Fetch(swarm_id, remote, node.key, done)

        def ended(error: BulkError | None) -> None:  # on a thread of the bulk's
            self._io.call(partial(self._fetch_ended, transfer, error))

        try:
            size = remote.parcel.size
            self._bulk.peer(node.key).adopt(transfer, size, place, done=ended)
        except (BulkError, LocalTransportError) as error:
            self._io.call(partial(self._fetch_ended, transfer, BulkError(str(error))))
            return
        self._ask_for(transfer, fetch)

    def link_up(self, key: str) -> None:
        """What was asked over the link before may not have arrived."""
        for transfer, fetch in self._fetches.items():
            if fetch.key == key:
                self._ask_for(transfer, fetch)

    def _ask_for(self, transfer: bytes, fetch: _Fetch) -> None:
        epoch = self._known.epoch(fetch.swarm_id) or ""
        wanted = WantParcel(fetch.remote.parcel.id, transfer)
        self._links.send(fetch.key, envelope.pack(fetch.swarm_id, epoch, wanted))

    def is_not_there(self, key: str, transfer: bytes) -> None:
        """Its sender says so."""
        if transfer in self._fetches:
            self._gone.add(transfer)
            self._bulk.peer(key).refuse(transfer, GONE)

    def _fetch_ended(self, transfer: bytes, error: BulkError | None) -> None:
        fetch = self._fetches.pop(transfer)
        is_gone = transfer in self._gone
        self._gone.discard(transfer)
        fetch.done("" if error is None else GONE if is_gone else str(error))
        self._ended()

    def give_up(self, transfer: bytes) -> None:
        fetch = self._fetches.get(transfer)
        if fetch is None:
            return  # it has just ended
        try:
            self._bulk.peer(fetch.key).refuse(transfer, "nobody wants it any more")
        except LocalTransportError:
            return  # the peer is gone, and with it the transfer
