"""Where the actors of a node live."""

from __future__ import annotations

from manta.actors import Actor, ActorError

ROOT = "node"
MANAGER_LINK = f"{ROOT}/manager-link"
PEER_HUB = f"{ROOT}/peer-hub"
LIGHT = f"{ROOT}/light"
DATASETS = f"{ROOT}/datasets"
METRICS = f"{ROOT}/metrics"


def task_id(swarm_id: str, alias: str, lane: int) -> str:
    """A task supervisor's id, the last part of its path."""
    return f"tasks/{swarm_id}.{alias}.{lane}"


def tell(actor: Actor, path: str, message: object) -> bool:
    """To whoever lives there now. What is lost while nobody does, its successor asks for."""
    try:
        actor.system.ref(path).tell(message)
    except ActorError as error:
        actor.log.debug("%s not told to %s: %s", type(message).__name__, path, error)
        return False
    return True
