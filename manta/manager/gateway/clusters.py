"""Creates, changes and deletes clusters, and removes nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from manta.actors import Refused
from manta.manager.auth.principals import Kind, Principal
from manta.manager.auth.rights import Right
from manta.manager.auth.roles import OWNER
from manta.manager.context import BLOBS
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.gateway.registrar import Registrar
from manta.manager.ids import new_id
from manta.manager.messages import ClusterChanged, NodeRemoved, Sweep
from manta.manager.quotas.table import Quota
from manta.manager.store.change import Change
from manta.manager.store.interface import Delete, Put, RemoveSwarm, Write
from manta.manager.store.records import (
    ClusterRecord,
    KeyKind,
    KeyRecord,
    NodeRecord,
    RemovedSwarmRecord,
)
from manta.protocol import clusters, pages
from manta.protocol.clusters import ClusterInfo
from manta.protocol.codes import Code
from manta.protocol.node import Ok
from manta.protocol.states import ClusterState


class Clusters(Part):
    """Each change is answered once it is stored and in effect."""

    def __init__(self, shared: Shared, registrar: Registrar) -> None:
        super().__init__(shared)
        self._registrar = registrar

    def info(self, record: ClusterRecord) -> ClusterInfo:
        return _info(record, len(self._directory.nodes_of(record.id)))

    def page(self, records: Iterable[ClusterRecord], after: str) -> clusters.Clusters:
        """A page of these clusters."""
        counts = Counter(node.cluster_id for node in self._directory.nodes.values())
        infos = (_info(record, counts[record.id]) for record in records)
        return clusters.Clusters(*pages.after(infos, lambda one: one.id, after, pages.encoded))

    def shown(self, cluster_id: str, who: Principal) -> ClusterInfo | None:
        """None if there is no such cluster, or the user may not read it."""
        record = self._directory.clusters.get(cluster_id)
        shows = record is not None and Right.CLUSTER_READ in self._roles.rights(who, cluster_id)
        return self.info(record) if record is not None and shows else None

    def create(self, request: Request[clusters.CreateCluster, None]) -> None:
        name, who, reply = request.message.name, request.who, request.defer()
        request.seen.check_cluster_name(name)
        record = ClusterRecord(new_id(), name, who.id, self._actor.clock.wall())
        change = Change(self._writer, "The cluster was not created")
        change.on_refusal(self._context.quotas.admit(record.id, who.id, record.id, Quota.CLUSTERS))
        change.put(self._directory.clusters, record)
        self._roles.grant(change, who.id, record.id, OWNER)

        def stored() -> None:
            self._actor.log.info("cluster %s (%s) created", name, record.id)
            self._context.cluster(record.id)  # it is at rest
            self._context.revisions.clusters.changed(record.id)
            reply.set(self.info(record))

        change.commit(reply, stored)

    def change(
        self,
        request: Request[clusters.StartCluster | clusters.StopCluster, ClusterRecord],
        status: ClusterState,
    ) -> None:
        record, reply = request.target, request.defer()
        changed = msgspec.structs.replace(record, status=status)
        change = Change(self._writer, "The cluster was not changed")
        change.put(self._directory.clusters, changed)
        commit = change.commit if status == ClusterState.RUNNING else change.commit_lasting

        def stored() -> None:
            self._context.revisions.clusters.changed(record.id)
            effect = ClusterChanged(changed)
            self._forwarder.ask_cluster(record.id, effect, reply, lambda _: self.info(changed))

        commit(reply, stored)

    def delete(self, request: Request[clusters.DeleteCluster, ClusterRecord]) -> None:
        """Its view shows each swarm whose start was answered. Raises Refused."""
        record, reply = request.target, request.defer()
        if active := self._context.cluster(record.id).active_swarms:
            raise _still_runs(record, active)
        nodes = self._directory.nodes_of(record.id)
        swarms = [s for s in self._directory.swarms.values() if s.cluster_id == record.id]
        change = Change(self._writer, "The cluster was not deleted")
        change.delete(self._directory.clusters, record)
        self._context.quotas.limits.forget(change, "cluster", record.id)
        for one in nodes:
            change.write(*self._removal(one))
        for token in self._registrar.node_tokens(record.id):
            change.delete(self._registrar.tokens, token)
        change.write(*(RemoveSwarm(swarm.id) for swarm in swarms))
        removals = self._context.reader.all(RemovedSwarmRecord)
        ids = [one.id for one in removals if one.cluster_id == record.id]
        change.write(*(Delete(RemovedSwarmRecord, id_) for id_ in ids))
        for place in [place for place in self._roles.grants if place[1] == record.id]:
            self._roles.revoke(change, *place)

        def stored() -> None:
            for one in nodes:
                self._disown(one)
            for swarm in swarms:
                self._directory.swarms.pop(swarm.id, None)
            self._context.clusters.pop(record.id, None)
            self._context.revisions.clusters.forget(record.id)
            self._context.revisions.nodes.forget(*(one.id for one in nodes))
            self._context.revisions.swarms.forget(*(swarm.id for swarm in swarms))
            self._actor.log.info("cluster %s (%s) deleted", record.name, record.id)
            self._actor.notify(BLOBS, Sweep())
            self._forwarder.end_cluster(record.id, lambda: reply.set(Ok()))

        change.commit_lasting(reply, stored)

    def remove_node(self, request: Request[clusters.RemoveNode, NodeRecord]) -> None:
        record, reply = request.target, request.defer()
        change = Change(self._writer, "The node was not removed")
        change.write(*self._removal(record))

        def stored() -> None:
            self._disown(record)
            self._actor.log.info("node %s (%s) removed", record.alias, record.id)
            effect = NodeRemoved(record.id)
            self._forwarder.ask_cluster(record.cluster_id, effect, reply, lambda _: Ok())

        change.commit_lasting(reply, stored)

    def _removal(self, record: NodeRecord) -> tuple[Write, ...]:
        """The key stays, so that the node can be told why it is refused."""
        key = KeyRecord(record.key, KeyKind.REMOVED, record.id, self._actor.clock.wall())
        return Delete(NodeRecord, record.id), Put(key)

    def _disown(self, record: NodeRecord) -> None:
        """From here on no message of the node is handled."""
        self._context.principals.learn(Principal(Kind.REMOVED, record.key, record.id))
        self._directory.nodes.pop(record.id, None)
        self._listeners.cut(record.key)


def _info(record: ClusterRecord, nodes: int) -> ClusterInfo:
    return ClusterInfo(
        record.id, record.name, record.status, record.owner_id, nodes, record.created_at
    )


def _still_runs(record: ClusterRecord, active: int) -> Refused:
    return Refused(
        Code.WRONG_STATE,
        f"{active} swarm{'s run' if active > 1 else ' runs'} in the cluster "
        f"{record.name!r}; stop the cluster (manta cluster stop) before you delete it.",
    )
