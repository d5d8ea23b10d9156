"""What this node's attempts of one swarm exchange, from their requests to links and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from manta.node.peers.known import KnownPeers
from manta.node.plane.requests import (
    FindNode,
    HearBroadcast,
    PlaneRequest,
    ReceiveLetter,
    ReturnLetters,
    SayToAll,
    SendLetter,
)
from manta.node.plane.view import RosterView
from manta.protocol.base import Instance
from manta.protocol.roster import Roster
from manta.transports.exchange import messages
from manta.transports.exchange.broadcasts import TooMuchSaid
from manta.transports.exchange.channels import Member
from manta.transports.exchange.group import Group
from manta.transports.exchange.letters import Attempt, Value

MOST_EARLY = 10_000
"""Requests that wait for the roster."""


class Ask(Protocol):
    """A request of an attempt, to be answered once."""

    at: Instance
    body: PlaneRequest
    value: Value | None
    """Of a request that brings one."""

    def tell(self, plain: str | None) -> None: ...

    def answer(self, value: Value | None) -> None: ...

    def fail(self, kind: str, sentence: str) -> None: ...


class Outside(Protocol):
    """What a swarm's exchange has its plane do."""

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None: ...

    def release(self, value: Value) -> None: ...

    def arrived(self, swarm_id: str, value: Value) -> None: ...

    def is_up(self, swarm_id: str, peer: str) -> bool: ...


class SwarmExchange:
    """Implements `exchange.letters.Shell`."""

    def __init__(self, swarm_id: str, me: str, known: KnownPeers, outside: Outside) -> None:
        self._swarm_id = swarm_id
        self._me = me
        self._known = known
        self._outside = outside
        self._group: Group | None = None
        self._view: RosterView | None = None
        self._live: dict[Instance, None] = {}
        self._early: list[Ask] = []
        """What waits for a roster that says to whom its attempt may talk."""

    # --- attempts and what they ask ---------------------------------------------------------

    def begin(self, at: Instance) -> None:
        self._live[at] = None
        if self._group is not None:
            self._group.begin(_attempt(at))

    def end(self, at: Instance, *, counts: bool) -> None:
        self._live.pop(at, None)
        self._drop(lambda ask: ask.at == at)
        if self._group is not None:
            self._group.end(_attempt(at), counts=counts)

    def ask(self, ask: Ask, now: float) -> None:
        group, view, at = self._group, self._view, _attempt(ask.at)
        if group is not None and view is not None and view.knows(at):
            self._carry_out(group, ask, now)
        elif len(self._early) >= MOST_EARLY:
            ask.fail("ResourceExhaustionError", "Too many requests wait for the swarm's roster.")
        else:
            self._early.append(ask)

    def _drop(self, which: Callable[[Ask], bool]) -> None:
        """Ends what waits for the roster."""
        dropped = [ask for ask in self._early if which(ask)]
        self._early = [ask for ask in self._early if ask not in dropped]
        for ask in dropped:
            _refuse(ask)

    def _carry_out(self, group: Group, ask: Ask, now: float) -> None:
        at = _attempt(ask.at)
        if not group.is_live(at):
            _refuse(ask)
            return
        match ask.body:
            case FindNode(name=name):
                ask.tell(self._known.named(self._swarm_id, name))
            case SendLetter(to=to, tag=tag, timeout=timeout):
                assert ask.value is not None
                group.send(ask, at, to, tag, ask.value, timeout, now)
            case ReceiveLetter(source=source, tag=tag, number=number, timeout=timeout):
                group.receive(ask, at, source, tag, number, timeout, now)
            case ReturnLetters(source=source, tag=tag, received=received):
                group.give_back(at, source, tag, received)
                ask.answer(None)
            case SayToAll(tag=tag):
                assert ask.value is not None
                try:
                    group.broadcast(at, tag, ask.value)
                except TooMuchSaid as error:
                    ask.fail("ResourceExhaustionError", str(error))
                else:
                    ask.answer(None)
            case HearBroadcast(tag=tag, timeout=timeout):
                group.get_broadcast(ask, at, tag, timeout, now)

    def abandon(self, ask: Ask) -> None:
        if ask in self._early:
            self._early.remove(ask)
        elif self._group is not None:
            self._group.abandon(ask)

    def close(self) -> None:
        """The swarm, or its timeline, is over here: nothing of it is kept."""
        self._drop(lambda _: True)
        for at in list(self._live):
            self.end(at, counts=False)
        if self._group is not None:
            self._group.close()

    # --- what the node is told --------------------------------------------------------------

    def roster_changed(self, roster: Roster, now: float) -> None:
        view = self._view = RosterView(self._swarm_id, self._me, roster, self._known)
        if self._group is not None:
            self._group.roster_changed(view)
        else:
            group = self._group = Group(self._me, self, view)
            for at in self._live:
                group.begin(_attempt(at))
            for peer in view.peers():
                if self._outside.is_up(self._swarm_id, peer):
                    group.link_up(peer, wants=True)  # what it said before was not heard
        early, self._early = self._early, []
        for ask in early:
            self.ask(ask, now)

    def peers_removed(self, peers: Iterable[str]) -> None:
        if self._group is not None:
            for peer in peers:
                self._group.letters.peer_removed(peer)

    def link_up(self, peer: str, *, wants: bool) -> None:
        if self._group is not None:
            self._group.link_up(peer, wants=wants)

    def link_down(self, peer: str) -> None:
        if self._group is not None:
            self._group.link_down(peer)

    def handle(self, peer: str, message: messages.Message) -> None:
        """Raises RemoteProtocolError."""
        if self._group is not None:
            self._group.handle(peer, message)
        elif isinstance(message, messages.Flush):  # nothing was said here
            self.tell(peer, messages.Flushed(message.number))

    # --- time -------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        return None if self._group is None else self._group.due

    def tick(self, now: float) -> None:
        if self._group is not None:
            self._group.tick(now)

    # --- Shell ------------------------------------------------------------------------------

    def tell(self, peer: str, message: messages.Message) -> None:
        self._outside.tell(self._swarm_id, peer, message)

    def release(self, value: Value) -> None:
        self._outside.release(value)

    def arrived(self, value: Value) -> None:
        self._outside.arrived(self._swarm_id, value)


def _refuse(ask: Ask) -> None:
    at = _attempt(ask.at)
    ask.fail("SwarmStopped", f"{at.member} was ended: it waits for nothing any more.")


def _attempt(at: Instance) -> Attempt:
    return Attempt(at.iteration, Member(at.alias, at.index), at.attempt)
