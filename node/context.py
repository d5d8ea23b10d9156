"""What the actors of one node have in common: made once, before the first of them starts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from manta.actors import Actor, ActorDead, ActorError

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.node.config import NodeConfig
    from manta.node.journal.files import Journals
    from manta.node.runners.interface import Runner
    from manta.node.state import Identity, StateFolder
    from manta.node.task_server.sessions import Sessions
    from manta.node.tasks.supervisor import LeftRuntime
    from manta.transports.blobs.file_depot import FileDepot
    from manta.transports.blobs.interface import Depot
    from manta.transports.bulk.interface import Bulk

ROOT = "node"
PEER_HUB = f"{ROOT}/peer-hub"
LIGHT = f"{ROOT}/light"
DATASETS = f"{ROOT}/datasets"
METRICS = f"{ROOT}/metrics"


def task_id(swarm_id: str, alias: str, lane: int) -> str:
    """A task supervisor's id, the last part of its path."""
    return f"tasks/{swarm_id}.{alias}.{lane}"


@dataclass
class NodeContext:
    config: NodeConfig
    state: StateFolder
    identity: Identity | None
    """None until the node has enrolled. The manager's link alone replaces it."""
    manager_key: str
    """What the connection pins: of the identity, or of the token."""
    journals: Journals
    values: TieredDepot
    spool: FileDepot
    runner: Runner
    make_bulk: Callable[[Depot], Bulk]
    sessions: Sessions
    make_light: Callable[[], Actor]
    finish: Callable[[int, str], None]
    """End the daemon with an exit code and a sentence; from any thread."""
    pid: int
    cpu_share: float = 1.0
    """Cores that a task may count on when it asked for none."""
    runtimes: dict[str, LeftRuntime] = field(default_factory=dict)
    """By path of its supervisor: so that a successor can end what a crashed one has left."""
    warned: set[tuple[str, str]] = field(default_factory=set)
    """Swarms, and what each was warned of already."""
    draining: bool = False
    """The node is to end, now or when it has nothing to do: it wants no new work."""
    desired_version: int = -1
    tasks_running: int = 0
    tasks_queued: int = 0


@dataclass(frozen=True)
class Later:
    """To oneself: a future is done. Handle it with `message()`."""

    then: Callable[[Any, BaseException | None], None]
    value: Any
    error: BaseException | None

    def __call__(self) -> None:
        self.then(self.value, self.error)


def later(
    actor: Actor, future: Future[Any], then: Callable[[Any, BaseException | None], None]
) -> None:
    """Call `then(value, error)` in the actor's own thread when the future is done."""
    ref = actor.ref

    def done(future: Future[Any]) -> None:
        error = future.exception()
        try:
            ref.tell(Later(then, None if error else future.result(), error))
        except ActorDead:
            return  # whoever wanted to know is gone

    future.add_done_callback(done)


def tell(actor: Actor, path: str, message: object) -> bool:
    """To whoever lives there now. What is lost while nobody does, its successor asks for."""
    try:
        actor.system.ref(path).tell(message)
    except ActorError as error:
        actor.log.debug("%s not told to %s: %s", type(message).__name__, path, error)
        return False
    return True
