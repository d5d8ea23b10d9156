"""Runs the actors of those clusters in which something happens.

A cluster without a swarm that is not over and without a node that is here, or expected back, is
*at rest*: nothing changes in it but by a message. It has no actor and no thread: its view shows it
as it is stored, its actor ends when nothing has happened for a while, and the Gateway has it
started again by the first message (`Forwarder`). So threads grow with what runs, not with what
users have made, and a manager starts whatever is stored.
"""

from __future__ import annotations

from functools import partial

import msgspec

from manta.actors import ChildSpec, ChildType, ExitReason, Refused, Restart, Supervisor
from manta.manager.cluster.supervisor import ClusterSupervisor
from manta.manager.context import Context
from manta.manager.placement.nodes import NodeView
from manta.manager.store.records import ClusterRecord, NodeRecord, SwarmRecord
from manta.protocol.clusters import NodeInfo
from manta.protocol.states import ClusterState, NodeState, SwarmState


class _Begin(msgspec.Struct, frozen=True):
    pass


def cluster_spec(context: Context, cluster_id: str) -> ChildSpec:
    return ChildSpec(
        id=cluster_id,
        start=partial(ClusterSupervisor, context, cluster_id),
        restart=Restart.TRANSIENT,
        type=ChildType.SUPERVISOR,
    )


class Clusters(Supervisor):
    """Its children are the clusters that are not at rest. None of them can keep the manager from
    starting: they are started after it."""

    intensity = 10
    period = 60.0

    def __init__(self, context: Context) -> None:
        self._context = context

    def on_start(self) -> None:
        self._busy = fill_views(self._context)
        self.ref.tell(_Begin())

    def receive(self, message: object) -> object:
        if not isinstance(message, _Begin):
            return super().receive(message)
        for cluster_id in self._busy:

            def then(_: object, refusal: Refused | None, cluster_id: str = cluster_id) -> None:
                if refusal is not None and refusal.code == "start_failed":
                    self.log.error("the cluster %s does not run yet: %s", cluster_id, refusal)

            self.start_child(cluster_spec(self._context, cluster_id), then)
        return None

    def on_child_exited(self, id: str, reason: ExitReason) -> None:
        if reason.is_normal:  # at rest
            self.stop_child(id, lambda *_: None)


def fill_views(context: Context) -> list[str]:
    """Shows all clusters as they are stored; returns the ids of those that are not at rest."""
    reader, revisions = context.reader, context.revisions
    nodes: dict[str, list[NodeRecord]] = {}
    for node in reader.all(NodeRecord):
        nodes.setdefault(node.cluster_id, []).append(node)
    swarms: dict[str, list[SwarmRecord]] = {}
    for swarm in reader.all(SwarmRecord):
        swarms.setdefault(swarm.info.cluster_id, []).append(swarm)
    busy = []
    for record in reader.all(ClusterRecord):
        here, known = nodes.get(record.id, []), swarms.get(record.id, [])
        live = any(not SwarmState(swarm.info.status).final for swarm in known)
        if live or any(node.here for node in here):
            busy.append(record.id)
        view = context.cluster(record.id)
        view.stopped = record.status == ClusterState.STOPPED
        view.swarms = {swarm.id: swarm.info for swarm in known}
        view.nodes = {node.id: _away(node) for node in here}
        view.node_views = tuple(
            NodeView(node.id, node.alias, node.capabilities, connected=False) for node in here
        )
        view.aliases = {node.id: node.alias for node in here}
        revisions.swarms.changed(*view.swarms)
        revisions.nodes.changed(*view.nodes)
    return busy


def _away(node: NodeRecord) -> NodeInfo:
    return NodeInfo(node.id, node.alias, node.cluster_id, NodeState.LOST, node.capabilities)
