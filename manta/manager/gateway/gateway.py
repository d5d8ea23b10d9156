"""The only actor that can be reached from outside.

The key that the handshake proved says who sent a message, on whichever port. It is looked up
for every message, so a withdrawn key takes effect at once. The table of routes then says
whether the sender may send the message, and who answers it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from manta.actors import Actor, ExitKind, ExitReason, MailboxPolicy, Refused, Reply
from manta.manager.auth.principals import Principal
from manta.manager.context import Context
from manta.manager.gateway.part import Request
from manta.manager.gateway.parts import Parts
from manta.manager.gateway.recorder import Noted
from manta.manager.gateway.routes import NODES, ROUTES, Route
from manta.manager.gateway.strays import is_stray
from manta.manager.messages import CutNodes, NodesLeft, SwarmCreated, SwarmRemoved
from manta.protocol import node, user


class _Handler(Protocol):
    def handle(self, message: object) -> bool:
        """Whether the message was for this part."""


class Gateway(Actor):
    accepts = node.FromNode | user.FromUser
    mailbox = MailboxPolicy(bound=50_000)

    def __init__(self, context: Context) -> None:
        self._context = context

    def on_start(self) -> None:
        self._parts = Parts(self, self._context)
        parts, registrar = self._parts, self._parts.registrar
        self._handlers: tuple[_Handler, ...] = (
            parts.writer, parts.watches, parts.listeners, registrar, registrar.passwords,
            parts.recorder, parts.strays,
        )  # fmt: skip
        self._part_of: dict[type, _Handler] = {}
        """Which of these handled a message of this type before."""
        parts.listeners.open()

    def on_stop(self, reason: ExitReason) -> None:
        if reason.kind is not ExitKind.CRASHED:  # else what it counted may be what was wrong
            self._parts.recorder.end()

    def receive(self, message: object) -> object:
        parts = self._parts
        origin = self.origin
        if origin is not None:
            who = self._context.principals.of(origin.peer_key)
            self._handle_request(cast("node.Message", message), who)
            return None
        kind = type(message)
        part = self._part_of.get(kind)
        if part is not None and part.handle(message):
            return None
        for part in self._handlers:
            if part.handle(message):
                self._part_of[kind] = part
                return None
        match message:
            case CutNodes(node_ids):
                parts.nodes.cut(node_ids)
            case NodesLeft(node_ids):
                parts.nodes.left(node_ids)
            case SwarmCreated(entry):
                parts.directory.swarms[entry.id] = entry
            case SwarmRemoved(swarm_id):
                parts.directory.swarms.pop(swarm_id, None)
            case _:
                return super().receive(message)
        return None

    def _handle_request(self, message: node.Message, who: Principal) -> None:
        """Answers it, unless the answer comes later. Raises Refused."""
        route, parts = ROUTES[type(message)], self._parts
        link = self.origin.link if self.origin is not None else None
        noted = parts.recorder.note(message, route.rule.kinds, who, link)
        defer = parts.recorder.waits_for(noted)
        try:
            answer = self._answer(route, message, who, noted, defer)
        except Refused as refusal:
            if noted is not None:
                parts.recorder.refused(noted, refusal)
            if not is_stray(who, refusal):
                raise
            parts.strays.refuse(who, link, defer(), refusal)
            return
        if answer is not None:
            parts.forwarder.answer(defer(), answer)

    def _answer(
        self,
        route: Route[Any, Any],
        message: node.Message,
        who: Principal,
        noted: Noted | None,
        defer: Callable[[], Reply],
    ) -> object:
        """Returns None if the answer comes later. Raises Refused."""
        rule, permits, name = route.rule, self._parts.permits, type(message).__name__
        rule.check_kind(who, name)
        permits.check_platform(who, rule, name)
        seen = permits.seen_by(who)
        target = route.target(message, seen, who)
        if noted is not None:
            noted.target = target
        link = self.origin.link if self.origin is not None else None
        request = Request(message, who, rule, target, seen, defer, link)
        permits.check_cluster(request)
        if rule is NODES and not isinstance(message, node.Register):
            self._parts.nodes.check_link(who)
        return route.handler(self._parts, request)
