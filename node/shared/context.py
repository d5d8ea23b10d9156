"""What a node's actors share. It is made once, before the first of them starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from manta.node.blobs.named_values import NamedValues
from manta.node.shared.addresses import ROOT
from manta.node.shared.messages import TroubleChanged
from manta.node.state.kept_sizes import KeptSizes
from manta.protocol.node import Load
from manta.protocol.paths import MANAGER_LINK

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from manta.actors import Actor
    from manta.node.blobs.held_results import HeldResults
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.node.config import NodeConfig
    from manta.node.environments import Environments
    from manta.node.journal.files import Journals
    from manta.node.peers.book import PeerBook
    from manta.node.peers.listening import PeerSocket
    from manta.node.policy.admission import Admission
    from manta.node.policy.gate import Gate
    from manta.node.policy.records import OwnerRecords
    from manta.node.runners.gpus import Gpu
    from manta.node.runners.interface import Runner, RuntimeHandle
    from manta.node.shared.output import TaskOutput
    from manta.node.state import Identity, StateFolder
    from manta.node.state.audit import NodeAudit
    from manta.node.state.modules import ModuleFolders
    from manta.node.state.storage import Storage
    from manta.node.task_server.sessions import RuntimeSessions
    from manta.protocol.node import Daemon
    from manta.transports.blobs.file_depot import FileDepot
    from manta.transports.security.keys import KeyPair


@dataclass(frozen=True)
class LeftRuntime:
    """A runtime that runs: its supervisor, or the successor of one that crashed, ends it."""

    session: str
    handle: RuntimeHandle
    scratch: Path
    ended: Future[Any]
    """Done once it has ended."""
    gpus: tuple[str, ...] = ()
    """The ids of those that it has."""
    disk: int | None = None
    """Bytes that it asked for."""


@dataclass
class NodeContext:
    config: NodeConfig
    state: StateFolder
    identity: Identity | None
    """None until the node has enrolled. Only the manager's link replaces it."""
    manager_key: str
    """The key that the connection pins; from the identity, or from the token."""
    journals: Journals
    values: TieredDepot
    spool: FileDepot
    held: HeldResults
    storage: Storage
    audit: NodeAudit
    owner: OwnerRecords
    admission: Admission | None
    """What its owner allows; None on a node without a policy."""
    gate: Gate
    output: TaskOutput
    modules: ModuleFolders
    environments: Environments
    runner: Runner
    keys: KeyPair
    daemon: Daemon
    sessions: RuntimeSessions
    peers: PeerBook
    peer_socket: PeerSocket | None
    """Where other nodes connect; None on a node that only dials."""
    bulk_socket: PeerSocket | None
    """Where its plane takes large values; None if it takes none at a port of their own."""
    value_memory: int
    """Bytes of values of tasks that may be kept in memory."""
    blob_socket: PeerSocket | None
    """Where they fetch blobs; None on a node that only dials."""
    finish: Callable[[int, str], None]
    """Ends the daemon with an exit code and a sentence. May be called from any thread."""
    cpu_share: float = 1.0
    """Cores that a task may count on when it asked for none."""
    runtimes: dict[str, LeftRuntime] = field(default_factory=dict)
    """By the path of the supervisor."""
    on_gpus: dict[tuple[str, str], LeftRuntime] = field(default_factory=dict)
    """By that and their session: those with GPUs, until they have ended."""
    warned: set[tuple[str, str]] = field(default_factory=set)
    """Swarms, and the warnings that each has had."""
    named: NamedValues = field(default_factory=NamedValues)
    kept_sizes: KeptSizes = field(default_factory=KeptSizes)
    bulk_address: str = ""
    """Where the manager moves blobs; "" until the node has registered."""
    is_registered: bool = False
    """The manager has registered the node over the connection that there is."""
    has_rooms: bool = False
    """The manager bounds what tasks tell others, and is asked for room."""
    has_audit: bool = False
    """The manager keeps where this node's audit log ends."""
    has_holds: bool = False
    """The manager takes that an attempt waits for the owner."""
    has_spreads: bool = False
    """The manager is asked whom to fetch a blob from."""
    spools: tuple[str, ...] = ()
    """Swarms of which the disk keeps what tasks told each other, as the plane's keeper last saw."""
    load: Load = field(default_factory=Load)
    """The machine's, at most a sample old."""
    gpus: tuple[Gpu, ...] = ()
    """The machine's, as it was last looked at; none if tasks may use none."""
    gpu_room: tuple[int, ...] = ()
    """What of each of them no task has reserved."""
    leaving: str = ""
    """Why what runs is ended with the node, if there is more to say than that it stops."""
    draining: bool = False
    """The node takes no new work: it ends now, or once it has nothing left to do."""
    desired_version: int = -1
    tasks_running: int = 0
    tasks_queued: int = 0

    def check_storage(self, actor: Actor) -> None:
        """Look whether the disk takes anything, and tell who gives out work of a change, before
        the actor tells them anything else."""
        if self.storage.check():
            actor.notify(MANAGER_LINK, TroubleChanged())
            actor.notify(ROOT, TroubleChanged())
