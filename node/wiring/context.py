"""What the actors of one node have in common: made once, before the first of them starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from manta.actors import Actor
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.node.config import NodeConfig
    from manta.node.journal.files import Journals
    from manta.node.runners.interface import Runner, RuntimeHandle
    from manta.node.state import Identity, StateFolder
    from manta.node.task_server.sessions import Sessions
    from manta.transports.blobs.file_depot import FileDepot
    from manta.transports.blobs.interface import Depot
    from manta.transports.bulk.interface import Bulk


@dataclass(frozen=True)
class LeftRuntime:
    """A runtime that is to be ended, whoever started it."""

    session: str
    handle: RuntimeHandle
    scratch: Path


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
