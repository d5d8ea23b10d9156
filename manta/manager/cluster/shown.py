"""What others see of a cluster's nodes: placement, the Gateway, and users who watch them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from manta.manager.cluster.lease import Leases
from manta.manager.cluster.orders import ClusterNode
from manta.manager.context import Context
from manta.manager.placement.nodes import NodeView
from manta.manager.views import ClusterView
from manta.protocol.clusters import NodeInfo
from manta.protocol.states import NodeState


@dataclass
class ShownNodes:
    """Publishes `nodes` in the cluster's view."""

    context: Context
    view: ClusterView
    nodes: Mapping[str, ClusterNode]
    leases: Leases
    _views: dict[str, NodeView] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.view.nodes = {}

    def show(self, node_id: str) -> None:
        """Publishes all that there is to see of a node."""
        node = self.nodes.get(node_id)
        if node is None:
            return
        state = self._state(node_id)
        self._views[node_id] = NodeView(
            id=node_id,
            alias=node.record.alias,
            capabilities=node.record.capabilities,
            connected=state in (NodeState.CONNECTED, NodeState.DRAINING),
            draining=state is NodeState.DRAINING,
            returning=self.leases.is_returning(node_id),
            trouble=node.trouble,
            notice=_notice(node),
            direct=node.record.peer_addresses is not None,
            load=node.load,
        )
        self._publish()
        self._tell_watchers(node_id)

    def heard(self, node_id: str) -> None:
        """Publishes what a node tells in each heartbeat, and nothing else."""
        node = self.nodes[node_id]
        self._views[node_id] = replace(
            self._views[node_id], load=node.load, capabilities=node.record.capabilities
        )
        self.view.node_views = tuple(self._views.values())
        self._tell_watchers(node_id)

    def removed(self, node_id: str) -> None:
        self._views.pop(node_id, None)
        self._publish()
        self.view.nodes.pop(node_id, None)
        self.context.revisions.nodes.forget(node_id)

    def _publish(self) -> None:
        self.view.node_views = tuple(self._views.values())
        self.view.aliases = {node.id: node.alias for node in self.view.node_views}
        self.view.connected = sum(node.connected for node in self.view.node_views)

    def _tell_watchers(self, node_id: str) -> None:
        node = self.nodes[node_id]
        info = NodeInfo(
            id=node_id,
            alias=node.record.alias,
            cluster_id=node.record.cluster_id,
            status=self._state(node_id),
            platform_info=node.record.capabilities,
            load=node.load,
            last_seen=node.last_seen,
            notice=_notice(node),
        )
        if info != self.view.nodes.get(node_id):
            self.view.nodes[node_id] = info
            self.context.revisions.nodes.changed(node_id)

    def _state(self, node_id: str) -> NodeState:
        try:
            return self.leases.state(node_id)
        except KeyError:
            return NodeState.DISCONNECTED  # enrolled, but not here yet


def _notice(node: ClusterNode) -> str:
    trouble = node.trouble and f"{node.record.alias} {node.trouble}: it gets no new work."
    return " ".join(filter(None, (trouble, node.contest)))
