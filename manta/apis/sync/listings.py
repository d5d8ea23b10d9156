# Generated from manta/apis/aio/listings.py by `make generate`: do not edit.
"""The other forms in which clusters, nodes and swarms are listed: ids, streams, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from manta.apis import checks
from manta.apis.connect.bridge import pause
from manta.apis.errors import NotFound
from manta.apis.overviews import ClusterOverview, NodeOverview, SwarmOverview
from manta.protocol import clusters
from manta.protocol.user import Swarms, WatchSwarms

if TYPE_CHECKING:
    from manta.apis.overviews import NodeResources
    from manta.apis.sync.connection import Connection
    from manta.apis.sync.user_api import Cluster, Node


class Listings:
    """Streams give what there is and end; with `follow` they go on, giving what is new or has
    changed. `stream_and_fetch_*` reads the ids first and fetches each whole: what went away
    meanwhile is passed over."""

    connection: Connection

    if TYPE_CHECKING:

        def list_clusters(self) -> list[ClusterOverview]: ...
        def get_cluster(self, cluster: Cluster) -> ClusterOverview: ...
        def list_nodes(self, cluster: Cluster) -> list[NodeOverview]: ...
        def get_node(self, node: Node, cluster: Cluster | None = None) -> NodeOverview: ...
        def list_swarms(self, cluster: Cluster | None = None) -> list[SwarmOverview]: ...
        def get_swarm(self, swarm: str) -> SwarmOverview: ...
        def stop_node(self, node: Node, drain: bool = False) -> None: ...

    def list_cluster_ids(self) -> list[str]:
        """As `list_clusters`, the ids alone."""
        return [cluster.id for cluster in self.list_clusters()]

    def list_node_ids(self, cluster: Cluster) -> list[str]:
        """As `list_nodes`, the ids alone."""
        return [node.id for node in self.list_nodes(cluster)]

    def list_available_node_ids(self, cluster: Cluster) -> list[str]:
        """Of the nodes that are connected and take tasks."""
        nodes = self.list_nodes(cluster)
        return [node.id for node in nodes if node.status == "CONNECTED"]

    def list_swarm_ids(self, cluster: Cluster | None = None) -> list[str]:
        """As `list_swarms`, the ids alone."""
        return [swarm.swarm_id for swarm in self.list_swarms(cluster)]

    def stream_clusters(self, *, follow: bool = False) -> Iterator[ClusterOverview]:
        """Each cluster; with `follow`, again when it has changed."""
        checks.flag("follow", follow)
        found = self.list_clusters()
        for cluster in found:
            yield cluster
        if not follow:
            return
        for cluster in self.connection.changes(
            found,
            clusters.WatchClusters,
            clusters.Clusters,
            lambda page: map(ClusterOverview.of, page.clusters),
            lambda one: one.id,
        ):
            yield cluster

    def stream_nodes(self, cluster: Cluster, *, follow: bool = False) -> Iterator[NodeOverview]:
        """Each node; with `follow`, again when its status, its load or what it is has changed.
        That it was heard again is no change."""
        checks.flag("follow", follow)
        found = self.list_nodes(cluster)
        for node in found:
            yield node
        if not follow:
            return
        for node in self.connection.changes(
            found,
            partial(clusters.WatchNodes, checks.identity("cluster", cluster)),
            clusters.Nodes,
            lambda page: map(NodeOverview.of, page.nodes),
            lambda one: one.id,
            lambda one: replace(one, last_seen=0.0),
        ):
            yield node

    def stream_swarms(
        self, cluster: Cluster | None = None, *, follow: bool = False
    ) -> Iterator[SwarmOverview]:
        """Each swarm; with `follow`, again when it has changed."""
        checks.flag("follow", follow)
        found = self.list_swarms(cluster)
        for swarm in found:
            yield swarm
        if not follow:
            return
        where = None if cluster is None else checks.identity("cluster", cluster)
        for swarm in self.connection.changes(
            found,
            partial(WatchSwarms, where),
            Swarms,
            lambda page: map(SwarmOverview.of, page.swarms),
            lambda one: one.swarm_id,
        ):
            yield swarm

    def stream_and_fetch_clusters(self) -> Iterator[ClusterOverview]:
        """Each cluster, fetched by its id."""
        for id_ in self.list_cluster_ids():
            try:
                yield self.get_cluster(id_)
            except NotFound:
                continue

    def stream_and_fetch_nodes(self, cluster: Cluster) -> Iterator[NodeOverview]:
        """Each node of the cluster, fetched by its id."""
        for id_ in self.list_node_ids(cluster):
            try:
                yield self.get_node(id_, cluster)
            except NotFound:
                continue

    def stream_and_fetch_swarms(self, cluster: Cluster | None = None) -> Iterator[SwarmOverview]:
        """Each swarm, fetched by its id."""
        for id_ in self.list_swarm_ids(cluster):
            try:
                yield self.get_swarm(id_)
            except NotFound:
                continue

    def get_node_resources(self, node: Node, cluster: Cluster | None = None) -> NodeResources:
        """What the node has, and has left now. Sizes in bytes."""
        return (self.get_node(node, cluster)).resources

    def stream_node_resources(
        self, node: Node, cluster: Cluster | None = None, *, interval: float = 1.0
    ) -> Iterator[NodeResources]:
        """Every `interval` seconds; it ends when the node is no longer connected or is removed.

        Raises NotFound for a node that there never was.
        """
        checks.seconds("interval", interval)
        found = self.get_node(node, cluster)
        while found.status in ("CONNECTED", "DRAINING"):
            yield found.resources
            pause(interval)
            try:
                found = self.get_node(found)
            except NotFound:
                return

    def drain_node(self, node: Node) -> None:
        """Let the node finish what it runs, take nothing new, and end its daemon."""
        self.stop_node(node, drain=True)
