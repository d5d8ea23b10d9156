"""By whom what cannot go directly is relayed: the manager, or nodes that both can connect to.

The manager is asked first. Of peers with whom there is no link after a while, as when the manager
is away, both ask nodes that have a swarm in common with both and to which they have connected, in
the order of their ids: so some of these are the same. A node relays for those that have a swarm in
common with it and with each other. Whoever relays sees ciphertext.
"""

from __future__ import annotations

from collections.abc import Iterator

from manta.node.peers.known import KnownPeers
from manta.node.plane.links import PeerLinks
from manta.node.plane.relays import HOST, Relays
from manta.transports.addresses import split_address
from manta.transports.errors import DownReason
from manta.transports.interface import Buffer, Link
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.tickets import Ticket
from manta.transports.security.admission import Admission
from manta.transports.zeromq.transport import ZmqTransport

LOOK = 2.0
"""Seconds between two looks whether there is a link."""
MISSED = 2
"""Looks without one after which nodes are asked."""
MOST = 3
"""Nodes that are asked for one peer."""


class RelayWays:
    """Implements `links.Relaying`, and LinkHandler of links that others have relayed to this node.
    All of it on the transport's I/O thread."""

    def __init__(
        self,
        transport: ZmqTransport,
        links: PeerLinks,
        bulk: BulkEndpoint,
        admission: Admission,
        known: KnownPeers,
        manager: tuple[str, str] | None,
    ) -> None:
        """`manager`: its address and key; None if it does not relay."""
        self._transport = transport
        self._links = links
        self._bulk = bulk
        self._admission = admission
        self._known = known
        self._manager = None if manager is None else self._relays(*manager)
        self._nodes: dict[str, Relays] = {}
        """By key of the node that relays."""
        self._wanted: dict[str, bool] = {}
        """By key, whether this side opens the streams."""
        self._missed: dict[str, int] = {}
        self._looks = False
        self._closed = False
        self._port = 0

    # --- links.Relaying -----------------------------------------------------------------------

    def want(self, key: str, *, opens: bool) -> None:
        self._wanted[key] = opens
        if self._manager is not None:
            self._manager.want(key, opens=opens)
        self._look_later()

    def enough(self, key: str) -> None:
        self._wanted.pop(key, None)
        self._missed.pop(key, None)
        for relays in self._all():
            relays.enough(key)
        for node in [key for key, one in self._nodes.items() if not one.is_wanted]:
            self._nodes.pop(node).end()

    # --- for the plane ------------------------------------------------------------------------

    def bulk(self, key: str, ticket: Ticket) -> None:
        """The peer admits this side's bulk with that ticket."""
        for relays in self._all():
            relays.bulk(key, ticket)

    def forget(self, keys: list[str]) -> None:
        """These nodes relay nothing any more."""
        for key in keys:
            if (relays := self._nodes.pop(key, None)) is not None:
                relays.end()

    def close(self) -> None:
        """Nothing is opened after it."""
        self._closed = True
        for relays in self._all():
            relays.close()

    def port(self) -> int:
        """Of this machine's loopback, where links come that others relay."""
        if not self._port:
            listener = self._transport.listen(f"tcp://{HOST}:0", self, self._admission)
            self._port = split_address(listener.address)[1]
        return self._port

    # --- LinkHandler --------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        self._links.relayed_up(link)

    def link_down(self, link: Link, reason: DownReason) -> None:
        self._links.left(link, reason)

    def received(self, link: Link, message: list[Buffer]) -> None:
        self._links.received(link, message)

    # --- by nodes -----------------------------------------------------------------------------

    def _relays(self, address: str, key: str) -> Relays:
        where = address, key
        return Relays(
            self._transport, self._links, self._bulk, self._admission, where, port=self.port
        )

    def _all(self) -> Iterator[Relays]:
        if self._manager is not None:
            yield self._manager
        yield from list(self._nodes.values())

    def _look_later(self) -> None:
        if not self._looks and self._wanted and not self._closed:
            self._looks = True
            self._transport.io.call_later(LOOK, self._look)

    def _look(self) -> None:
        self._looks = False
        self._look_later()  # first: whatever fails, it goes on
        for key, opens in list(self._wanted.items()):
            missed = 0 if self._links.is_up(key) else self._missed.get(key, 0) + 1
            self._missed[key] = missed
            if missed >= MISSED:
                self._ask_nodes(key, opens=opens)

    def _ask_nodes(self, key: str, *, opens: bool) -> None:
        asked = 0
        for peer in self._known.beside(key):
            address = self._links.dialled_address(peer.key)
            if address is None or asked >= MOST:
                continue
            asked += 1
            if peer.key not in self._nodes:
                self._nodes[peer.key] = self._relays(address, peer.key)
            if not self._nodes[peer.key].wants(key):
                self._nodes[peer.key].want(key, opens=opens)
