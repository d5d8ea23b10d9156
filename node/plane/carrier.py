"""Fetches values from the planes of other nodes: each is asked for over the link, and comes as a
bulk transfer."""

from __future__ import annotations

import contextlib
import secrets
import time
from functools import partial
from typing import NamedTuple

from manta.node.peers.known import KnownPeers
from manta.node.plane import envelope
from manta.node.plane.copies import Fetched, Place, ValueLost
from manta.node.plane.envelope import WantParcel
from manta.node.plane.fetches import Fetch, Fetches
from manta.node.plane.links import PeerLinks
from manta.transports.errors import BulkError, LocalTransportError, TransferRefused
from manta.transports.exchange.letters import Remote
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.in_file import InFile
from manta.transports.zeromq.io_thread import IoThread

MIB = 1 << 20


class _Calls(NamedTuple):
    place: Place
    done: Fetched


class ParcelCarrier:
    """Implements `copies.Carrier` and `fetches.Shell`, on the plane's thread."""

    def __init__(
        self,
        io: IoThread,
        bulk: BulkEndpoint,
        links: PeerLinks,
        known: KnownPeers,
    ) -> None:
        self._io = io
        self._bulk = bulk
        self._links = links
        self._known = known
        self._fetches = Fetches(self)
        self._calls: dict[Fetch, _Calls] = {}

    # --- what is wanted (copies.Carrier) -----------------------------------------------------

    def fetch(
        self, swarm_id: str, remote: Remote, place: Place, done: Fetched, *, is_asked: bool
    ) -> None:
        fetch = Fetch(swarm_id, remote, is_asked)
        self._calls[fetch] = _Calls(place, done)
        self._fetches.begin(fetch, time.monotonic())

    def asked(self, remote: Remote, is_asked: bool) -> None:
        self._fetches.asked(remote, is_asked, time.monotonic())

    def give_up(self, remote: Remote) -> None:
        self._fetches.give_up(remote, time.monotonic())

    def state(self, remote: Remote) -> str:
        fetch = self._fetches.get(remote)
        come = 0 if fetch is None else fetch.upto
        said = [f"{come / MIB:,.1f} of {remote.parcel.size / MIB:,.1f} MiB of it have come"]
        if fetch is not None and fetch.key:
            if fetch.why:
                said.append(fetch.why)
            if (down := self._why_down(fetch.key)) is not None:
                said.append(f"there is no connection for large values: {down}")
        return "; ".join(said)

    def _why_down(self, key: str) -> str | None:
        try:
            state = self._bulk.peer(key).state
        except LocalTransportError:
            return "its key is not known"
        return None if state is None else str(state)

    # --- what comes of it ---------------------------------------------------------------------

    def link_up(self, key: str) -> None:
        self._fetches.link_up(key, time.monotonic())

    def directory_changed(self, swarm_id: str) -> None:
        self._fetches.directory_changed(swarm_id, time.monotonic())

    def gone(self, key: str, transfer: bytes) -> None:
        """The holder has it no more."""
        self._fetches.gone(key, transfer)

    def refused(self, key: str, transfer: bytes, why: str) -> None:
        """The holder does not send it now."""
        self._fetches.refused(key, transfer, why)

    @property
    def due(self) -> float | None:
        return self._fetches.due

    def tick(self, now: float) -> None:
        self._fetches.tick(now)

    # --- fetches.Shell ------------------------------------------------------------------------

    def key(self, swarm_id: str, peer: str) -> str | None:
        node = self._known.node(swarm_id, peer)
        return None if node is None else node.key

    def new_id(self) -> bytes:
        return secrets.token_bytes(16)

    def expect(self, fetch: Fetch) -> None:
        transfer, place = fetch.transfer, self._calls[fetch].place

        def placed(memfd: int) -> InFile | None:  # this and what follows on threads of bulk's
            try:
                return place(memfd)
            except Exception as error:
                fetch.error = fetch.error or error
                raise

        def moved(upto: int) -> None:
            fetch.upto = upto

        def ended(error: BulkError | None) -> None:
            if isinstance(error, TransferRefused):  # it is of another size than it was said
                fetch.error = fetch.error or ValueLost(str(error))
            self._io.call(partial(self._transfer_ended, transfer, error))

        try:
            peer = self._bulk.peer(fetch.key)
            peer.adopt(transfer, fetch.remote.parcel.size, placed, done=ended, progress=moved)
        except (BulkError, LocalTransportError) as error:
            ended(BulkError(str(error)))

    def _transfer_ended(self, transfer: bytes, error: BulkError | None) -> None:
        self._fetches.transfer_ended(transfer, error, time.monotonic())

    def request(self, fetch: Fetch) -> None:
        epoch = self._known.epoch(fetch.swarm_id) or ""
        wanted = WantParcel(fetch.remote.parcel.id, fetch.transfer)
        self._links.send(fetch.key, envelope.pack(fetch.swarm_id, epoch, wanted))

    def refuse(self, fetch: Fetch, why: str) -> None:
        with contextlib.suppress(LocalTransportError):  # its key is gone, and with it the transfer
            self._bulk.peer(fetch.key).refuse(fetch.transfer, why)

    def done(self, fetch: Fetch, error: Exception | None) -> None:
        """Later: this may be within a call of who asks for the value."""
        self._io.call(partial(self._calls.pop(fetch).done, error))
