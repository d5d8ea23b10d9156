"""Has nodes delete the values of results that stay on them, once users have deleted the results.

A node that is away, or has yet to tell something of such a value, is asked again after a heartbeat.
What a swarm has freed is in its log, and is told here again whenever it is loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

from manta.actors import Actor
from manta.manager.cluster.orders import ClusterNode
from manta.manager.views import ClusterView
from manta.protocol.spread import MOST_FREED, FreedResults, FreeResults

PATIENCE = 30.0
"""Seconds in which a node answers."""


@dataclass
class Frees:
    actor: Actor
    view: ClusterView
    nodes: Mapping[str, ClusterNode]
    _due: dict[str, dict[str, dict[str, None]]] = field(default_factory=dict)
    """Digests by node and swarm."""
    _asked: set[str] = field(default_factory=set)
    """Nodes that have yet to answer."""

    def add(self, node_id: str, swarm_id: str, digests: Collection[str]) -> None:
        if node_id not in self.nodes:
            return
        due = self._due.setdefault(node_id, {}).setdefault(swarm_id, {})
        due.update(dict.fromkeys(digests))
        self.tell(node_id)

    def removed(self, swarm_id: str) -> None:
        """The swarm was: all of it goes."""
        for swarms in self._due.values():
            swarms.pop(swarm_id, None)

    def forget(self, node_id: str) -> None:
        self._due.pop(node_id, None)

    def tell(self, node_id: str) -> None:
        """The node may be here, and take what is due."""
        node, due = self.nodes.get(node_id), self._due.get(node_id)
        if node is None or node.link is None or not due or node_id in self._asked:
            return
        swarm_id = next(iter(due))
        digests = due.pop(swarm_id)
        if (staying := self.view.staying.get(swarm_id)) is not None:  # else it says nothing new
            digests = {one: None for one in digests if staying.is_free(one, node_id)}
        some = tuple(islice(digests, MOST_FREED))
        if not some:
            self.tell(node_id)
            return

        def answered(answer: FreedResults | None, error: BaseException | None) -> None:
            self._asked.discard(node_id)
            kept = some if answer is None else answer.kept
            left = [*(one for one in digests if one not in some), *kept]
            if error is not None:
                said = "%s was not told what results were deleted: %s; it is told again"
                self.actor.log.warning(said, node_id, error)
            if left and node_id in self.nodes:  # after those of other swarms
                late = self._due.setdefault(node_id, {}).setdefault(swarm_id, {})
                late.update(dict.fromkeys(left))
            if error is None and not kept:
                self.tell(node_id)

        self._asked.add(node_id)
        future = node.link.ask_future(FreeResults(swarm_id, some), timeout=PATIENCE)
        self.actor.pipe(future, answered)
