"""Has nodes delete the values of results that stay on them, once users have deleted the results.

A node that is away, or has yet to tell something of such a value, is asked again after a heartbeat.
What a swarm has freed is in its log, and is told here again whenever it is loaded.

Another result may have the value again. The node keeps it as long as it has not heard that the
manager has that result; and the manager says so after it has said here that the value is needed,
over the same link. So nothing is deleted that a result names, whether the swarm's actor is there
or not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

from manta.actors import Actor
from manta.manager.cluster.orders import ClusterNode
from manta.protocol.spread import MOST_FREED, FreedResults, FreeResults

PATIENCE = 30.0
"""Seconds in which a node answers."""


@dataclass
class Frees:
    """Implements `orders.Frees`."""

    actor: Actor
    nodes: Mapping[str, ClusterNode]
    _due: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """By node and swarm: digests, each time that one was freed under another number."""
    _count: int = 0
    _asked: set[str] = field(default_factory=set)
    """Nodes that have yet to answer."""

    def restored(self, swarm_id: str, freed: Mapping[str, Collection[str]]) -> None:
        self.removed(swarm_id)
        for node_id, digests in freed.items():
            self.add(node_id, swarm_id, digests)

    def add(self, node_id: str, swarm_id: str, digests: Collection[str]) -> None:
        if node_id not in self.nodes:
            return
        due = self._due.setdefault(node_id, {}).setdefault(swarm_id, {})
        for digest in digests:
            self._count += 1
            due[digest] = self._count
        self.tell(node_id)

    def needed(self, node_id: str, swarm_id: str, digest: str) -> None:
        self._due.get(node_id, {}).get(swarm_id, {}).pop(digest, None)

    def removed(self, swarm_id: str) -> None:
        """The swarm was: all of it goes."""
        for swarms in self._due.values():
            swarms.pop(swarm_id, None)

    def forget(self, node_id: str) -> None:
        self._due.pop(node_id, None)

    def tell(self, node_id: str) -> None:
        """The node may be here, and take what is due."""
        node, swarms = self.nodes.get(node_id), self._due.get(node_id, {})
        for swarm_id in [swarm_id for swarm_id, digests in swarms.items() if not digests]:
            del swarms[swarm_id]
        if node is None or node.link is None or not swarms or node_id in self._asked:
            return
        swarm_id = next(iter(swarms))
        some = dict(islice(swarms[swarm_id].items(), MOST_FREED))

        def answered(answer: FreedResults | None, error: BaseException | None) -> None:
            self._asked.discard(node_id)
            if error is not None:
                said = "%s was not told what results were deleted: %s; it is told again"
                self.actor.log.warning(said, node_id, error)
            kept = some.keys() if answer is None else set(answer.kept)
            self._told(node_id, swarm_id, some, kept)
            if error is None and not kept:
                self.tell(node_id)

        self._asked.add(node_id)
        future = node.link.ask_future(FreeResults(swarm_id, tuple(some)), timeout=PATIENCE)
        self.actor.pipe(future, answered)

    def _told(
        self, node_id: str, swarm_id: str, some: Mapping[str, int], kept: Collection[str]
    ) -> None:
        """The node has deleted some of what was due, but for what it kept: that is told after all
        else, unless it has come to be needed since."""
        swarms = self._due.get(node_id, {})
        due = swarms.pop(swarm_id, {})
        for digest, number in some.items():
            if due.get(digest) == number:
                del due[digest]
                if digest in kept:
                    due[digest] = number
        if due:
            swarms[swarm_id] = due
