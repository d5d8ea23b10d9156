"""One node in this process: its state folder, its depots, its tree of actors."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from manta.actors import ActorError, ActorSystem, ChildSpec, ExitReason, SystemClock
from manta.console.exit_codes import Exit
from manta.node.blobs.held_results import HeldResults
from manta.node.blobs.tiered_depot import TieredDepot
from manta.node.capabilities import datasets
from manta.node.config import in_force
from manta.node.environments import Environments, Policy
from manta.node.errors import TokenError
from manta.node.isolation.holding import Holder
from manta.node.journal.files import Journals
from manta.node.peers.book import PeerBook
from manta.node.peers.listening import OFF, PeerSocket, bulk_address
from manta.node.policy.admission import Admission
from manta.node.policy.gate import Gate
from manta.node.policy.records import OwnerRecords
from manta.node.runners.selection import choose_runner, label_of, private
from manta.node.scheduling.room import Capacity
from manta.node.service.supervisor import NodeSupervisor
from manta.node.shared.addresses import ROOT
from manta.node.shared.context import NodeContext
from manta.node.shared.messages import Drain, Leave, Reconfigured
from manta.node.shared.output import TaskOutput
from manta.node.state import Identity, StateFolder, Status, place_of
from manta.node.state.audit import open_log
from manta.node.state.modules import ModuleFolders
from manta.node.state.storage import Storage
from manta.node.task_server.sessions import RuntimeSessions
from manta.protocol.addresses import is_loopback
from manta.protocol.isolation import level_of
from manta.protocol.node import Daemon
from manta.protocol.paths import MANAGER_LINK
from manta.protocol.tokens import NODE_AUDIENCE, UnreadableToken, peek
from manta.protocol.version import VERSION
from manta.transports.addresses import split_host
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.descriptors import descriptor_limit
from manta.transports.zeromq.transport import ZmqTransport

if TYPE_CHECKING:
    from manta.node.config import NodeConfig
    from manta.node.runners.interface import Runner

log = logging.getLogger(__name__)

STOP_TIMEOUT = 20.0
LEAVE_TIMEOUT = 2.0


class Node:
    """Starts when it is made. Raises NodeError or TransportError.

    `on_finish` is called, on another thread, with an exit code and a sentence when the node has
    to end: it was told to, or cannot go on. It must then be stopped.
    """

    def __init__(
        self, config: NodeConfig, state: Path, *, on_finish: Callable[[int, str], None]
    ) -> None:
        datasets.check(config)
        folder = StateFolder(state)
        with contextlib.ExitStack() as undo:
            undo.callback(folder.open().release)
            sentence = f"The node {config.name} is starting."
            address, pid = config.manager_address, os.getpid()
            folder.announce(
                Status(pid, config.name, "starting", sentence, address, config.alias, time.time())
            )
            identity, manager_key = belongs_to(config, folder)
            keys = folder.key()
            give_up = partial(on_finish, Exit.INTERNAL)
            runner = choose_runner(config, folder, keys.public, give_up)
            undo.callback(runner.close)
            for sentence in runner.recover():
                log.warning("%s", sentence)
            room = config.value_memory or _memory() // 4
            sealer = folder.sealer(config.encryption_key_from)
            passing = None if sealer is None else sealer.passing()  # for what ends with the process
            files = FileDepot(folder.values, sync=False, sealer=passing)
            memory = MemoryDepot(room, _values_in_memory(descriptor_limit()))
            values = TieredDepot(memory, files, largest=room // 8)
            undo.callback(values.close)
            spool = FileDepot(folder.spool, sync=False, sealer=sealer)
            journals = Journals(folder.journal, spool, SystemClock().now)
            undo.callback(journals.close)
            peer_socket = blob_socket = bulk_socket = None
            if config.peers_listen != OFF:
                near = is_loopback(config.manager_host)
                peer_socket = PeerSocket(config.peers_listen, config.peers_advertise, near=near)
                undo.callback(peer_socket.close)
                if config.peers_bulk_cipher == "aes":
                    at = bulk_address(config.peers_listen, config.peers_bulk_port)
                    bulk_socket = PeerSocket(at, setting="peers.bulk_port")
                    undo.callback(bulk_socket.close)
                blob_socket = PeerSocket(_host(config.peers_listen), near=near)
                undo.callback(blob_socket.close)
            held = HeldResults(folder.results, config.result_disk, sealer)
            undo.callback(held.close)
            audit = open_log(folder.audit, keys.secret)
            undo.callback(lambda: audit.close(time.time()))
            gate = Gate(audit)
            output = TaskOutput(journals, gate, time.time)
            sessions = RuntimeSessions(
                values, folder.path / "light", output.keep, journals.output_waits
            )
            undo.callback(sessions.close)
            builds = Holder(f"{label_of(keys.public, folder.path)}-build")
            for sentence in builds.recover():
                log.warning("%s", sentence)
            environments = Environments(
                folder.environments,
                Policy(
                    config.requirements_allow,
                    config.requirements_index,
                    config.requirements_sdists,
                    config.requirements_disk,
                ),
                private(config, folder.path),
                config.alias,
                builds,
            )
            undo.callback(environments.close)
            audit.started(time.time(), in_force(config), version=VERSION, pid=pid)
            owner = OwnerRecords(folder.owner)
            self.context = NodeContext(
                config=config,
                state=folder,
                identity=identity,
                manager_key=manager_key,
                journals=journals,
                values=values,
                spool=spool,
                held=held,
                storage=Storage(folder.path, folder.journal, folder.modules, folder.tasks),
                audit=audit,
                owner=owner,
                gate=gate,
                output=output,
                admission=_admission(config, owner, runner),
                modules=ModuleFolders(folder.modules),
                environments=environments,
                runner=runner,
                keys=keys,
                daemon=Daemon(os.urandom(8).hex(), place_of(folder.path), platform.node(), pid),
                sessions=sessions,
                peers=PeerBook(),
                peer_socket=peer_socket,
                bulk_socket=bulk_socket,
                value_memory=room,
                blob_socket=blob_socket,
                finish=on_finish,
                cpu_share=_cpu_share(config),
            )
            capacity = partial(capacity_of, disk=shutil.disk_usage(folder.path).free)
            self.system = ActorSystem(ROOT, transport=ZmqTransport(keys))
            undo.callback(self.system.stop, STOP_TIMEOUT)
            root = self.system.spawn(
                ChildSpec(ROOT, lambda: NodeSupervisor(self.context, capacity))
            )

            def ended(reason: ExitReason) -> None:
                on_finish(Exit.INTERNAL, f"The node's actors gave up: {reason}; see the log.")

            undo.callback(root.watch(ended))
            undo.callback(self._leave)
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """End all tasks, report them INTERRUPTED, and say goodbye to the manager."""
        self._undo.close()

    def reconfigure(self, config: NodeConfig) -> None:
        """Takes over what of a configuration can be, while tasks go on (`config.changes`)."""
        context = self.context
        context.config = config
        context.cpu_share = _cpu_share(config)
        logging.getLogger().setLevel(config.log_level)
        context.audit.reconfigured(time.time(), in_force(config))
        for path in (ROOT, MANAGER_LINK):  # which tells the manager what the others offer
            self.system.ref(path).tell(Reconfigured())

    def drain(self, deadline: float | None) -> None:
        """Takes no new work, and ends once what runs has ended; after `deadline` seconds it ends
        that as well."""
        self.context.audit.drained(time.time(), deadline)
        self.system.ref(ROOT).tell(Drain(deadline))

    def _leave(self) -> None:
        """Tell the manager first, or it may place the tasks that end now on this node again."""
        try:
            self.system.ref(MANAGER_LINK).ask(Leave(), timeout=LEAVE_TIMEOUT)
        except ActorError as error:
            log.info("the manager was not told beforehand that the node stops: %s", error)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _admission(config: NodeConfig, owner: OwnerRecords, runner: Runner) -> Admission | None:
    """Raises ConfigError, Damaged, OSError."""
    if config.policy is None:
        return None
    return Admission(
        config.policy, owner, lambda image: level_of(runner.names, image=image is not None)
    )


def belongs_to(config: NodeConfig, folder: StateFolder) -> tuple[Identity | None, str]:
    """Returns the node's identity, None before it enrols, and its manager's key.

    A token of another manager means that the node moves there. Raises IdentityError, TokenError.
    """
    identity = folder.read_identity()
    if not config.token:
        if identity is not None:
            return identity, identity.manager_key
        missing = (
            f"the environment variable {config.token_variable} is not set"
            if config.token_variable
            else "identity.secured_token is empty"
        )
        raise TokenError(
            f"This node has no token and has not enrolled before: {missing} ({config.path}); get "
            "a token with `manta node token CLUSTER`."
        )
    try:
        claims = peek(config.token)
    except UnreadableToken as error:
        if identity is not None:
            return identity, identity.manager_key
        raise TokenError(f"{config.path}, identity.secured_token: {error}") from error
    if identity is not None and identity.manager_key == claims.manager_key:
        return identity, identity.manager_key
    if claims.audience != NODE_AUDIENCE:
        raise TokenError(
            f"{config.path}, identity.secured_token: this is not a node's token but one for "
            f"{claims.audience!r}; get one with `manta node token CLUSTER`."
        )
    return None, claims.manager_key


def capacity_of(config: NodeConfig, disk: int) -> Capacity:
    """What tasks may take at a time; `disk` is what was free when the node started."""
    return Capacity(
        config.max_concurrent_tasks,
        float(os.cpu_count() or 1),
        max(0, _memory() - config.reserve_memory),
        disk,
        config.scratch,
        config.gpu_enabled,
    )


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _host(listen: str) -> str:
    """Without the port, if any."""
    return split_host(listen.removesuffix(":0"))[0]


def _values_in_memory(descriptors: int) -> int:
    """How many: each takes up to two descriptors, and at most a quarter of all is for them."""
    return min(1024, max(8, descriptors // 8))


def _cpu_share(config: NodeConfig) -> float:
    cores = (os.cpu_count() or 1) * (1 - config.reserve_cpu_percent / 100)
    return max(1.0, cores // max(1, config.max_concurrent_tasks))
