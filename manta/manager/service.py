"""Runs one manager in this process: its folder, its store and its tree of actors."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from manta.actors import ActorSystem, ChildSpec, ChildType, ExitReason, Supervisor
from manta.audit.log import AuditLog
from manta.audit.records import Record
from manta.manager import bootstrap
from manta.manager.audit import log_of, signing_seed
from manta.manager.auth.passwords import AT_A_TIME
from manta.manager.auth.tokens import TokenAuthority, new_seed
from manta.manager.blobs import Blobs
from manta.manager.cluster.clusters import Clusters
from manta.manager.context import ROOT, Context, Listening
from manta.manager.disk import Disk
from manta.manager.errors import StartError
from manta.manager.gateway.gateway import Gateway
from manta.manager.home import (
    Home,
    ManagerFile,
    ManagerSettings,
    RestoredFile,
    StrangerSettings,
    StrangersFile,
    take_lock,
)
from manta.manager.quotas import memory
from manta.manager.quotas.ledger import Ledger
from manta.manager.quotas.limits import Limits
from manta.manager.quotas.quotas import Quotas
from manta.manager.quotas.threads import live_swarms
from manta.manager.store.actor import StoreActor
from manta.manager.store.interface import Store
from manta.manager.store.records import QuotaRecord
from manta.manager.store.sqlite import SqliteStore, is_new
from manta.protocol.tokens import fingerprint
from manta.protocol.version import VERSION
from manta.transports.addresses import join_address, split_address
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.codec.stored import Damaged
from manta.transports.descriptors import descriptor_limit
from manta.transports.errors import remedied
from manta.transports.interface import Transport
from manta.transports.relay.server import RelayingTransport
from manta.transports.security.keys import KeyPair, make_private_folder, write_private
from manta.transports.security.owner_key import KeySource

WORKERS = 2
STOP_TIMEOUT = 10.0
BACKLOG = 1024

log = logging.getLogger("manta.manager")


@dataclass(frozen=True)
class Settings:
    """Addresses are `tcp://host:port`; port 0 takes any free one."""

    home: Path
    nodes: str = ManagerSettings().nodes
    users: str = ManagerSettings().users
    bulk: str = ManagerSettings().bulk
    fds: tuple[int | None, int | None, int | None] = (None, None, None)
    """Sockets that the parent process already listens on at these addresses."""
    bootstrap: Path | None = None
    lease: float = ManagerSettings().lease
    """Seconds without a sign of life after which a node counts as lost."""
    strangers: StrangerSettings = ManagerSettings().strangers
    encryption_key_from: KeySource | None = None
    """Where the key is with which blobs are encrypted; None if they are not."""


class ManagerSupervisor(Supervisor):
    """The root of the manager's tree."""

    intensity = 10
    period = 60.0

    def __init__(self, context: Context) -> None:
        self._context = context

    def children(self) -> list[ChildSpec]:
        """The Gateway is last, so that messages from outside find all others running."""
        context = self._context
        return [
            ChildSpec(
                "store",
                partial(
                    StoreActor,
                    context.open_store,
                    context.workers,
                    partial(context.note_trouble, "store"),
                    context.quotas.ledger.stored,
                ),
            ),
            ChildSpec("blobs", partial(Blobs, context)),
            ChildSpec("clusters", partial(Clusters, context), type=ChildType.SUPERVISOR),
            ChildSpec("gateway", partial(Gateway, context)),
        ]


