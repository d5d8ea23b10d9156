"""What each node of a cluster should run: its desired state, in versions.

Theory of operation. Assignments and revocations gather until `flush`, which makes a new
version of each node's desired state: the change to it is sent to the node. A node that holds
version v applies the change to v + 1, and in all other cases fetches the whole state. So a
lost, late or doubled message costs a round trip and nothing else. The whole state is read in
pages of one version. A change that is larger than a page is not sent: its version is skipped,
so that the node fetches the whole state.

A node is told of the swarms of which it was ever given an attempt, and of no others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
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
    given: dict[str, None] = field(default_factory=dict)
    """Swarms of which it was ever given an attempt."""
    swarms: tuple[str, ...] = ()
    """Those of them that run, as of the last version; `assigned` and `revoked` came since."""
    killed: tuple[str, ...] = ()
    """Swarms killed since the last version. A node that misses this asks their tasks to end."""
    whole: Desired | None = None
    """A version of which the node has not read all pages yet."""


class DesiredStates:
    """Merges the assignments of all swarms of a cluster."""

    def __init__(self, page_bytes: int = PAGE_BYTES) -> None:
        self._page_bytes = page_bytes
        self._nodes: defaultdict[str, _Node] = defaultdict(_Node)
        self._swarms: dict[str, None] = {}

    def swarm_began(self, swarm_id: str) -> None:
        """From now on nodes keep the swarm's warm runtimes."""
        self._swarms[swarm_id] = None

    def swarm_ended(self, swarm_id: str, *, kill: bool = False) -> None:
        """Revokes what is left of its assignments; nodes stop its warm runtimes."""
        self._swarms.pop(swarm_id, None)
        for node_id, node in self._nodes.items():
            if swarm_id not in node.given:
                continue
            del node.given[swarm_id]
            if kill:
                node.killed = (*node.killed, swarm_id)
            for instance in list(node.assignments):
                if instance.swarm_id == swarm_id:
                    self.revoke(node_id, instance)

    def restore(
        self,
        swarm_id: str,
        wanted: Mapping[str, Iterable[Assignment]],
        node_ids: Iterable[str],
        given: Iterable[str] = (),
    ) -> None:
        """Replaces the assignments of a swarm on these nodes by the wanted ones. `given`: nodes
        that were ever given an attempt of it."""
        for node_id in given:
            self._nodes[node_id].given[swarm_id] = None
        for node_id in node_ids:
            missing = {assignment.instance: assignment for assignment in wanted.get(node_id, ())}
            has = [at for at in self._nodes[node_id].assignments if at.swarm_id == swarm_id]
            for instance in has:
                if missing.pop(instance, None) is None:
                    self.revoke(node_id, instance)
            for assignment in missing.values():
                self.assign(node_id, assignment)

    def assign(self, node_id: str, assignment: Assignment) -> None:
        node = self._nodes[node_id]
        node.given[assignment.instance.swarm_id] = None
        node.assignments[assignment.instance] = assignment
        if assignment.instance in node.revoked:  # the node still has it
            del node.revoked[assignment.instance]
        else:
            node.assigned[assignment.instance] = assignment

    def began(self, node_id: str, instance: Instance) -> None:
        """A node that fetches the whole is told so; one that knows it need not be."""
        assignments = self._nodes[node_id].assignments
        if (assignment := assignments.get(instance)) is not None:
            assignments[instance] = msgspec.structs.replace(assignment, begun=True)

    def revoke(self, node_id: str, instance: Instance) -> None:
        node = self._nodes[node_id]
        if node.assignments.pop(instance, None) is None:
            return
        if node.assigned.pop(instance, None) is None:
            node.revoked[instance] = None

    def flush(self) -> dict[str, DesiredChanged]:
        """By node: what changed since the last flush, as its next version."""
        changes = {}
        for node_id, node in self._nodes.items():
            swarms = self._running(node)
            if not (node.assigned or node.revoked or node.swarms != swarms):
                continue
            changed = tuple(node.assigned.values()), tuple(node.revoked)
            change = DesiredChanged(node.version + 1, *changed, swarms, node.killed)
            if any(fitting(items, encoded, self._page_bytes)[1] for items in changed):
                change = DesiredChanged(node.version + 2, swarms=swarms, killed=node.killed)
            changes[node_id], node.version = change, change.version
            node.assigned, node.revoked, node.swarms, node.killed = {}, {}, swarms, ()
        return changes

    def full(self, node_id: str, version: int = 0, after: int = 0) -> Desired:
        """A page of the node's desired state, including what has not been flushed yet.

        A node that is reading `version` gets the page that begins after `after` assignments of
        it; any other gets the first page of the current one.
        """
        node = self._nodes[node_id]
        if not (node.whole and after and node.whole.version == version):
            node.whole, after = self._whole(node), 0
        rest = islice(node.whole.assignments, after, None)
        shown, more = fitting(rest, encoded, self._page_bytes)
        page = msgspec.structs.replace(node.whole, assignments=tuple(shown), after=after, more=more)
        if not more:
            node.whole = None
        return page

    def _whole(self, node: _Node) -> Desired:
        swarms = self._running(node)
        if node.assigned or node.revoked or node.swarms != swarms:
            node.version += 1
            node.assigned, node.revoked, node.swarms, node.killed = {}, {}, swarms, ()
        return Desired(node.version, tuple(node.assignments.values()), swarms)

    def _running(self, node: _Node) -> tuple[str, ...]:
        return tuple(swarm_id for swarm_id in node.given if swarm_id in self._swarms)

    def given(self, node_id: str) -> Collection[str]:
        """The swarms of which the node was ever given an attempt, and which have not ended."""
        return self._nodes[node_id].given

    def version(self, node_id: str) -> int:
        return self._nodes[node_id].version

    def forget(self, node_id: str) -> None:
        """The node was removed."""
        self._nodes.pop(node_id, None)
