"""What each node of a cluster shall run, under a version that grows by one with each change.

A node that holds version v applies a change to v + 1, and in all other cases fetches the
whole. So a lost, late or doubled message costs a round trip and nothing else. The whole is
read in pages of one moment; a change that is more than a page leaves a gap, and is read so too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from manta.protocol.node import Assignment, Desired, DesiredChanged, Instance
from manta.protocol.pages import PAGE_BYTES, encoded, fitting


@dataclass
class _Node:
    version: int = 0
    assignments: dict[Instance, Assignment] = field(default_factory=dict)
    assigned: dict[Instance, Assignment] = field(default_factory=dict)
    revoked: dict[Instance, None] = field(default_factory=dict)
    swarms: tuple[str, ...] = ()
    """As the last version had them; assigned and revoked are what came since."""
    killed: tuple[str, ...] = ()
    """Since the last version. A node that misses it asks the tasks to end, and they do."""
    whole: Desired | None = None
    """Of which the node has not read all pages."""


class DesiredStates:
    """Merges all swarms of a cluster. Changes gather until `flush`."""

    def __init__(self, page_bytes: int = PAGE_BYTES) -> None:
        self._page_bytes = page_bytes
        self._nodes: dict[str, _Node] = {}
        self._swarms: dict[str, None] = {}

    def swarm_began(self, swarm_id: str) -> None:
        """Its warm runtimes are to be kept."""
        self._swarms[swarm_id] = None

    def swarm_ended(self, swarm_id: str, *, kill: bool = False) -> None:
        """Drops what is left of its assignments; its warm runtimes are to be stopped."""
        self._swarms.pop(swarm_id, None)
        for node_id, node in self._nodes.items():
            if kill:
                node.killed = (*node.killed, swarm_id)
            for instance in list(node.assignments):
                if instance.swarm_id == swarm_id:
                    self.revoke(node_id, instance)

    def restore(
        self, swarm_id: str, wanted: Mapping[str, Iterable[Assignment]], node_ids: Iterable[str]
    ) -> None:
        """What these nodes shall run of a swarm; whatever was known of it gives way."""
        for node_id in node_ids:
            shall = {assignment.instance: assignment for assignment in wanted.get(node_id, ())}
            has = [at for at in self._node(node_id).assignments if at.swarm_id == swarm_id]
            for instance in has:
                if shall.pop(instance, None) is None:
                    self.revoke(node_id, instance)
            for assignment in shall.values():
                self.assign(node_id, assignment)

    def assign(self, node_id: str, assignment: Assignment) -> None:
        node = self._node(node_id)
        node.assignments[assignment.instance] = assignment
        if assignment.instance in node.revoked:  # the node has it still
            del node.revoked[assignment.instance]
        else:
            node.assigned[assignment.instance] = assignment

    def revoke(self, node_id: str, instance: Instance) -> None:
        node = self._node(node_id)
        if node.assignments.pop(instance, None) is None:
            return
        if node.assigned.pop(instance, None) is None:
            node.revoked[instance] = None

    def flush(self) -> dict[str, DesiredChanged]:
        """By node: what changed since the last flush, one version further."""
        changes = {}
        swarms = tuple(self._swarms)
        for node_id, node in self._nodes.items():
            if not (node.assigned or node.revoked or node.swarms != swarms):
                continue
            node.version += 1
            change = DesiredChanged(
                node.version,
                tuple(node.assigned.values()),
                tuple(node.revoked),
                swarms,
                node.killed,
            )
            if self._is_too_much(change):
                node.version += 1
                change = DesiredChanged(node.version, swarms=swarms, killed=node.killed)
            changes[node_id] = change
            node.assigned, node.revoked, node.swarms, node.killed = {}, {}, swarms, ()
        return changes

    def _is_too_much(self, change: DesiredChanged) -> bool:
        return any(
            fitting(items, encoded, self._page_bytes)[1] for items in (change.assign, change.revoke)
        )

    def full(self, node_id: str, version: int = 0, after: int = 0) -> Desired:
        """As of the last flush and all that came since: what gathered goes with it. Of a version
        that is being read, what comes after so many assignments."""
        node = self._node(node_id)
        if not (node.whole and after and node.whole.version == version):
            node.whole, after = self._whole(node), 0
        rest = islice(node.whole.assignments, after, None)
        shown, more = fitting(rest, encoded, self._page_bytes)
        page = msgspec.structs.replace(node.whole, assignments=tuple(shown), after=after, more=more)
        if not more:
            node.whole = None
        return page

    def _whole(self, node: _Node) -> Desired:
        swarms = tuple(self._swarms)
        if node.assigned or node.revoked or node.swarms != swarms:
            node.version += 1
            node.assigned, node.revoked, node.swarms, node.killed = {}, {}, swarms, ()
        return Desired(node.version, tuple(node.assignments.values()), swarms)

    def version(self, node_id: str) -> int:
        return self._node(node_id).version

    def forget(self, node_id: str) -> None:
        """The node was removed."""
        self._nodes.pop(node_id, None)

    def _node(self, node_id: str) -> _Node:
        return self._nodes.setdefault(node_id, _Node())
