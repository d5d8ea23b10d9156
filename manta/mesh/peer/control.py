"""What a manager is to a node, in the peer's own process: it owns the machines and tells the plane.

All of it runs on the plane's I/O thread. Membership says who is alive, views say who takes part in
collectives, and `rosters` makes of both what a plane is told.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from manta.mesh import said
from manta.mesh.door import Card
from manta.mesh.peer import rosters, status
from manta.mesh.peer.known import KnownPeers
from manta.mesh.peer.locking import Answer, Fail, LockDesk, Waiter
from manta.mesh.peer.plane import Gate, PeerPlane
from manta.mesh.peer.rosters import id_of
from manta.mesh.views import (
    Action,
    Enter,
    GiveUp,
    Prepare,
    Release,
    Tell,
    View,
    Views,
)
from manta.node.peers.directory import DirectoryOver
from manta.protocol.base import Instance
from manta.protocol.peers import Departure, LinksTold
from manta.roster.topologies import Topology
from manta.transports.errors import RemoteProtocolError
from manta.transports.membership import actions as swim
from manta.transports.membership.membership import Membership
from manta.transports.membership.messages import Alive, Gossip, announcement, decode, encode
from manta.transports.membership.view import View as Ranked

MEMBERSHIP, CONTROL = b"m", b"c"
"""How messages begin, by whom they are for."""

log = logging.getLogger("manta.mesh")


class Control:
    """Implements `plane.Owner`, and `node.plane.daemon.Daemon`. `tell` is called with each event,
    `entered` once, when this peer is in the mesh."""

    def __init__(
        self,
        own: Card,
        topology: Topology,
        tell: Callable[[dict[str, Any]], None],
        entered: Callable[[], None],
        broken: Callable[[str], None],
        may_dial: Callable[[str], bool],
    ) -> None:
        """`broken` is called where your process has broken the protocol; `may_dial` says whether a
        link may go to a host."""
        self.known = KnownPeers(own, topology, may_dial)
        self.me = self.known.me
        self._topology = topology
        self._tell = status.Happened(tell)
        self._entered = entered
        self._broken = broken
        self._linked: set[str] = set()
        self._alive: tuple[str, ...] = (self.me,)
        """In the order of membership's view."""
        self.views = Views(self.me, self._ordered)
        self._to_do: deque[Action] = deque()
        self._is_doing = False
        self._lost_in_view: dict[str, str] = {}
        self.locks = LockDesk(self.me, self.views.view, self, self._set_timer)
        self._entered_view = self.views.view
        self._prepared: View | None = None
        """The next one, once it was committed."""
        self._former: View | None = None
        """The one before: others may be in its last call yet."""
        self._waiters: list[Waiter] = []
        self._links: LinksTold = ()
        self._timer: tuple[float, Any] | None = None
        self._is_paused = False
        self._membership: Membership | None = None
        self.plane: PeerPlane
        self.gate: Gate

    def begin(self, plane: PeerPlane, io: Any) -> None:
        self.plane, self._io = plane, io
        plane.owner = self
        self.gate = plane.gate = Gate(
            plane, self.views, self._perform, self.present, rosters.swarm_of, time.monotonic
        )
        self.known.begin(plane.told)
        plane.begin(rosters.speaker(self.me))
        self._prepare(self.views.view)

    def join(self, cards: Iterable[Card]) -> None:
        """By who is there, as a door told; the first in the mesh where nobody is."""
        own = self.known.own
        session, now = random.SystemRandom().getrandbits(32), time.monotonic()
        me = announcement(own.key, session, own.name, own.addresses)
        cards = [one for one in cards if one.key != own.key]
        joins = bool(cards)
        self._membership = Membership(me, random.Random(), joins=joins, now=now)
        for card in cards:
            self.admit(card)
        self._swim(swim.Tick())

    def let_in(self, card: Card) -> list[Card]:
        """Who has come to the door here; returns whom it is to be told of."""
        self.known.let_in(card, time.monotonic())
        self._set_timer()
        return self.known.cards(self._alive)

    def admit(self, card: Card) -> None:
        """Lets a peer in that a door has admitted, or that is there already."""
        self.known.admit(card, time.monotonic())
        self._set_timer()

    def moved(self, addresses: tuple[str, ...]) -> None:
        """This machine has other addresses now."""
        self.known.moved(addresses)
        self._swim(swim.Moved(addresses))

    def pause(self) -> None:
        """Your process stands still: so does all that this peer does for the mesh, which is told.
        To the others it is dead."""
        self._swim(swim.Pause())
        self._is_paused = True

    def resume(self) -> None:
        """It runs again, and is back in the mesh as after a partition."""
        self._is_paused = False
        self._swim(swim.Resume())
        for id_ in tuple(self._linked):
            self._swim(swim.LinkUp(self.known.peers[id_].key))
        self._look_at_views()
        self._tick()

    def alive(self) -> dict[str, str]:
        """The names of all others that are, by their ids."""
        return {one: self.known.peers[one].alias for one in self._alive if one != self.me}

    def leave(self) -> None:
        """Tells all others."""
        if self._membership is not None:
            self._swim(swim.Leave())

    # --- requests of your process ---------------------------------------------------------------

    def present(self) -> dict[str, Any]:
        """The view that holds now."""
        view = self.views.view
        members = [[one, self.known.peers[one].alias] for one in view.members]
        rank = view.members.index(self.me)
        near = list(self._topology.neighbors(rank, len(members)))
        return {"token": view.token, "rank": rank, "members": members, "neighbors": near}

    def wait(
        self,
        size: int,
        timeout: float,
        answer: Answer,
        fail: Fail,
    ) -> None:
        if len(self.views.view.members) >= size:
            answer(self.present())
            return
        self._waiters.append(Waiter(answer, fail, size, timeout, time.monotonic() + timeout))
        self._perform(self.views.waits(True, time.monotonic()))

    def alias(self, id_: str) -> str | None:
        return self.known.alias(id_)

    def say_to(self, id_: str, message: said.Said) -> None:
        if (peer := self.known.peers.get(id_)) is not None:
            self.plane.aside(peer.key, CONTROL + said.pack(message))

    def connect(self, token: str, fd: int) -> None:
        """A connection of your process: for letters, or for the collectives of a view."""
        at = rosters.speaker(self.me)
        if token:
            found = [one for one in (self.views.view, self._former) if one and one.token == token]
            view = found[0] if found else self.views.view
            at = rosters.member(view, self.me)
            if not found:  # it is told so when it asks
                at = Instance(rosters.swarm_of(token), at.alias, at.index, 0)
        self.plane.attach(at, fd)

    def status(self) -> dict[str, Any]:
        """Who is there, as this peer sees it, its links, and an experiment's faults."""
        return {
            "id": self.me,
            "view": self.present(),
            "topology": self._topology.form,
            "faults": self.plane.links.faults,
            "peers": list(status.peers(self.known.peers, self._links, self._state)),
            "events": list(self._tell.last),
        }

    def _state(self, id_: str) -> str:
        if id_ == self.me:
            return "self"
        if id_ in self.known.admitted:
            return "joining"
        known = self._membership and self._membership.peer(self.known.peers[id_].key)
        return known[1].value if known else "gone"

    # --- what the plane says (plane.Owner and Daemon) -------------------------------------------

    def heard(self, key: str, data: bytes) -> None:
        """Raises RemoteProtocolError."""
        if self._membership is None or self._is_paused:
            return
        kind, body = data[:1], data[1:]
        if kind == MEMBERSHIP:
            self._swim(swim.Received(key, decode(body)))
        elif kind == CONTROL:
            message = said.unpack(body)
            if (id_ := id_of(key)) not in self._alive:
                return
            if isinstance(message, said.Proposals):
                self._perform(self.views.heard(id_, message, time.monotonic()))
            elif isinstance(message, said.Word):
                self._tell.pass_on({"event": "word", "id": id_, **msgspec.structs.asdict(message)})
            else:
                self.locks.heard(id_, message)
        else:
            raise RemoteProtocolError("what a peer of the mesh says is malformed")

    def linked(self, key: str) -> None:
        self._linked.add(id_of(key))
        self._swim(swim.LinkUp(key))
        self._look_at_views()

    def unlinked(self, key: str) -> None:
        self._linked.discard(id_of(key))
        self._swim(swim.LinkClosed(key))
        self._look_at_views()

    def want_roster(self, swarm_id: str, wanted: bool) -> None:
        """It is told all there are."""

    def settle(self, at: Instance) -> None:
        self.plane.settled(at)

    def broke(self, at: Instance, why: str) -> None:
        self._broken(why)

    def lost(self, at: Instance, how: str) -> None:
        self._broken(how)

    def stopped(self, at: Instance, size: int, why: str) -> None:
        """Nothing is: a mesh has no owner who limits what leaves."""

    def summed(self, at: Instance, size: int) -> None:
        """As `stopped`."""

    def links_changed(self, links: LinksTold) -> None:
        self._links = links

    # --- membership -----------------------------------------------------------------------------

    def _swim(self, event: swim.Event) -> None:
        if self._membership is None:
            return
        for action in self._membership.handle(event, time.monotonic()):
            self._do(action)
        self._set_timer()

    def _do(self, action: swim.Action) -> None:
        match action:
            case swim.Send(key, _, message):
                self.plane.aside(key, MEMBERSHIP + encode(message), is_loose=True)
            case swim.Cut(key, sentence):
                self.plane.links.end(key, sentence)
            case swim.Entered(view):
                for peer in view.peers:
                    if peer.key != self.known.own.key:
                        self.known.arrived(peer)
                self._is_alive(view)
                self._entered()
            case swim.Refusal(key, sentence):
                log.warning("%s does not take this peer in: %s", id_of(key), sentence)
            case swim.Joined(peer) | swim.AddressChanged(peer):
                self._announce(peer)
                self.known.arrived(peer)
                self._say("joined" if isinstance(action, swim.Joined) else "moved", peer)
            case swim.Suspected(peer):
                self._say("suspected", peer)
            case swim.AliveAgain(peer, was_dead):
                self.known.arrived(peer)
                self._say("back" if was_dead else "alive", peer)
            case swim.LeftMesh(peer):
                self.known.gone(peer, "it has left the mesh", has_left=True)
                self._say("left", peer)
            case swim.Died(peer, sentence):
                self.known.gone(peer, sentence)
                self._say("died", peer, sentence)
            case swim.ViewChanged(view):
                self._is_alive(view)

    def _is_alive(self, view: Ranked) -> None:
        self._alive = tuple(id_of(one.key) for one in view.peers)
        self._look_at_views()

    def _announce(self, alive: Alive) -> None:
        """Whom this peer has let in, all others are told of at once, as they refuse links with
        those of whom they have not heard."""
        if self.known.has_let_in(id_ := id_of(alive.key)):
            news = MEMBERSHIP + encode(Gossip((alive,)))
            for other in self._linked - {id_}:
                self.plane.aside(self.known.peers[other].key, news)

    def _say(self, what: str, peer: Alive, why: str = "") -> None:
        event = {"event": what, "id": id_of(peer.key), "name": peer.name, "why": why}
        self._tell({**event, "time": time.time()})

    # --- views ----------------------------------------------------------------------------------

    def _ordered(self, ids: Iterable[str]) -> list[str]:
        wanted = set(ids)
        return [one for one in self._alive if one in wanted]

    def _look_at_views(self) -> None:
        if self._is_paused:
            return
        self._perform(self.views.know(self._alive, self._linked, time.monotonic()))

    def _perform(self, actions: Iterable[Action]) -> None:
        """In the order in which views said them, also where one leads to others."""
        self._to_do.extend(actions)
        if self._is_doing:
            return
        self._is_doing = True
        try:
            while self._to_do:
                self._do_next(self._to_do.popleft())
        finally:
            self._is_doing = False
        self._set_timer()

    def _do_next(self, action: Action) -> None:
        match action:
            case Tell(id_, message):
                self.say_to(id_, message)
            case Prepare(view):
                if self._prepared is not None:
                    self._end(self._prepared)
                self._prepared = view
                self._prepare(view)
                self.locks.committed(view)
            case GiveUp(view, members):
                self._give_up(view, members)
            case Enter(view):
                self._enter(view)
            case Release():
                self.gate.released()

    def _prepare(self, view: View) -> None:
        plane = self.plane
        plane.told(rosters.directory(view, self.known.peers))
        plane.told(rosters.collectives(view, self.known.peers, {}))
        plane.begin(rosters.member(view, self.me))

    def _give_up(self, view: View, members: Iterable[str]) -> None:
        swarm_id = rosters.swarm_of(view.token)
        for one in members:
            why = self.known.lost.get(one) or "it is in another view of the mesh"
            peer = self.known.peers[one]
            self._lost_in_view[one] = why
            self.plane.give_up(swarm_id, one, why)
            self.plane.told(rosters.departed(peer, swarm_id, Departure.LOST, why))
        self.plane.told(rosters.collectives(view, self.known.peers, self._lost_in_view))

    def _enter(self, view: View) -> None:
        if self._former is not None:
            self._forget(self._former)
        self._former, self._prepared = self._entered_view, None
        self._entered_view = view
        self._lost_in_view = {}
        self.plane.links.meets(len(view.members))
        self.known.meet(view.members)
        self._tell({"event": "view", "time": time.time(), "view": self.present()})
        size = len(view.members)
        for waiter in [one for one in self._waiters if one.size <= size]:
            self._waiters.remove(waiter)
            waiter.answer(self.present())
        self._perform(self.views.waits(bool(self._waiters), time.monotonic()))

    def _end(self, view: View) -> None:
        at = rosters.member(view, self.me)
        self.plane.end(at, counts=False, is_gone=False)
        self.plane.told(DirectoryOver(at.swarm_id))

    def _forget(self, view: View) -> None:
        self._end(view)
        self.known.forget_left(self.views.view.members, self._entered_view.members)

    # --- time -----------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        times = [
            self.views.due,
            *(one.until for one in self._waiters),
            self.locks.due,
            *self.known.admitted.values(),
        ]
        if self._membership is not None:
            times.append(self._membership.due)
        due = min((one for one in times if one is not None), default=None)
        if due is None or (self._timer is not None and self._timer[0] <= due):
            return
        if self._timer is not None:
            self._timer[1].cancel()
        pause = max(0.0, due - time.monotonic())
        self._timer = due, self._io.call_later(pause, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._is_paused:
            return
        now = time.monotonic()
        if self._membership is not None and (self._membership.due or now + 1) <= now:
            self._swim(swim.Tick())
        self._perform(self.views.tick(now))
        for waiter in [one for one in self._waiters if one.until <= now]:
            self._waiters.remove(waiter)
            waiter.fail("Timeout", self._in_vain(waiter))
        self._perform(self.views.waits(bool(self._waiters), now))
        self.locks.tick()
        self.known.tick(now)
        self._set_timer()

    def _in_vain(self, waiter: Waiter) -> str:
        names = {id_: peer.alias for id_, peer in self.known.peers.items()}
        view = [names[one] for one in self.views.view.members]
        unlinked = [names[one] for one in self._alive if one not in {self.me, *self._linked}]
        why = status.in_vain(view, self._alive, waiter.size, unlinked)
        return f"Waited {waiter.timeout:g} s in vain for {waiter.size} peers: {why}."
