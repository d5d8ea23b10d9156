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
from manta.node.plane.relay_ways import RelayWays
from manta.transports.addresses import join_address, split_address
from manta.transports.errors import LocalTransportError, RemoteProtocolError
from manta.transports.sealed.curve import LinkBulk
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.tickets import Ticket

LOOK = 1.5
"""Seconds between two looks whether there is a connection."""
MISSED, MISSED_BY_OTHER = 2, 4
"""Looks without one after which bulk goes over the link: where this side connects, and where the
other does."""


@dataclass
class _Told:
    """What a peer with a direct link has said, and what came of it."""

    port: int
    ticket: Ticket
    here: str | None
    """Where it takes bulk on this machine, if it is there."""
    is_over_link: bool
    """Whether bulk is to go over the link alone."""
    address: str = ""
    """Where it is dialled; "" if it is not."""
    missed: int = 0
    """Looks in turn at which there was no connection."""


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
        self.relays: RelayWays | None = None
        self._local: set[str] = set()
        """Keys of those that are reached over a Unix socket."""
        self._told: dict[str, _Told] = {}
        self._looks = False

    def link_up(self, key: str) -> BulkAt:
        """What the peer is to be told."""
        mark = self._socket.mark(key) if self._socket is not None else ""
        return BulkAt(self._port, self._bulk.ticket(key).pack(), mark, self._over_links)

    def told(self, key: str, at: BulkAt) -> None:
        """Raises RemoteProtocolError."""
        here = self._socket.find(key, at.mark) if self._socket is not None else None
        (self._local.discard if here is None else self._local.add)(key)
        is_over_link = here is None and (self._over_links or at.over_link)
        self._told.pop(key, None)
        try:
            ticket = Ticket.unpack(at.ticket)
            if self._links.is_relayed(key) and not is_over_link:
                if self.relays is not None:
                    self.relays.bulk(key, ticket)
                return
            self._told[key] = told = _Told(at.port, ticket, here, is_over_link)
            link = self._links.link(key)
            if not is_over_link:
                self._dial(key, told)
            elif link is not None and link.address:
                self._carried.begin(link)
        except LocalTransportError as error:
            raise RemoteProtocolError(str(error)) from error
        self._look_later()

    def is_local(self, key: str) -> bool:
        return key in self._local

    def trouble(self, key: str) -> str:
        """Why large values take a slower way than they could; "" if they do not."""
        told = self._told.get(key)
        if told is None or not self._bulk.peer(key).is_makeshift:
            return ""
        if told.address:
            return (
                f"{told.address} is not reached: large values go over the link, more slowly; open "
                "that port"
            )
        return f"large values go over the link, more slowly; open port {self._port} of this node"

    def forget(self, keys: list[str]) -> None:
        self._local.difference_update(keys)
        for key in keys:
            self._told.pop(key, None)

    def _dial(self, key: str, told: _Told) -> None:
        """Connects, if that is for this side. Raises LocalTransportError."""
        where = self._links.dialled_address(key)
        if where is not None and (told.port or told.here):
            told.address = told.here or join_address(split_address(where)[0], told.port)
            self._bulk.dial(key, told.address, told.ticket)

    def _look_later(self) -> None:
        if not self._looks and self._told:
            self._looks = True
            self._call_later(LOOK, self._look)

    def _look(self) -> None:
        """Has bulk go over the links of those with whom there has been no connection for long."""
        self._looks = False
        self._look_later()  # first: whatever fails, it goes on
        for key, told in list(self._told.items()):
            link = self._links.link(key)
            if link is None:
                del self._told[key]  # when there is one again, it tells anew
                continue
            if self._bulk.peer(key).connected:
                told.missed = 0
                continue
            told.missed += 1
            if not told.address and not told.is_over_link:
                self._dial(key, told)  # a link may have come up that this side dialled
            if told.missed >= (MISSED if told.address or link.address else MISSED_BY_OTHER):
                self._carried.begin(link, makeshift=not told.is_over_link)
