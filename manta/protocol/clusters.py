"""Clusters and their nodes, as a user's SDK asks for them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from manta.protocol.base import Wait, requests
from manta.protocol.node import Capabilities, Load, Message, Ok, Seconds
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
    """In order of ids; `after` is the last that was received already. So in all lists."""

    after: str = ""


class Clusters(Message, frozen=True):
    """As many as fit into a message; `more`: ask for those after them. So in all lists."""

    clusters: tuple[ClusterInfo, ...]
    more: bool = False
    revision: str = ""


class WatchClusters(Message, frozen=True):
    """What changed after `since`, the revision that was told last, "" for all: at once if
    something did, else when it does or after `wait` seconds. In the order of the changes; what
    is gone is not told. So with all that is watched."""

    since: str = ""
    wait: Wait = 0.0


class GetCluster(Message, frozen=True):
    """`cluster` is an id, a unique prefix of one, or a name; so in all messages here."""

    cluster: str


class StartCluster(Message, frozen=True):
    cluster: str


class StopCluster(Message, frozen=True):
    cluster: str


class DeleteCluster(Message, frozen=True):
    cluster: str


class CreateNodeToken(Message, frozen=True):
    cluster: str
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


class ListNodes(Message, frozen=True):
    cluster: str
    after: str = ""


class Nodes(Message, frozen=True):
    nodes: tuple[NodeInfo, ...]
    more: bool = False
    revision: str = ""


class WatchNodes(Message, frozen=True):
    cluster: str
    since: str = ""
    wait: Wait = 0.0


class GetNode(Message, frozen=True):
    """`node` is an id, a unique prefix of one, or an alias."""

    node: str
    cluster: str | None = None


class RequestNodeStop(Message, frozen=True):
    node: str
    drain: bool = False


class RemoveNode(Message, frozen=True):
    """Forget the node and its key; it can come back only with a new token."""

    node: str


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
        RequestNodeStop: Ok,
        RemoveNode: Ok,
    }
)
