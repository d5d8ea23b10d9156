"""What a cluster shows to its swarms and to the Gateway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import msgspec

from manta.actors.errors import Refused
from manta.manager.placement.nodes import NodeView
from manta.protocol import pages
from manta.protocol.clusters import NodeInfo, Nodes
from manta.protocol.codes import Code
from manta.protocol.user import SwarmInfo
from manta.protocol.values import BlobRef

Why = Literal["silent", "unlinked", "stopped", "awaited"]


class Silence(msgspec.Struct, frozen=True):
    """Of a node that counts as lost unless it is heard in time. Times are monotonic seconds."""

    since: float
    """When it was last heard."""
    lost_at: float | None
    """None while no node is lost, because most are silent."""
    why: Why
    """Awaited: the manager has returned and has not heard it since."""


class Behind(msgspec.Struct, frozen=True):
    """A node has written more into a swarm's journal than has arrived."""

    last: int
    """The number of the entry that it had reached then."""
    since: float
    """Monotonic seconds."""
    returned: bool
    """The node has just registered: it was away, or the manager."""


class Asked(msgspec.Struct, frozen=True):
    """The owner of a node has yet to say whether attempts may run there."""

    node: str
    """Its alias."""
    who: str
    """The instances, as they are told to people."""
    count: int
    since: float
    """Monotonic seconds."""


class StayingResults(Protocol):
    """The results of a swarm that stay on the nodes that made them; for any thread."""

    def at(self, value: BlobRef) -> dict[str, str]:
        """The nodes on which results with this value stay, aliases by id."""


@dataclass
class ClusterView:
    """The current state of one cluster, for other actors to read at any moment.

    The ClusterSupervisor writes all of it but `queued`, `asked`, `held`, `staying` and `unloaded`.
    It replaces each value instead of changing it, except for `nodes`, which is read by key: readers
    need no lock.
    """

    node_views: tuple[NodeView, ...] = ()
    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    """By node id."""
    unloaded: dict[str, str] = field(default_factory=dict)
    """Why the swarms are not in memory that were to be started. Each notes its own."""
    share: Callable[[str, str], bool] = lambda _, __: False
    """Whether nodes with these ids are members of one swarm, and may speak to each other."""
    stopped: bool = False
    connected: int = 0
    """How many nodes are."""
    swarms: dict[str, SwarmInfo] = field(default_factory=dict)
    active_swarms: int = 0
    notice: str = ""
    """What is wrong with the cluster as a whole."""
    silences: dict[str, Silence] = field(default_factory=dict)
    """By node id: those that are not heard from and do not count as lost yet."""
    behind: dict[str, dict[str, Behind]] = field(default_factory=dict)
    """By swarm and node."""
    unread: set[str] = field(default_factory=set)
    """Swarms that have to read their logs before it is known what they run."""
    queued: dict[str, str] = field(default_factory=dict)
    """By swarm: whose turn has not come on its node while others wait for it, in a sentence. Each
    swarm writes its own."""
    asked: dict[str, tuple[Asked, ...]] = field(default_factory=dict)
    """By swarm: owners of nodes that it waits for. Each swarm writes its own."""
    staying: dict[str, StayingResults] = field(default_factory=dict)
    """By swarm. Each notes its own."""
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    """Live attempts by swarm and node. Each swarm changes its own counts, before anything is
    stored, so that swarms that are placed at the same time see each other."""

    def node(self, node_id: str) -> NodeInfo:
        """Raises Refused."""
        info = self.nodes.get(node_id)
        if info is None:
            raise Refused(Code.UNKNOWN_NODE, f"There is no node {node_id!r}.")
        return info

    def nodes_page(self, after: str) -> Nodes:
        """For the cluster's own thread, and for others while it is at rest."""
        return Nodes(*pages.after(self.nodes.values(), lambda one: one.id, after, pages.encoded))

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