class Manager:
    """The constructor starts it; raises StartError, StoreError or TransportError.

    `open_store` and `transport` replace the SQLite store and the ZeroMQ control plane. `on_end`
    is called on another thread when the tree of actors ends by itself.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_store: Callable[[], Store] | None = None,
        transport: Callable[[KeyPair], Transport] | None = None,
        on_end: Callable[[ExitReason], None] | None = None,
    ) -> None:
        self.home = home = Home(settings.home)
        self.first_password = ""
        """The password of `bootstrap.ADMIN` if this is the first start; kept nowhere else."""
        with _disk_told(home), contextlib.ExitStack() as undo:
            make_private_folder(home.path)
            was_killed = self._lock(undo)
            if open_store is None:
                _check_database(home, was_killed=was_killed)
                open_store = partial(SqliteStore, home.database)
            reader = open_store()
            undo.callback(reader.close)
            keys = _keys(home)
            disk = Disk(home.blobs)
            sealer = home.sealer(settings.encryption_key_from)
            depot = FileDepot(home.blobs, reserve=disk.reserve, sealer=sealer)
            seed = _signing_seed(home)
            audit = log_of(home, seed)
            undo.callback(audit.close)
            workers = ThreadPoolExecutor(WORKERS, "manager-worker")
            undo.callback(workers.shutdown, cancel_futures=True)
            hashers = ThreadPoolExecutor(AT_A_TIME, "manager-hasher")
            undo.callback(hashers.shutdown, cancel_futures=True)
            self.context = Context(
                keys=keys,
                authority=TokenAuthority(seed, keys.public),
                open_store=open_store,
                reader=reader,
                depot=depot,
                quotas=Quotas(
                    Limits(reader.all(QuotaRecord)),
                    Ledger(depot.size_here),
                    live_swarms(),
                    memory.here(),
                ),
                disk=disk,
                audit=audit,
                workers=workers,
                hashers=hashers,
                nodes=_listen(settings.nodes, settings.fds[0], undo),
                users=_listen(settings.users, settings.fds[1], undo),
                bulk=_listen(settings.bulk, settings.fds[2], undo),
                started_at=time.time(),
                restored=_restored(home),
                lease=settings.lease,
                limits=settings.strangers.limits.within(descriptor_limit()),
            )
            _note(audit, "manager-started", version=VERSION, pid=os.getpid())
            undo.callback(_note, audit, "manager-stopped", pid=os.getpid())
            # Last, because a start that failed after it would lose the password for good.
            if bootstrap.is_empty(reader):
                self._populate(reader, settings.bootstrap)
            self.context.quotas.ledger.load(reader)
            if transport is None:
                context = self.context
                transport = partial(
                    RelayingTransport, may=context.may_relay, serves=context.is_node
                )
            self.system = ActorSystem(ROOT, transport=transport(keys))
            undo.callback(self.system.stop, STOP_TIMEOUT)
            self.root = self.system.spawn(ChildSpec(ROOT, lambda: ManagerSupervisor(self.context)))
            if on_end is not None:
                undo.callback(self.root.watch(on_end))
            home.write_manager_file(self.file)
            file = self.file
            home.write_settings(
                ManagerSettings(
                    file.nodes,
                    file.users,
                    file.bulk,
                    settings.lease,
                    settings.strangers,
                    str(settings.encryption_key_from or ""),
                )
            )
            self._counted = StrangersFile()
            home.write_strangers_file(self._counted)
            undo.callback(home.manager_file.unlink, missing_ok=True)
            self._undo = undo.pop_all()

    @property
    def file(self) -> ManagerFile:
        context = self.context
        return ManagerFile(
            pid=os.getpid(),
            nodes=context.nodes.address,
            users=context.users.address,
            bulk=context.bulk.address,
            public_key=context.keys.public,
            fingerprint=fingerprint(context.keys.public),
            version=VERSION,
            started_at=context.started_at,
        )

    def note_strangers(self) -> None:
        """Writes what became of strangers, if that has changed. Raises OSError."""
        now = StrangersFile(**self.context.tally.counts())
        if now != self._counted:
            self.home.write_strangers_file(now)
            self._counted = now

    def stop(self) -> None:
        """Stops it in order: nothing that was acknowledged is lost. Idempotent."""
        self._undo.close()

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _lock(self, undo: contextlib.ExitStack) -> bool:
        """Keeps a second manager off the database: each would know only half of what happened.

        Returns whether the last one that ran here was killed.
        """
        try:
            undo.callback(os.close, take_lock(self.home.lock))
            was_killed = self.home.manager_file.exists()
            self.home.manager_file.unlink(missing_ok=True)
            return was_killed
        except BlockingIOError:
            other = None
            with contextlib.suppress(Damaged):  # which costs the sentence the process id
                other = self.home.read_manager_file()
            raise StartError(
                f"another manager{f' (pid {other.pid})' if other else ''} uses {self.home.path}; "
                "stop it (manta manager stop), or give this one another --home."
            ) from None
        except OSError as error:
            raise StartError(f"{self.home.lock} cannot be written: {error.strerror}.") from error

    def _populate(self, store: Store, file: Path | None) -> None:
        if file is not None:
            content = bootstrap.read(file)
            bootstrap.apply(store, content)
            nodes = [node.alias for node in content.nodes]
            _note(self.context.audit, "first-user", email=content.admin.email, nodes=nodes)
        else:
            self.first_password = bootstrap.first_admin(store)
            _note(self.context.audit, "first-user", email=bootstrap.ADMIN)


def _listen(address: str, fd: int | None, undo: contextlib.ExitStack) -> Listening:
    """Raises StartError, LocalTransportError."""
    if fd is not None:
        return Listening(address, fd)
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()  # all of IPv4, too
    try:
        listener = socket.create_server(
            ("" if host == "*" else host, port),
            family=family,
            backlog=BACKLOG,
            dualstack_ipv6=both,
        )
    except OSError as error:
        words = str(error.strerror or error).partition(" (while")[0]  # the address is named already
        remedy = {
            errno.EADDRINUSE: "stop what listens there, or choose another port",
            errno.EACCES: "choose a port from 1024 on",
        }.get(error.errno or 0, "give an address of this machine")
        raise StartError(f"it cannot listen on {address}: {words}; {remedy}.") from error
    undo.enter_context(listener)
    taken: int = listener.getsockname()[1]
    return Listening(join_address(host, taken), listener.fileno())


@contextlib.contextmanager
def _disk_told(home: Home) -> Iterator[None]:
    """Raises StartError where the disk does not take what a start writes."""
    try:
        yield
    except OSError as error:
        path = error.filename or home.path
        raise StartError(f"{path} cannot be written: {remedied(error)}.") from error


def _check_database(home: Home, *, was_killed: bool) -> None:
    """The signing key is made after the database: where it is alone, the database was lost.
    Raises StartError, StoreError."""
    lost_log = was_killed and not home.database_log.exists()  # before it is opened and folded in
    if is_new(home.database):
        if home.signing_key.exists():
            _signing_seed(home)  # if it is damaged as well, that is said first
            raise StartError(
                f"{home.path} has the keys of a manager, and its database {home.database.name} is "
                "gone or empty: users, nodes and swarms are lost with it. Put it and its -wal "
                "file back, or restore a backup (manta manager restore --replace); to begin "
                "anew, move the folder away."
            )
    elif lost_log:
        log.error(
            "%s is gone, with the newest changes of the database: what nodes have reported since "
            "the last of them is lost, and tasks that run are run again. If you have the file, "
            "stop the manager and put it back, with the database that it belongs to.",
            home.database_log,
        )
        now = time.time()
        home.write_restored_file(RestoredFile(f"without its log at {now:.3f}", now))


def _keys(home: Home) -> KeyPair:
    if home.key.exists():
        return KeyPair.load(home.key)
    pair = KeyPair.generate()
    pair.save(home.key)
    return pair


def _restored(home: Home) -> RestoredFile | None:
    try:
        return home.read_restored_file()
    except Damaged as error:
        raise StartError(str(error)) from None


def _signing_seed(home: Home) -> bytes:
    if not home.signing_key.exists():
        write_private(home.signing_key, new_seed().hex() + "\n")
    try:
        return signing_seed(home)
    except ValueError as error:
        raise StartError(
            f"{error}: restore it from a backup, or delete it; then all tokens must be issued "
            "again, and whoever verifies the audit log has to name the public key that it had."
        ) from None


def _note(audit: AuditLog, act: str, **about: object) -> None:
    audit.record(Record(time.time(), act, about=about))
