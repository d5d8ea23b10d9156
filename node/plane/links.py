"""The links between this plane and those of other nodes.

Of two nodes that can dial each other, the one with the smaller id does so at once, and the other
after a while if nothing has come, for the case that only one direction is open. Which addresses
are dialled when is in `dialling`. Should there be two links, each side sends over the one that came
first, hears both, and goes over to the other when its own goes down. While there is no direct link,
there may be one that others relay; it ends as soon as there is a direct one.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from manta.node.plane.dialling import Dialling
from manta.protocol.peers import Peer
from manta.transports.errors import DownReason, LinkDown, LinkOverflow, LocalTransportError
from manta.transports.interface import Buffer, Link, Transport
from manta.transports.security.admission import Admission

OTHERS_TURN = 3.0
"""Seconds after which the node with the greater id dials as well."""
RELAYED_AFTER = 2.0
"""Seconds without a direct link after which others are to relay."""
MOST_LINKS = 4
"""With one peer at a time: more are closed."""

log = logging.getLogger("manta.node.plane")


class Owner(Protocol):
    """Who uses the links. Called on the transport's I/O thread."""

    def link_up(self, key: str, *, anew: bool) -> None:
        """With `anew`, in the place of one that the peer may not know to have gone down."""

    def link_down(self, key: str) -> None: ...

    def received(self, key: str, data: Buffer) -> None:
        """Raises RemoteProtocolError, which costs the link."""


class Relaying(Protocol):
    """Makes links to peers that nobody can dial."""

    def want(self, key: str, *, opens: bool) -> None:
        """A link that others relay; of both peers, one `opens` it. Once for each time that
        none is left."""

    def enough(self, key: str) -> None:
        """It is not wanted any more."""


class OverLinks(Protocol):
    """What links carry besides: messages of two parts (`transports.sealed.curve`)."""

    def received(self, link: Link, message: list[Buffer]) -> None:
        """Raises RemoteProtocolError, which costs the link."""

    def left(self, link: Link) -> None:
        """The link is down."""


class LinkState(NamedTuple):
    """Of the link to a peer, or of there being none; `since` by this process's clock."""

    peer: Peer
    is_up: bool
    is_relayed: bool
    since: float
    sent: int
    received: int
    error: str


@dataclass(eq=False)
class _Linked:
    """A peer, and the links with it."""

    peer: Peer
    dialling: Dialling
    since: float
    attempts: dict[str, Link] = field(default_factory=dict)
    """By address: links that are dialled and have not been up."""
    up: Link | None = None
    """Over which is sent."""
    others: list[Link] = field(default_factory=list)
    """Further links that are up."""
    relayed: set[Link] = field(default_factory=set)
    """Those of both that others relay."""
    relay_at: float | None = None
    """When others are asked to relay."""
    timer: Any = None
    sent: int = 0
    received: int = 0

    @property
    def links(self) -> list[Link]:
        """All that are up; that over which is sent first."""
        return [*([] if self.up is None else [self.up]), *self.others]

    @property
    def is_direct(self) -> bool:
        return any(link not in self.relayed for link in self.links)


