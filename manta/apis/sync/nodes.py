# Generated from manta/apis/aio/nodes.py by `make generate`: do not edit.
"""The nodes of a cluster, and tokens for new ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from msgspec.structs import replace

from manta.apis import checks
from manta.apis.errors import NotFound
from manta.apis.overviews import ClusterId, NodeId, NodeLink, NodeOverview, NodeResources
from manta.apis.sync.client import Client
from manta.apis.sync.waiting import pause
from manta.protocol import clusters as messages
from manta.protocol.node import Ok


class Nodes(Client):
    """A node is given as an overview, an id, a unique beginning of one, or an alias."""

    def create_node_token(self, cluster: ClusterId, uses: int = 1, ttl: float = 900) -> str:
        """Makes a token with which `uses` nodes can enrol within `ttl` seconds."""
        request = messages.CreateNodeToken(
            checks.identity("cluster", cluster),
            checks.integer("uses", uses, 1, 10_000),
            checks.seconds("ttl", ttl),
        )
        return (self._ask(request, messages.Token)).token

    def list_nodes(self, cluster: ClusterId) -> list[NodeOverview]:
        """Lists the nodes of a cluster, connected or not, by alias. Raises NotFound."""
        request = partial(messages.ListNodes, checks.identity("cluster", cluster))
        found = self.connection.listed(
            request, messages.Nodes, lambda page: page.nodes, lambda one: one.id
        )
        return [NodeOverview.of(node) for node in sorted(found, key=lambda one: one.alias)]

    def list_node_ids(self, cluster: ClusterId, available: bool = False) -> list[str]:
        """Lists the ids of a cluster's nodes, by alias; with `available`, of those that are
        connected and take tasks. Raises NotFound."""
        available = checks.flag("available", available)
        nodes = self.list_nodes(cluster)
        return [node.id for node in nodes if not available or node.status == "CONNECTED"]

    def list_available_node_ids(self, cluster: ClusterId) -> list[str]:
        """Lists the ids of the nodes that are connected and take tasks."""
        return self.list_node_ids(cluster, available=True)

    def stream_nodes(self, cluster: ClusterId, *, follow: bool = False) -> Iterator[NodeOverview]:
        """Yields each node; with `follow`, goes on and yields each one that is new or changes in
        status, load or description (a new `last_seen` alone does not count)."""
        follow = checks.flag("follow", follow)
        yield from self.connection.stream(
            self.list_nodes(cluster),
            partial(messages.WatchNodes, checks.identity("cluster", cluster)),
            messages.Nodes,
            lambda page: map(NodeOverview.of, page.nodes),
            lambda one: one.id,
            lambda one: replace(one, last_seen=0.0),
            follow=follow,
        )

    def stream_and_fetch_nodes(self, cluster: ClusterId) -> list[NodeOverview]:
        """Lists the ids and fetches each node; those removed meanwhile are skipped."""
        ids = self.list_node_ids(cluster)
        return self._fetched(ids, partial(self.get_node, cluster=cluster))

    def get_node(self, node: NodeId, cluster: ClusterId | None = None) -> NodeOverview:
        """Returns a node; an alias is unique only within a `cluster`.

        Raises NotFound, Ambiguous.
        """
        where = checks.optional_identity("cluster", cluster)
        request = messages.GetNode(checks.identity("node", node), where)
        return NodeOverview.of(self._ask(request, messages.NodeInfo, again=True))

    def list_node_links(self, node: NodeId, cluster: ClusterId | None = None) -> list[NodeLink]:
        """Lists the links that a node has with other nodes, by their aliases: those with which its
        tasks exchange values directly.

        Raises NotFound, Ambiguous.
        """
        where = checks.optional_identity("cluster", cluster)
        request = messages.GetNodeLinks(checks.identity("node", node), where)
        return NodeLink.all(self._ask(request, messages.NodeLinks, again=True))

    def get_node_resources(self, node: NodeId, cluster: ClusterId | None = None) -> NodeResources:
        """Returns what the node has and what of it is free now. Sizes in bytes."""
        return (self.get_node(node, cluster)).resources

    def stream_node_resources(
        self, node: NodeId, cluster: ClusterId | None = None, *, interval: float = 1.0
    ) -> Iterator[NodeResources]:
        """Yields the node's resources every `interval` seconds, until it disconnects or is removed.

        Raises NotFound if there is no such node at the start.
        """
        interval = checks.seconds("interval", interval)
        found = self.get_node(node, cluster)
        while found.status in ("CONNECTED", "DRAINING"):
            yield found.resources
            pause(interval)
            try:
                found = self.get_node(found)
            except NotFound:
                return

    def stop_node(self, node: NodeId, drain: bool = False) -> None:
        """Stops the node's daemon; with `drain`, once its running tasks have finished."""
        self._ask(
            messages.RequestNodeStop(checks.identity("node", node), checks.flag("drain", drain)), Ok
        )

    def drain_node(self, node: NodeId) -> None:
        """Lets the node finish its running tasks, gives it no new ones, then stops its daemon."""
        self.stop_node(node, drain=True)

    def remove_node(self, node: NodeId) -> None:
        """Removes the node and its key; it can come back only with a new token."""
        self._ask(messages.RemoveNode(checks.identity("node", node)), Ok)
