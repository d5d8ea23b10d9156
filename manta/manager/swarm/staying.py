"""The results of a swarm that stay on the nodes that made them, and what became of them. Pure.

One thread changes it; any may read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from manta.protocol.user import ResultItem
from manta.protocol.values import BlobRef


class Holder(NamedTuple):
    """A node on which results of one value stay."""

    alias: str
    size: int
    """Of the value, in bytes."""
    results: int
    """How many."""


@dataclass
class Staying:
    holders: dict[str, dict[str, Holder]] = field(default_factory=dict)
    """By digest and node."""
    freed: dict[str, dict[str, None]] = field(default_factory=dict)
    """By node: digests of results that users deleted."""

    def freed_of(self, item: ResultItem) -> str:
        """The digest of its value if its node need not keep that, else nothing."""
        assert isinstance(item.value, BlobRef)
        digest = item.value.digest
        return digest if digest in self.freed.get(item.node_id, {}) else ""

    @property
    def names(self) -> int:
        """How many digests it remembers."""
        return len(self.holders) + sum(map(len, self.freed.values()))

    def added(self, item: ResultItem) -> None:
        """The result stays on its node."""
        assert isinstance(item.value, BlobRef)
        digest, node_id = item.value.digest, item.node_id
        at = self.holders.setdefault(digest, {})
        before = at.get(node_id)
        count = before.results + 1 if before is not None else 1
        at[node_id] = Holder(item.node_alias, item.value.size, count)
        self.freed.get(node_id, {}).pop(digest, None)

    def deleted(self, item: ResultItem) -> bool:
        """A user deletes the result; whether the node need not keep its value any more."""
        assert isinstance(item.value, BlobRef)
        digest, node_id = item.value.digest, item.node_id
        at = self.holders[digest]
        holder = at.pop(node_id)
        if holder.results > 1:
            at[node_id] = holder._replace(results=holder.results - 1)
            return False
        if not at:
            del self.holders[digest]
        self.freed.setdefault(node_id, {})[digest] = None
        return True

    def at(self, value: BlobRef) -> dict[str, str]:
        """The nodes on which results with this value stay, aliases by id."""
        found = self.holders.get(value.digest, {}).copy()
        return {id_: holder.alias for id_, holder in found.items() if holder.size == value.size}
