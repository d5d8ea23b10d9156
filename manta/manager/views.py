"""What a cluster shows to its swarms and to the Gateway."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from manta.manager.placement.nodes import NodeView
from manta.protocol.clusters import NodeInfo
from manta.protocol.user import SwarmInfo


@dataclass
class ClusterView:
    """The current state of one cluster, for other actors to read at any moment.

    The ClusterSupervisor writes all of it but `held`. It replaces each value instead of
    changing it, except for `nodes`, which is read by key: readers need no lock.
    """

    node_views: tuple[NodeView, ...] = ()
    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """By node id."""
    stopped: bool = False
    connected: int = 0
    """How many nodes are."""
    swarms: dict[str, SwarmInfo] = field(default_factory=dict)
    active_swarms: int = 0
    notice: str = ""
    """What is wrong with the cluster as a whole."""
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    """Live attempts by swarm and node. Each swarm changes its own counts, before anything is
    stored, so that swarms that are placed at the same time see each other."""

    def node_views_for(self, swarm_id: str) -> tuple[NodeView, ...]:
        """The nodes, with the number of attempts that other swarms run on each."""
        others: Counter[str] = Counter()
        for id_, counts in self.held.copy().items():
            if id_ != swarm_id:
                others.update(counts.copy())
        return tuple(
            replace(view, assigned=others[view.id]) if view.id in others else view
            for view in self.node_views
        )