class PeerLinks:
    """All of it on the transport's I/O thread. Implements `LinkHandler` for direct links."""

    def __init__(
        self,
        transport: Transport,
        admission: Admission,
        owner: Owner,
        me: str,
        call_later: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        self._transport = transport
        self._admission = admission
        self._owner = owner
        self._me = me
        self._call_later = call_later
        self._peers: dict[str, _Linked] = {}
        """By key."""
        self._can_be_dialled = True
        self.relaying: Relaying | None = None
        """None where nobody relays."""
        self.carried: OverLinks | None = None

    def is_known(self, key: str) -> bool:
        return key in self._peers

    def is_up(self, key: str) -> bool:
        return key in self._peers and self._peers[key].up is not None

    def is_relayed(self, key: str) -> bool:
        linked = self._peers.get(key)
        return linked is not None and linked.up in linked.relayed

    def has_room(self, key: str) -> bool:
        """Whether the link takes what can wait: its other half is left to what cannot."""
        linked = self._peers.get(key)
        return linked is not None and linked.up is not None and not linked.up.is_half_full

    def link(self, key: str) -> Link | None:
        """That over which is sent, if one is up."""
        linked = self._peers.get(key)
        return None if linked is None else linked.up

    def dialled_address(self, key: str) -> str | None:
        """Where a direct link with the peer was dialled that is up; None if there is none such, as
        where the peer dialled this side."""
        if (linked := self._peers.get(key)) is not None:
            for link in linked.links:
                if link.address and link not in linked.relayed:
                    return link.address
        return None

    def states(self) -> Iterator[LinkState]:
        for one in self._peers.values():
            is_up, is_relayed = one.up is not None, one.up in one.relayed
            why = one.dialling.error
            yield LinkState(one.peer, is_up, is_relayed, one.since, one.sent, one.received, why)

    def know(self, peers: Iterable[Peer]) -> None:
        """Admits the peers, and dials those whose turn it is not. This node may be among them."""
        for peer in peers:
            if peer.node_id == self._me:
                self._can_be_dialled = bool(peer.addresses)
        for peer in peers:
            if peer.node_id != self._me:
                self._know(peer)

    def _know(self, peer: Peer) -> None:
        self._admission.allow(peer.key)
        now, linked = time.monotonic(), self._peers.get(peer.key)
        if linked is None:
            linked = _Linked(peer, Dialling(peer.addresses, now + self._pause(peer)), now)
            self._peers[peer.key] = linked
            linked.relay_at = now + RELAYED_AFTER
        else:
            linked.peer = peer
            begins = now + self._pause(peer)
            self._give_up(linked, linked.dialling.changed(peer.addresses, begins))
        self._look(linked)

    def forget(self, keys: Iterable[str]) -> None:
        """Nothing of them is heard any more, and nothing told, after this returns."""
        for key in keys:
            self._admission.forget(key)
            linked = self._peers.pop(key, None)
            if linked is None:
                continue
            if linked.timer is not None:
                linked.timer.cancel()
            if self.relaying is not None:
                self.relaying.enough(key)
            for link in [*linked.links, *linked.attempts.values()]:
                link.close()
            if linked.up is not None:
                self._owner.link_down(key)

    def send(self, key: str, data: bytes) -> bool:
        """False if it could not be sent: the link is, or goes, down."""
        linked = self._peers.get(key)
        if linked is None or linked.up is None:
            return False
        try:
            linked.up.send([data])
        except LinkDown:
            return False
        except LinkOverflow:
            log.warning("Node %s takes nothing: its link is ended.", key[:8])
            linked.up.close()
            return False
        linked.sent += len(data)
        return True

    def end(self, key: str, why: str) -> None:
        """Ends the link over which is sent; another may follow."""
        linked = self._peers.get(key)
        if linked is not None and linked.up is not None:
            log.warning("The link to node %s is ended: %s", key[:8], why)
            linked.up.close()

    # --- dialling -----------------------------------------------------------------------------

    def _pause(self, peer: Peer) -> float:
        """How long the peer has for dialling this node; nothing if that is not its turn."""
        return OTHERS_TURN if peer.node_id < self._me and self._can_be_dialled else 0.0

    def _look(self, linked: _Linked) -> None:
        """Does what is due, and sets the timer to what comes next."""
        now = time.monotonic()
        while (address := linked.dialling.next(now)) is not None:
            try:
                link = self._transport.dial(address, linked.peer.key, self)
            except LocalTransportError as error:  # of an address that is none
                linked.dialling.failed(address, str(error), now, random.random())
            else:
                linked.attempts[address] = link
        if linked.relay_at is not None and linked.relay_at <= now:
            linked.relay_at = None
            if self.relaying is not None:
                self.relaying.want(linked.peer.key, opens=self._me < linked.peer.node_id)
        times = [one for one in (linked.dialling.due, linked.relay_at) if one is not None]
        if linked.timer is not None:
            linked.timer.cancel()
            linked.timer = None
        if times:
            linked.timer = self._call_later(max(0.0, min(times) - now), partial(self._due, linked))

    def _due(self, linked: _Linked) -> None:
        linked.timer = None
        if self._peers.get(linked.peer.key) is linked:
            self._look(linked)

    def _give_up(self, linked: _Linked, addresses: Iterable[str]) -> None:
        for address in addresses:
            linked.attempts.pop(address).close()

    # --- LinkHandler, of direct links ---------------------------------------------------------

    def link_up(self, link: Link) -> None:
        linked = self._peers.get(link.peer_key)
        if linked is None:
            link.close()
            return
        dialled = linked.attempts.get(link.address) is link
        if dialled:
            del linked.attempts[link.address]
        elif link.address:  # it was given up in this moment
            link.close()
            return
        self._give_up(linked, linked.dialling.up(link.address))
        linked.relay_at = None
        if self.relaying is not None:
            self.relaying.enough(link.peer_key)
        self._joined(linked, link)

    def link_down(self, link: Link, reason: DownReason) -> None:
        linked = self._peers.get(link.peer_key)
        if linked is not None and linked.attempts.get(link.address) is link:
            del linked.attempts[link.address]
            link.close()
            linked.dialling.failed(link.address, str(reason), time.monotonic(), random.random())
            self._look(linked)
        else:
            self.left(link, reason)

    def received(self, link: Link, message: list[Buffer]) -> None:
        linked = self._peers.get(link.peer_key)
        if linked is None:
            return
        if len(message) > 1 and self.carried is not None:
            self.carried.received(link, message)
            return
        linked.received += len(message[0])
        self._owner.received(link.peer_key, message[0])

    # --- links of either kind -----------------------------------------------------------------

    def relayed_up(self, link: Link) -> None:
        """One that others relay."""
        linked = self._peers.get(link.peer_key)
        if linked is None or linked.is_direct:
            link.close()
            return
        linked.relayed.add(link)
        self._joined(linked, link)

    def left(self, link: Link, reason: DownReason) -> None:
        """A link that was up is down."""
        key = link.peer_key
        if self.carried is not None:
            self.carried.left(link)
        linked = self._peers.get(key)
        if linked is None or link not in linked.links:
            return
        if link.address:
            link.close()  # else it would dial on
        was_relayed = link in linked.relayed
        linked.relayed.discard(link)
        if link is not linked.up:
            linked.others.remove(link)
        else:
            linked.others.sort(key=linked.relayed.__contains__)  # direct ones first
            linked.up = linked.others.pop(0) if linked.others else None
            linked.since = time.monotonic()
            self._owner.link_down(key)
            if linked.up is not None:
                self._owner.link_up(key, anew=True)
        self._seek(linked, link, reason, was_relayed=was_relayed)

    def _seek(self, linked: _Linked, lost: Link, reason: DownReason, *, was_relayed: bool) -> None:
        now = time.monotonic()
        if not linked.is_direct:
            # Who dialled before does so at once: the other may not be able to.
            pause = 0.0 if lost.address and not was_relayed else self._pause(linked.peer)
            where = f"{lost.address}: " if lost.address else ""
            linked.dialling.lost(f"{where}{reason}", now + pause)
            if not was_relayed:
                linked.relay_at = now + RELAYED_AFTER
        self._look(linked)

    def _joined(self, linked: _Linked, link: Link) -> None:
        key = link.peer_key
        if linked.up is None:
            linked.up = link
            linked.since = time.monotonic()
            self._owner.link_up(key, anew=False)
        elif linked.up in linked.relayed and link not in linked.relayed:
            # What the peer said over the other may be on its way: it is asked for again.
            relayed, linked.up = linked.up, link
            linked.since = time.monotonic()
            self._owner.link_down(key)
            self._owner.link_up(key, anew=True)
            linked.relayed.discard(relayed)
            relayed.close()
        elif len(linked.others) < MOST_LINKS - 1:
            linked.others.append(link)
        else:
            link.close()
