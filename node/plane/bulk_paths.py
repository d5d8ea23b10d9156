"""How bulk goes to each peer: over a Unix socket, over TCP, over a stream that others relay, or
over the link.

Of two peers, the one that dialled the link dials for bulk as well, once both have told each other
over it where they take bulk, with the ticket that admits the other there. If it cannot connect,
since a firewall lets the link's port pass alone, bulk goes over the link until it can. It always
does where one of them takes none elsewhere (`bulk_cipher = "curve"`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from manta.node.plane.envelope import BulkAt
from manta.node.plane.links import PeerLinks
from manta.node.plane.local import LocalSocket
from manta.node.plane.relays import Relays
from manta.transports.addresses import join_address
from manta.transports.errors import LocalTransportError, RemoteProtocolError
from manta.transports.sealed.curve import LinkBulk
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.tickets import Ticket

LOOK = 1.5
"""Seconds between two looks whether there is a connection. Without one at both, bulk goes over the
link."""


@dataclass
class _Dialled:
    """A peer to which this side connects for bulk."""

    address: str = ""
    """Where; "" where bulk is to go over the link."""
    is_missed: bool = False
    """Whether there was no connection at the last look."""


class BulkPaths:
    """For the transport's I/O thread. `port`: where this node listens for bulk; 0 if it does not.
    `over_links`: bulk is to go over links alone, between nodes that do not share a machine."""

    def __init__(
        self,
        bulk: BulkEndpoint,
        links: PeerLinks,
        carried: LinkBulk,
        port: int,
        socket: LocalSocket | None,
        call_later: Callable[[float, Callable[[], None]], Any],
        *,
        over_links: bool = False,
    ) -> None:
        self._bulk = bulk
        self._links = links
        self._carried = carried
        self._port = port
        self._socket = socket
        self._call_later = call_later
        self._over_links = over_links
        self.relays: Relays | None = None
        self._local: set[str] = set()
        """Keys of those that are reached over a Unix socket."""
        self._dialled: dict[str, _Dialled] = {}
        self._looks = False

    def link_up(self, key: str) -> BulkAt:
        """What the peer is to be told."""
        mark = self._socket.mark(key) if self._socket is not None else ""
        return BulkAt(self._port, self._bulk.ticket(key).pack(), mark, self._over_links)

    def told(self, key: str, at: BulkAt) -> None:
        """Raises RemoteProtocolError."""
        where = self._socket.find(key, at.mark) if self._socket is not None else None
        host, is_relayed = self._links.dialled_host(key), self._links.is_relayed(key)
        (self._local.discard if where is None else self._local.add)(key)
        self._dialled.pop(key, None)
        try:
            ticket = Ticket.unpack(at.ticket)
            is_over_link = where is None and (self._over_links or at.over_link)
            if host is None and not (is_relayed and self._opens(key)):
                return
            if is_over_link or (host is not None and where is None and not at.port):
                self._dialled[key] = _Dialled()
                self._begin(key, makeshift=False)
            elif host is None:
                if self.relays is not None:
                    self.relays.bulk(key, ticket)
                return
            else:
                self._dialled[key] = _Dialled(where or join_address(host, at.port))
                self._bulk.dial(key, self._dialled[key].address, ticket)
        except LocalTransportError as error:
            raise RemoteProtocolError(str(error)) from error
        self._look_later()

    def is_local(self, key: str) -> bool:
        return key in self._local

    def trouble(self, key: str) -> str:
        """Why large values take a slower way than they could; "" if they do not."""
        if not self._bulk.peer(key).is_makeshift:
            return ""
        if (dialled := self._dialled.get(key)) is not None:
            return (
                f"{dialled.address} is not reached: large values go over the link, more slowly; "
                "open that port"
            )
        return (
            f"large values go over the link, more slowly; open port {self._port} of this node, too"
        )

    def forget(self, keys: list[str]) -> None:
        self._local.difference_update(keys)
        for key in keys:
            self._dialled.pop(key, None)

    def _opens(self, key: str) -> bool:
        """Whether this side begins what goes over a relayed link."""
        link = self._links.link(key)
        return link is not None and bool(link.address)

    def _begin(self, key: str, *, makeshift: bool) -> None:
        link = self._links.link(key)
        if link is not None:
            self._carried.begin(link, makeshift=makeshift)

    def _look_later(self) -> None:
        if not self._looks and self._dialled:
            self._looks = True
            self._call_later(LOOK, self._look)

    def _look(self) -> None:
        """Has bulk go over the links of those with whom there has been no connection for long."""
        self._looks = False
        for key, one in list(self._dialled.items()):
            if self._links.link(key) is None:
                del self._dialled[key]  # when there is one again, it tells anew
            elif self._bulk.peer(key).connected:
                one.is_missed = False
            elif one.is_missed:
                self._begin(key, makeshift=bool(one.address))
            else:
                one.is_missed = True
        self._look_later()
