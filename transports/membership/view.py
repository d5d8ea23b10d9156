"""Who is in the mesh, as one peer knows it, and everybody's rank.

Ranks follow from the view alone: peers are ordered by the number that each took when it joined,
which is greater than all that it knew of, and by key where several joined at once. So a peer that
joins changes nobody's rank, and of two peers with views of the same `digest` each has the same
ranks. A peer that is suspected is in the view until it is given up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from manta.transports.membership.messages import Alive


@dataclass(frozen=True)
class View:
    version: int
    """Of this peer's views the later has the greater one. Other peers count for themselves."""
    peers: tuple[Alive, ...]
    """By rank; this peer among them."""

    @classmethod
    def of(cls, version: int, peers: Iterable[Alive]) -> View:
        return cls(version, tuple(sorted(peers, key=lambda peer: (peer.order, peer.key))))

    @cached_property
    def ranks(self) -> dict[str, int]:
        """By key."""
        return {peer.key: rank for rank, peer in enumerate(self.peers)}

    @cached_property
    def digest(self) -> str:
        """16 characters, the same for all who know the same peers, in the same sessions."""
        digest = blake2b(digest_size=8)
        for peer in self.peers:
            digest.update(f"{peer.key} {peer.session} {peer.order}\n".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.peers)
