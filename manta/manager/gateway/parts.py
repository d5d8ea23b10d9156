"""The parts of the Gateway, as of what is stored."""

from __future__ import annotations

from manta.actors import Actor
from manta.manager.auth.principals import with_expiry
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
from manta.manager.gateway.part import Shared
from manta.manager.gateway.permits import Permits
from manta.manager.gateway.quotas import QuotaSettings
from manta.manager.gateway.recorder import Recorder
from manta.manager.gateway.registrar import Registrar
from manta.manager.gateway.strays import Strays
from manta.manager.gateway.users import Users
from manta.manager.gateway.watches import Watches
from manta.manager.store.actor import Writer
from manta.manager.store.records import (
    ClusterRecord,
    GrantRecord,
    KeyRecord,
    NodeRecord,
    RoleRecord,
    SwarmRecord,
    TokenRecord,
    UserRecord,
)


class Parts:
    def __init__(self, actor: Actor, context: Context) -> None:
        self.context = context
        reader = context.reader
        nodes = reader.all(NodeRecord)
        keys = with_expiry(reader.all(KeyRecord), reader.all(TokenRecord))
        context.principals.load(keys, nodes, reader.all(UserRecord))
        swarms = (record.info for record in reader.all(SwarmRecord))
        self.directory = Directory(
            reader.all(ClusterRecord),
            nodes,
            (SwarmEntry(info.swarm_id, info.name, info.cluster_id) for info in swarms),
        )
        context.revisions.clusters.changed(*self.directory.clusters)
        self.writer = Writer(actor, STORE)
        self.forwarder = Forwarder(actor, context)
        self.listeners = Listeners(actor, context)
        roles = context.access.roles = Roles(reader.all(GrantRecord), reader.all(RoleRecord))
        shared = Shared(
            actor, context, self.writer, self.forwarder, self.listeners, self.directory, roles
        )
        self.permits = Permits(shared)
        self.registrar = Registrar(shared)
        self.enrolment = Enrolment(shared, self.registrar)
        self.nodes = Nodes(shared)
        context.quotas.limits.know(roles, self.registrar.users)
        self.users = Users(shared, self.registrar)
        self.quotas = QuotaSettings(shared, self.registrar, self.users)
        self.clusters = Clusters(shared, self.registrar)
        self.modules = Modules(shared, self.registrar)
        self.overview = Overview(shared)
        self.strays = Strays(actor)
        self.watches = Watches(shared, self.permits, self.clusters, self.modules)
        self.recorder = Recorder(actor, context, self.forwarder, self.registrar.users)
