"""Whom a peer knows, and what its plane is told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from manta.mesh.door import MOST_CARDS, Card
from manta.mesh.peer import rosters
from manta.mesh.peer.rosters import Known, id_of
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.rosters import RosterChanged
from manta.protocol.peers import Departure, Peer
from manta.roster.topologies import Topology
from manta.transports.addresses import split_address
from manta.transports.membership.messages import Alive

Told = PeersAnew | DirectoryChanged | RosterChanged
MOST_ADMITTED = 256
"""Peers that a door has let in, and that are not in the mesh yet."""
ADMITTED = 30.0
"""Seconds that they have for that."""


class KnownPeers:
    """This one among them."""

    def __init__(self, own: Card, topology: Topology, may_dial: Callable[[str], bool]) -> None:
        """`may_dial` says whether a link may go to a host."""
        self.me = id_of(own.key)
        self.own = own
        self._topology = topology
        self._may_dial = may_dial
        self.peers = {self.me: Peer(self.me, own.name, own.key, own.addresses)}
        """All that were ever members, for as long as membership remembers them, and those that
        are let in."""
        self.lost: dict[str, str] = {}
        """Those of them that are dead, or have left, and why."""
        self._left: set[str] = set()
        self.admitted: dict[str, float] = {}
        """Those that were let in and are no members yet, and until when."""
        self._let_in: set[str] = set()
        """Those of them that came to the door here."""
        self._members: tuple[str, ...] = (self.me,)
        """Of the view, by whose ranks a topology says who may talk to whom."""
        self._tell: Callable[[Told], None]

    def begin(self, tell: Callable[[Told], None]) -> None:
        """`tell` tells the plane, now and later."""
        self._tell = tell
        own = tuple(self.peers.values())
        found = (rosters.introduced(own, one, began=True) for one in (rosters.LINKS, rosters.MESH))
        tell(PeersAnew(tuple(found), (self._letters(),)))

    # --- who comes --------------------------------------------------------------------------

    def let_in(self, card: Card, now: float) -> None:
        """Who has come to the door here."""
        self.admit(card, now)
        if (id_ := id_of(card.key)) in self.admitted:
            self._let_in.add(id_)

    def admit(self, card: Card, now: float) -> None:
        """Lets a peer in that a door has admitted, or that is there already."""
        id_ = id_of(card.key)
        if id_ == self.me:
            return
        is_member = id_ in self.peers and id_ not in self.admitted
        if not is_member and (id_ in self.admitted or len(self.admitted) < MOST_ADMITTED):
            self.admitted[id_] = now + ADMITTED
            self._know(self._peer(card))

    def has_let_in(self, id_: str) -> bool:
        """Whether one that has just become a member came to the door here; true once."""
        was_let_in = id_ in self._let_in
        self._let_in.discard(id_)
        return was_let_in

    def arrived(self, alive: Alive) -> None:
        """A member: it is new, or back, or has other addresses."""
        id_ = id_of(alive.key)
        self.admitted.pop(id_, None)
        self.lost.pop(id_, None)
        self._left.discard(id_)
        self._know(self._peer(alive))

    def moved(self, addresses: tuple[str, ...]) -> None:
        """This machine has other addresses now."""
        self.own = self.own.at(addresses)
        self.peers[self.me] = self._peer(self.own)

    def _peer(self, told: Alive | Card) -> Peer:
        where = [one for one in told.addresses if self._may_dial(split_address(one)[0])]
        return Peer(id_of(told.key), told.name, told.key, tuple(where))

    def _know(self, peer: Peer) -> None:
        self.peers[peer.node_id] = peer
        self._tell(rosters.introduced((peer,), rosters.LINKS))
        if peer.node_id not in self.admitted:
            self._tell(rosters.introduced((peer,)))
            self._tell(self._letters())

    # --- who goes ---------------------------------------------------------------------------

    def gone(self, alive: Alive, sentence: str, *, has_left: bool = False) -> None:
        id_ = id_of(alive.key)
        self.lost[id_] = sentence
        if has_left:
            self._left.add(id_)
        self._tell(self._letters())
        self._tell(rosters.departed(self.peers[id_], rosters.MESH, Departure.LOST, sentence))

    def forget_left(self, *views: Iterable[str]) -> None:
        """Those that have left and are in none of these views."""
        for one in self._left.difference(*views):
            self._left.discard(one)
            self.lost.pop(one, None)
            self._revoke(one)

    def tick(self, now: float) -> None:
        """Forgets those that were let in and did not come."""
        for id_ in [one for one, until in self.admitted.items() if until <= now]:
            del self.admitted[id_]
            self._let_in.discard(id_)
            self._revoke(id_)

    def _revoke(self, id_: str) -> None:
        """Its key is nobody's any more."""
        peer = self.peers.pop(id_)
        self._tell(rosters.departed(peer, rosters.LINKS, Departure.REVOKED, ""))

    # --- letters ----------------------------------------------------------------------------

    def meet(self, members: tuple[str, ...]) -> None:
        """A view begins, of these."""
        self._members = members
        self._tell(self._letters())

    def _letters(self) -> RosterChanged:
        known = (
            Known(peer, "" if id_ in self._left else self.lost.get(id_, ""), id_ in self._left)
            for id_, peer in self.peers.items()
            if id_ not in self.admitted
        )
        return rosters.letters(known, self._edges())

    def _edges(self) -> list[tuple[str, str]] | None:
        if self._topology.name == "full":
            return None
        members = self._members
        return [(members[a], members[b]) for a, b in self._topology.links(len(members))]

    # --- whom others ask for ----------------------------------------------------------------

    def alias(self, id_: str) -> str | None:
        peer = self.peers.get(id_)
        return None if peer is None else peer.alias

    def find(self, name: str) -> list[str]:
        """The ids of all that have this id or name, dead ones too."""
        if name in self.peers:
            return [name]
        return [id_ for id_, peer in self.peers.items() if peer.alias == name]

    def cards(self, alive: Iterable[str]) -> list[Card]:
        """Of those, this peer first."""
        peers = [self.peers[one] for one in alive if one != self.me]
        others = [Card(one.key, one.alias, one.addresses) for one in peers]
        return [self.own, *others[: MOST_CARDS - 1]]
