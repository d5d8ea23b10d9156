"""Where the actors of a node live."""

from __future__ import annotations

ROOT = "node"
MANAGER_LINK = f"{ROOT}/manager-link"
PEER_HUB = f"{ROOT}/peer-hub"
LIGHT = f"{ROOT}/light"
DATASETS = f"{ROOT}/datasets"
METRICS = f"{ROOT}/metrics"


def task_id(swarm_id: str, alias: str, lane: int) -> str:
    """A task supervisor's id, the last part of its path."""
    return f"tasks/{swarm_id}.{alias}.{lane}"
