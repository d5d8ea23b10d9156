"""What each node of a cluster shall run, under a version. Signatures first; the bodies follow."""

from __future__ import annotations

from manta.protocol.node import Assignment, Desired, DesiredChanged, Instance


class DesiredStates:
    """Merges all swarms of a cluster. Changes gather until `flush`."""

    def swarm_began(self, swarm_id: str) -> None:
        """Its warm runtimes are to be kept."""
        raise NotImplementedError

    def swarm_ended(self, swarm_id: str) -> None:
        """Drops what is left of its assignments; its warm runtimes are to be stopped."""
        raise NotImplementedError

    def assign(self, node_id: str, assignment: Assignment) -> None:
        raise NotImplementedError

    def revoke(self, node_id: str, instance: Instance) -> None:
        raise NotImplementedError

    def flush(self) -> dict[str, DesiredChanged]:
        """By node: what changed since the last flush, one version further."""
        raise NotImplementedError

    def full(self, node_id: str) -> Desired:
        raise NotImplementedError

    def version(self, node_id: str) -> int:
        raise NotImplementedError

    def assigned(self, node_id: str) -> int:
        """How many attempts the node holds: `NodeView.assigned`."""
        raise NotImplementedError

    def forget(self, node_id: str) -> None:
        """The node was removed."""
        raise NotImplementedError
