"""The same bulk over CURVE links of their own: slower, with one secret channel fewer to argue for.

`ZmqTransport` bounds, admits and heals; a chunk is a message of two parts. Of two links between
the same peers, both sides use the one that the peer with the smaller key dialled, and close the
other.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from manta.transports.errors import (
    BulkError,
    DownReason,
    LinkDown,
    LinkOverflow,
    LocalTransportError,
    RemoteProtocolError,
)
from manta.transports.sealed.options import MIB, Pace, PeerOptions
from manta.transports.sealed.peer import BulkPeer
from manta.transports.sealed.records import Head, Kind, text_of
from manta.transports.security.admission import Standing
from manta.transports.security.keys import check_key
from manta.transports.zeromq.io_thread import IoThread
from manta.transports.zeromq.transport import ZmqTransport

if TYPE_CHECKING:
    from manta.transports.interface import Buffer, Link, Message
    from manta.transports.sealed.peer import Changed
    from manta.transports.sealed.sources import Source
    from manta.transports.sealed.transfers import Said
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair

_PACE = Pace(
    chunk=MIB // 4, report=0, allowance=4 * MIB
)  # with what a link has not reported, less than its window
_TICK = 0.5  # seconds
_CLOSE_TIMEOUT = 10.0  # seconds


class CurveEndpoint:
    """As `BulkEndpoint`, but without tickets and Unix sockets. Thread-safe."""

    def __init__(
        self,
        keys: KeyPair,
        admission: Admission,
        *,
        options: PeerOptions | None = None,
        changed: Changed | None = None,
    ) -> None:
        """`changed(peer)` is called after `peer.state` has changed."""
        self._options = options or PeerOptions()
        self._own_key = keys.public
        self._admission = admission
        self._changed = changed
        self._peers: dict[str, BulkPeer] = {}
        self._dialled: dict[str, Link] = {}
        self._connections: dict[str, LinkConnection] = {}  # by peer; on the transport's thread
        self._changing = threading.Lock()
        self._closed = False
        self._io = IoThread("manta-peers")
        self._io.start()
        self._transport = ZmqTransport(keys)
        self._unwatch = admission.watch(self._withdrawn)
        self._io.call(self._tick)

    def listen(self, address: str, *, fd: int | None = None) -> str:
        """Accept peers at `tcp://HOST:PORT`; returns the address that was taken.

        Raises AddressInUse and LocalTransportError.
        """
        return self._transport.listen(address, self, self._admission, fd=fd).address

    def peer(self, key: str) -> BulkPeer:
        """The peer with this key, connected or not. Raises LocalTransportError if it is unknown."""
        check_key(key)
        if self._closed:
            raise LocalTransportError("this endpoint is closed: make a new one")
        if self._admission.standing(key) is not Standing.KNOWN:
            raise LocalTransportError(f"the key {key} is not known here: admit it first")
        with self._changing:
            peer = self._peers.get(key)
            if peer is None or peer.closed:
                peer = self._peers[key] = BulkPeer(key, self._options, self._io.call, self._changed)
            return peer

    def dial(self, key: str, address: str) -> BulkPeer:
        """Connect to a peer that listens there, and again whenever the connection is lost."""
        peer = self.peer(key)
        before = self._dialled.pop(key, None)
        if before is not None:
            before.close()
        self._dialled[key] = self._transport.dial(address, key, self)
        return peer

    def close(self) -> None:
        """End everything; what is in progress fails with BulkError. Idempotent.

        Raises LocalTransportError within a callback, whose thread it would wait for.
        """
        if self._io.is_current() or self._transport.is_current():
            raise LocalTransportError(
                "a callback cannot close its own endpoint: use another thread"
            )
        if self._closed:
            return
        self._closed = True
        self._unwatch()
        for peer in [*self._peers.values()]:
            peer.close("the endpoint was closed")
        self._transport.close()
        self._io.call(self._io.end)
        self._io.join(_CLOSE_TIMEOUT)

    def _withdrawn(self, key: str) -> None:
        peer = self._peers.pop(key, None)
        link = self._dialled.pop(key, None)
        if peer is not None:
            peer.end(BulkError("the peer's key is known here no longer"), DownReason.REVOKED)
        if link is not None:
            link.close()

    def _tick(self) -> None:
        self._io.call_later(_TICK, self._tick)
        now = time.monotonic()
        for peer in [*self._peers.values()]:
            peer.tick(now)

    # --- on the transport's thread -----------------------------------------------------------

    def link_up(self, link: Link) -> None:
        key = link.peer_key
        before = self._connections.get(key)
        if before is not None:
            if self._rank(before.link) <= self._rank(link) and before.link.state is None:
                self._drop(link)
                return
            self._leave(before, DownReason.CLOSED)
            self._drop(before.link)
        connection = LinkConnection(self._transport, link, self.peer(key))
        self._connections[key] = connection
        connection.begin()

    def link_down(self, link: Link, reason: DownReason) -> None:
        connection = self._connections.get(link.peer_key)
        if connection is not None and connection.link is link:
            self._leave(connection, reason)
        peer = self._peers.get(link.peer_key)
        if peer is not None and link.address:
            peer.down(reason)

    def received(self, link: Link, message: list[Buffer]) -> None:
        connection = self._connections.get(link.peer_key)
        if connection is not None and connection.link is link:
            if self._admission.standing(link.peer_key) is not Standing.KNOWN:
                connection.end(DownReason.REVOKED)
                return
            connection.received(message)

    def _rank(self, link: Link) -> str:
        """The key of who dialled it."""
        return self._own_key if link.address else link.peer_key

    def _leave(self, connection: LinkConnection, reason: DownReason) -> None:
        self._connections.pop(connection.link.peer_key, None)
        connection.leave(reason)

    def _drop(self, link: Link) -> None:
        if self._dialled.get(link.peer_key) is link:
            del self._dialled[link.peer_key]  # it is for the peer to dial
        link.close()


class LinkConnection:
    """A link as the connection of a peer. Lives on the transport's thread, except as it says."""

    def __init__(self, transport: ZmqTransport, link: Link, peer: BulkPeer) -> None:
        self.link = link
        self.pace = _PACE
        self._transport = transport
        self._peer = peer
        self._ended = False
        self._pumps = False  # a pump is about to run
        self._held: tuple[Said, Source | None] | None = None  # for which the link had no room

    def begin(self) -> None:
        if not self._peer.attach(self):
            self.link.close()

    def leave(self, reason: DownReason) -> None:
        self._ended = True
        held, self._held = self._held, None
        if held is not None and held[0].head.kind is Kind.CHUNK:
            with self._peer.lock:
                self._peer.gone(held[0].head)
        self._peer.detach(self, reason)

    def wake(self) -> None:
        """With the peer's lock, on any thread."""
        if not self._pumps:
            self._pumps = True
            self._transport.call_soon(self._pump)

    def end(self, reason: DownReason) -> None:
        """On any thread."""
        self._ended = True
        self.link.close()

    def received(self, message: Message) -> None:
        """Raises RemoteProtocolError, which costs the peer the link."""
        if self._ended:
            return
        head = Head.unpack(message[0])
        payload = message[1] if len(message) == 2 else b""
        if len(message) > 2 or len(payload) != head.length:
            raise RemoteProtocolError("a message of bulk has not the bytes that its head says")
        if head.kind is Kind.CHUNK:
            landing = self._peer.place(head)
            if landing.memory is not None:
                landing.memory[:] = payload
                self._peer.landed(head, whole=True)
        elif head.kind is not Kind.BYE:
            self._peer.heard(head, text_of(payload), time.monotonic())
        if self._held is not None:
            self._pump()

    def _pump(self) -> None:
        peer = self._peer
        while True:
            with peer.lock:
                is_over = self._ended or self.link.state is not None
                item = None if is_over else self._held or peer.take()
                if item is None:
                    self._pumps = False
                    return
                self._pumps = True
            said, source = item
            self._held = None
            try:
                self._send(said, source)
            except LinkOverflow:
                self._held = item
                with peer.lock:
                    self._pumps = False
                return
            except LinkDown:
                pass  # it is resumed on the next one
            if said.head.kind is Kind.CHUNK:
                with peer.lock:
                    peer.gone(said.head)

    def _send(self, said: Said, source: Source | None) -> None:
        head, payload = said.head, said.text
        if head.kind is Kind.CHUNK:
            assert source is not None
            self.link.send([head.pack(), source.read(head.offset, head.length)])
        else:
            self.link.send([head.pack()] if not payload else [head.pack(), payload])
