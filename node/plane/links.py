"""The links between this plane and those of other nodes.

Of two nodes that can dial each other, the one with the smaller id does so at once, and the other
after a while if nothing has come, for the case that only one direction is open. Should there be two
links, each side sends over the one that came first, hears both, and goes over to the other when its
own goes down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from manta.protocol.peers import Peer
from manta.transports.addresses import split_address
from manta.transports.errors import DownReason, LinkDown, LinkOverflow
from manta.transports.interface import Buffer, Link, Transport
from manta.transports.security.admission import Admission

OTHERS_TURN = 3.0
"""Seconds after which the node with the greater id dials as well."""

log = logging.getLogger("manta.node.plane")


class Owner(Protocol):
    """Who uses the links. Called on the transport's I/O thread."""

    def link_up(self, key: str, *, anew: bool) -> None:
        """With `anew`, in the place of one that the peer may not know to have gone down."""

    def link_down(self, key: str) -> None: ...

    def received(self, key: str, data: Buffer) -> None:
        """Raises RemoteProtocolError, which costs the link."""


class PeerLinks:
    """All of it on the transport's I/O thread."""

    def __init__(
        self,
        transport: Transport,
        admission: Admission,
        owner: Owner,
        me: str,
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._transport = transport
        self._admission = admission
        self._owner = owner
        self._me = me
        self._call_later = call_later
        self._dialled: dict[str, tuple[str, Link]] = {}
        """By key: the address, and the link."""
        self._up: dict[str, Link] = {}
        """By key: the link over which is sent."""
        self._others: dict[str, list[Link]] = {}
        """By key: further links that are up."""

    def is_up(self, key: str) -> bool:
        return key in self._up

    def dialled_host(self, key: str) -> str | None:
        """Where the peer was dialled; None where it dialled this side."""
        link = self._up.get(key)
        if link is None or not link.address:
            return None
        return split_address(link.address)[0]

    def know(self, peers: Iterable[Peer], *, can_dial: bool = True) -> None:
        """Admits the peers, and dials those whose turn it is not."""
        for peer in peers:
            self._admission.allow(peer.key)
            if peer.key in self._up or not peer.addresses or not can_dial:
                continue
            if self._me < peer.node_id:
                self._dial(peer)
            else:
                self._call_later(OTHERS_TURN, partial(self._dial_unless_up, peer))

    def forget(self, keys: Iterable[str]) -> None:
        """Nothing of them is heard any more, and nothing told, after this returns."""
        for key in keys:
            self._admission.forget(key)
            _, dialled = self._dialled.pop(key, ("", None))
            links = [self._up.pop(key, None), dialled, *self._others.pop(key, ())]
            was_up = links[0] is not None
            for link in links:
                if link is not None:
                    link.close()
            if was_up:
                self._owner.link_down(key)

    def send(self, key: str, data: bytes) -> bool:
        """False if it could not be sent: the link is, or goes, down."""
        link = self._up.get(key)
        if link is None:
            return False
        try:
            link.send([data])
        except LinkDown:
            return False
        except LinkOverflow:
            log.warning("Node %s takes nothing: its link is ended.", key[:8])
            link.close()
            return False
        return True

    def end(self, key: str, why: str) -> None:
        """Ends the link over which is sent; another may follow."""
        if (link := self._up.get(key)) is not None:
            log.warning("The link to node %s is ended: %s", key[:8], why)
            link.close()

    def _dial_unless_up(self, peer: Peer) -> None:
        if peer.key not in self._up and not self._admission.denies(peer.key):
            self._dial(peer)

    def _dial(self, peer: Peer) -> None:
        address, link = self._dialled.get(peer.key, ("", None))
        if address in peer.addresses:
            return
        if link is not None:
            link.close()
        address = peer.addresses[0]
        self._dialled[peer.key] = address, self._transport.dial(address, peer.key, self)

    # --- LinkHandler --------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        key = link.peer_key
        if key in self._up:
            self._others.setdefault(key, []).append(link)
            return
        self._up[key] = link
        self._owner.link_up(key, anew=False)

    def link_down(self, link: Link, reason: DownReason) -> None:
        key = link.peer_key
        others = self._others.get(key, [])
        if link in others:
            others.remove(link)
        elif self._up.get(key) is link:
            del self._up[key]
            self._owner.link_down(key)
            if others:
                self._up[key] = others.pop(0)
                self._owner.link_up(key, anew=True)

    def received(self, link: Link, message: list[Buffer]) -> None:
        self._owner.received(link.peer_key, message[0])
