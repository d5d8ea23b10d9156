"""The plane of a peer: a node's, with what controls say aside, and a gate for collectives."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import Any, Protocol

from manta.mesh.peer.faulty import FaultyLinks
from manta.mesh.peer.rosters import MESH
from manta.mesh.views import Action, Views
from manta.mesh.words import VIEW_OVER
from manta.node.plane import envelope
from manta.node.plane.channels import Ask, Channel
from manta.node.plane.collectives import leaving
from manta.node.plane.plane import Plane
from manta.node.plane.requests import CallCollective
from manta.roster.waits import operation
from manta.transports.exchange.letters import Value

TWO_NUMBERS = frozenset({"all_reduce", "reduce_scatter"})
"""Collectives that may be made in two calls: of the arrays, and of the rest."""


class Owner(Protocol):
    """The control."""

    def heard(self, key: str, data: bytes) -> None:
        """Raises RemoteProtocolError."""

    def linked(self, key: str) -> None: ...

    def unlinked(self, key: str) -> None: ...


class PeerPlane(Plane):
    Links = FaultyLinks
    links: FaultyLinks
    owner: Owner
    gate: Gate

    def aside(self, key: str, data: bytes, *, is_loose: bool = False) -> bool:
        """False where there is no link. What is sent loosely may be lost."""
        send = self.links.send_loosely if is_loose else self.links.send
        return send(key, envelope.pack("", "", envelope.Aside(data)))

    def heard_aside(self, key: str, data: bytes) -> None:
        self.owner.heard(key, data)

    def link_up(self, key: str, *, anew: bool) -> None:
        super().link_up(key, anew=anew)
        self.owner.linked(key)

    def link_down(self, key: str) -> None:
        super().link_down(key)
        self.owner.unlinked(key)

    def lacking(self, *, waits: bool) -> set[str]:
        """The peers that are yet to hear or to get what is theirs. With `waits`, those count as
        well that have not come for it: to a call, or for a large value."""
        found: set[str] = set()
        for desk in self._desks.all:
            lacking = leaving.lacking(desk.calls, desk.peers, waits=waits)
            found.update(filter(desk.is_there, lacking))  # else it has left that view
        if (letters := self._swarms.get(MESH)) is not None:
            found |= letters.lacking()
            for peer, value in letters.sent():
                node = self.known.node(MESH, peer)
                if node is not None and self._lending.lacks(node.key, value.id, waits=waits):
                    found.add(peer)
        return found

    def say_farewell(self, lacking: Collection[str]) -> None:
        """To all others: who leaves in good order is not lost to calls that are over here."""
        for desk in self._desks.all:
            leaving.say_farewell(desk.calls, desk.peers, lacking)

    def give_up(self, swarm_id: str, peer: str, why: str) -> None:
        """In the collectives of a view."""
        if (desk := self._desks.desk(swarm_id)) is not None:
            desk.peer_lost(peer, why)

    def ask_again(self, ask: Ask) -> None:
        """One that the gate held."""
        self._ask(ask, ask.value, ask.refusal)

    def answer(self, ask: Ask, told: dict[str, Any], fds: list[int]) -> None:
        """One that the gate has let pass."""
        super()._send(ask, told, fds)

    def _ask(self, ask: Ask, value: Value | None, refusal: str = "") -> None:
        ask.value, ask.refusal = value, refusal
        if not isinstance(ask.body, CallCollective) or self.gate.admits(ask):
            super()._ask(ask, value, refusal)

    def _send(self, ask: Ask, told: dict[str, Any], fds: list[int]) -> None:
        if ask.channel.current is ask:
            self.gate.answered(ask, told, fds)

    def _close(self, channel: Channel) -> None:
        ask = channel.current
        super()._close(channel)
        if ask is not None:
            self.gate.abandoned(ask)


class Gate:
    """Keeps calls of the member here to their views: one at a time."""

    def __init__(
        self,
        plane: PeerPlane,
        views: Views,
        perform: Callable[[list[Action]], None],
        present: Callable[[], dict[str, Any]],
        swarm_of: Callable[[str], str],
        clock: Callable[[], float],
    ) -> None:
        """`present` is the view as your process is told of it."""
        self._plane = plane
        self._views = views
        self._perform = perform
        self._present = present
        self._swarm_of = swarm_of
        self._clock = clock
        self._pending: Ask | None = None
        self._inside: Ask | None = None
        self._held: tuple[Ask, dict[str, Any], list[int]] | None = None
        self._other_half: tuple[str, int] | None = None
        """The swarm and number of a call that belongs to the last one of a view that is over."""

    def admits(self, ask: Ask) -> bool:
        """Whether the call is to be carried out now; else it is asked again, or has failed."""
        number = _call(ask).number
        if (ask.at.swarm_id, number) == self._other_half:
            return True
        if self._is_over(ask):
            self._pending = None if self._pending is ask else self._pending
            ask.fail(VIEW_OVER, "The view of that call is over.")
            return False
        if self._inside is not None or self._pending not in (None, ask):
            ask.fail("RequestFailed", "Another thread is in a collective of this mesh.")
            return False
        goes, actions = self._views.call(number, self._clock())
        self._pending = None if goes else ask
        self._inside = ask if goes else None
        self._perform(actions)
        return goes

    def _is_over(self, ask: Ask) -> bool:
        """Is it a call of another view than the present one?"""
        return ask.at.swarm_id != self._swarm_of(self._views.view.token)

    def answered(self, ask: Ask, told: dict[str, Any], fds: list[int]) -> None:
        if ask is not self._inside:
            self._plane.answer(ask, told, fds)
            return
        call = _call(ask)
        if self._is_over(ask):  # it was the last one there
            told = {**told, "view": self._present()}
            halves = operation(call.words) in TWO_NUMBERS
            self._other_half = (ask.at.swarm_id, call.number + 1) if halves else None
        else:
            size = sum(part[1] for part in told.get("parts", ()))
            goes, actions = self._views.came(call.number, self._clock(), size)
            if not goes:
                self._held = ask, told, [os.dup(fd) for fd in fds]
                self._perform(actions)
                return
            self._perform(actions)
        self._inside = None
        self._plane.answer(ask, told, fds)

    def released(self) -> None:
        """Views hold nothing any more."""
        held, self._held = self._held, None
        if held is not None:
            ask, told, fds = held
            try:
                self.answered(ask, told, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        if self._pending is not None:
            self._plane.ask_again(self._pending)

    def abandoned(self, ask: Ask) -> None:
        if ask is self._pending:
            self._pending = None
            if ask.value is not None:
                self._plane.release(ask.value)
        elif ask is self._inside:
            self._inside = None
            if self._held is not None:
                for fd in self._held[2]:
                    os.close(fd)
                self._held = None
        else:
            return
        self._perform(self._views.abandoned(self._clock()))


def _call(ask: Ask) -> CallCollective:
    assert isinstance(ask.body, CallCollective), "only these come to the gate"
    return ask.body
