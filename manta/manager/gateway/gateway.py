"""The only actor that can be reached from outside.

The key that the handshake proved says who sent a message, on whichever port. It is looked up
for every message, so a withdrawn key takes effect at once. The table of routes then says
whether the sender may send the message, and who answers it.
"""

from __future__ import annotations

from typing import cast

from manta.actors import Actor, MailboxPolicy
from manta.manager.auth.principals import Principal
from manta.manager.auth.roles import Roles
from manta.manager.context import STORE, Context
from manta.manager.directory import Directory, SwarmEntry
from manta.manager.gateway.clusters import Clusters
from manta.manager.gateway.enrolment import Enrolment
from manta.manager.gateway.forwarder import Forwarder
from manta.manager.gateway.listeners import Listeners
from manta.manager.gateway.modules import Modules
from manta.manager.gateway.nodes import Nodes
from manta.manager.gateway.overview import Overview
from manta.manager.gateway.parts import Parts
from manta.manager.gateway.permits import Permits
from manta.manager.gateway.registrar import Registrar
from manta.manager.gateway.requests import Request
from manta.manager.gateway.routes import ROUTES
from manta.manager.gateway.users import Users
from manta.manager.gateway.watches import Watches
from manta.manager.messages import CutNodes, NodesLeft, SwarmCreated, SwarmRemoved
from manta.manager.store.actor import Writer
from manta.manager.store.records import (
    ClusterRecord,
    GrantRecord,
    KeyRecord,
    NodeRecord,
    RoleRecord,
    SwarmRecord,
    UserRecord,
)
from manta.protocol import node, user


class Gateway(Actor):
    accepts = node.FromNode | user.FromUser
    mailbox = MailboxPolicy(bound=50_000)

    def __init__(self, context: Context) -> None:
        self._context = context

    def on_start(self) -> None:
        self._writer = Writer(self, STORE)
        self._listeners = Listeners(self, self._context)
        self._parts = self._load()
        self._listeners.open()

    def _load(self) -> Parts:
        context, reader = self._context, self._context.reader
        nodes = reader.all(NodeRecord)
        context.principals.load(reader.all(KeyRecord), nodes, reader.all(UserRecord))
        directory = Directory(
            reader.all(ClusterRecord),
            nodes,
            (
                SwarmEntry(record.info.swarm_id, record.info.name, record.info.cluster_id)
                for record in reader.all(SwarmRecord)
            ),
        )
        context.revisions.clusters.changed(*directory.clusters)
        roles = Roles(reader.all(GrantRecord), reader.all(RoleRecord))
        writer, listeners, forwarder = self._writer, self._listeners, Forwarder(self)
        permits = Permits(context.principals, roles, directory)
        registrar = Registrar(self, context, writer, listeners)
        enrolment = Enrolment(self, context, directory, writer, registrar, listeners)
        clusters = Clusters(
            self, context, directory, roles, enrolment, writer, forwarder, listeners
        )
        modules = Modules(self, context, writer)
        return Parts(
            directory=directory,
            permits=permits,
            forwarder=forwarder,
            registrar=registrar,
            enrolment=enrolment,
            nodes=Nodes(self, context, directory, writer, forwarder),
            clusters=clusters,
            users=Users(self, context, writer, registrar, roles, directory, listeners),
            modules=modules,
            overview=Overview(self, context, forwarder),
            watches=Watches(self, context, permits, clusters, modules, forwarder),
        )

    def receive(self, message: object) -> object:
        parts = self._parts
        origin = self.origin
        if origin is not None:
            who = self._context.principals.of(origin.peer_key)
            answer = self._handle_request(cast("node.Message", message), who)
            if answer is not None:
                parts.forwarder.answer(self.defer(), answer)
            return None
        if any(part.handle(message) for part in (self._writer, parts.watches, self._listeners)):
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

    def _handle_request(self, message: node.Message, who: Principal) -> object:
        """Returns the answer, or None if it comes later. Raises Refused."""
        route, name = ROUTES[type(message)], type(message).__name__
        rule, permits = route.rule, self._parts.permits
        rule.check_kind(who, name)
        permits.check_platform(who, rule, name)
        seen = permits.seen_by(who)
        target = route.target(message, seen, who)
        request = Request(message, who, rule, target, seen, self.defer)
        permits.check_cluster(request)
        return route.handler(self._parts, request)
