"""The side of federated learning that runs with whoever starts a swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manta.federated.swarm import FederatedSwarm

__all__ = ["FederatedSwarm"]


def __getattr__(name: str) -> object:
    """Imports what is asked for: `partition` needs none of the rest."""
    if name == "FederatedSwarm":
        from manta.federated.swarm import FederatedSwarm

        return FederatedSwarm
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
