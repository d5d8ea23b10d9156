"""How bulk goes to each peer: over a Unix socket, over TCP, or over a stream that others relay.

Of two peers, the one that dialled the link dials for bulk as well, once both have told each other
over it where they take bulk, with the ticket that admits the other there.
"""

from __future__ import annotations

from manta.node.plane import local
from manta.node.plane.envelope import BulkAt
from manta.node.plane.links import PeerLinks
from manta.node.plane.local import LocalSocket
from manta.node.plane.relays import Relays
from manta.transports.addresses import join_address
from manta.transports.errors import LocalTransportError, RemoteProtocolError
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.tickets import Ticket


class BulkPaths:
    """`port`: where this node listens for bulk; 0 if it does not."""

    def __init__(
        self, bulk: BulkEndpoint, links: PeerLinks, port: int, socket: LocalSocket | None
    ) -> None:
        self._bulk = bulk
        self._links = links
        self._port = port
        self.place = socket.place if socket is not None else ""
        self.relays: Relays | None = None
        self._local: set[str] = set()
        """Keys of those that are reached over a Unix socket."""

    def link_up(self, key: str) -> BulkAt:
        """What the peer is to be told."""
        return BulkAt(self._port, self._bulk.ticket(key).pack(), self.place)

    def told(self, key: str, at: BulkAt) -> None:
        """Raises RemoteProtocolError."""
        where = local.address_of(at.place) if self.place and at.place else None
        host = self._links.dialled_host(key)
        (self._local.discard if where is None else self._local.add)(key)
        if host is None and not self._links.is_relayed(key):
            return
        try:
            ticket = Ticket.unpack(at.ticket)
            if host is None:
                if self.relays is not None:
                    self.relays.bulk(key, ticket)
                return
            self._bulk.dial(key, where or join_address(host, at.port), ticket)
        except LocalTransportError as error:
            raise RemoteProtocolError(str(error)) from error

    def is_local(self, key: str) -> bool:
        return key in self._local

    def forget(self, keys: list[str]) -> None:
        self._local.difference_update(keys)
