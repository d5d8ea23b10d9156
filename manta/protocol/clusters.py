"""Messages about clusters and their nodes, from the SDK to the manager."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from manta.protocol.base import Cursor, Named, Wait, requests
from manta.protocol.node import Capabilities, Load, Message, Ok, Seconds
from manta.protocol.peers import PeerLink
from manta.protocol.spec import Name


class ClusterInfo(Message, frozen=True):
    id: str
    name: str
    status: str
    owner_id: str
    node_count: int
    created_at: Seconds = 0.0


class CreateCluster(Message, frozen=True):
    name: Name


class ListClusters(Message, frozen=True):
    """In order of ids; `after` is the last id that was received. As in all lists."""

    after: Cursor = ""


class Clusters(Message, frozen=True):
    """As many as fit into a message; `more` says that others follow. As in all lists."""

    clusters: tuple[ClusterInfo, ...]
    more: bool = False
    revision: str = ""


class WatchClusters(Message, frozen=True):
    """What changed after the revision `since`, or everything when that is "": at once if
    something did, else when it does or after `wait` seconds. In the order of the changes, without
    what was removed. As in all watches."""

    since: Cursor = ""
    wait: Wait = 0.0


class GetCluster(Message, frozen=True):
    """`cluster` is an id, a unique prefix of one, or a name. As in all messages here."""

    cluster: Named


class StartCluster(Message, frozen=True):
    cluster: Named


class StopCluster(Message, frozen=True):
    cluster: Named


class DeleteCluster(Message, frozen=True):
    cluster: Named


class CreateNodeToken(Message, frozen=True):
    cluster: Named
    uses: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    ttl: Annotated[float, msgspec.Meta(gt=0)] = 900.0


class Token(Message, frozen=True):
    token: str
    expires_at: Seconds


class NodeInfo(Message, frozen=True):
    id: str
    alias: str
    cluster_id: str
    status: str
    platform_info: Capabilities
    load: Load = Load()
    last_seen: Seconds = 0.0
    notice: str = ""
    """What is wrong with it, though it is connected: a sentence."""


class ListNodes(Message, frozen=True):
    cluster: Named
    after: Cursor = ""


class Nodes(Message, frozen=True):
    nodes: tuple[NodeInfo, ...]
    more: bool = False
    revision: str = ""


class WatchNodes(Message, frozen=True):
    cluster: Named
    since: Cursor = ""
    wait: Wait = 0.0


class GetNode(Message, frozen=True):
    """`node` is an id, a unique prefix of one, or an alias."""

    node: Named
    cluster: Named | None = None


class GetNodeLinks(Message, frozen=True):
    """Of a node, as GetNode names it: its links with other nodes."""

    node: Named
    cluster: Named | None = None


class NodeLinks(Message, frozen=True):
    """In order of the other nodes' aliases; none where the node is not connected."""

    node_id: str
    alias: str
    links: tuple[PeerLink, ...] = ()


class RequestNodeStop(Message, frozen=True):
    node: Named
    drain: bool = False


class RemoveNode(Message, frozen=True):
    """Forget the node and its key; it can come back only with a new token."""

    node: Named


ClusterRequest: Any = requests(
    {
        CreateCluster: ClusterInfo,
        ListClusters: Clusters,
        WatchClusters: Clusters,
        GetCluster: ClusterInfo,
        StartCluster: ClusterInfo,
        StopCluster: ClusterInfo,
        DeleteCluster: Ok,
        CreateNodeToken: Token,
        ListNodes: Nodes,
        WatchNodes: Nodes,
        GetNode: NodeInfo,
        GetNodeLinks: NodeLinks,
        RequestNodeStop: Ok,
        RemoveNode: Ok,
    }
)
