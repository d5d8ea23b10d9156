"""The paths of a node's actors."""

from __future__ import annotations

ROOT = "node"
PEER_HUB = f"{ROOT}/peer-hub"
PEER_DIRECTORY = f"{ROOT}/peer-directory"
DATASETS = f"{ROOT}/datasets"
PLANE = f"{ROOT}/plane"
METRICS = f"{ROOT}/metrics"
REVIEWS = f"{ROOT}/reviews"


def task_id(swarm_id: str, alias: str, lane: int) -> str:
    """Returns the id of a task supervisor: the last part of its path."""
    return f"tasks/{swarm_id}.{alias}.{lane}"
