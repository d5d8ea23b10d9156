"""The manager's folder: its keys, its database, its blobs, and where it listens."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from manta.console.local_manager import SETTINGS
from manta.transports.blobs.file_depot import SEALED
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Thing, read_stored_file
from manta.transports.security.folder_key import NAME as KEY_FILE
from manta.transports.security.folder_key import folder_key
from manta.transports.security.strangers import StrangerLimits

if TYPE_CHECKING:
    from manta.transports.blobs.sealing import Sealer
    from manta.transports.security.owner_key import KeySource

T = TypeVar("T")

LOCK_PATIENCE = 0.5  # seconds
LEAST_LEASE, MOST_LEASE = 2.0, 7 * 86400.0
"""Seconds."""


class ManagerFile(msgspec.Struct, frozen=True):
    """`manager.json`: written once the manager listens, removed when it stops."""

    pid: int
    nodes: str
    users: str
    bulk: str
    public_key: str
    """CURVE, Z85: what clients on this machine pin."""
    fingerprint: str
    version: str
    started_at: float


class KeeperFile(msgspec.Struct, frozen=True):
    """`keeper.json`: of the process that starts the manager again when it ends by accident."""

    pid: int
    manager: int
    """The manager's process id; 0 while none runs."""
    starts_again: int
    last_end: str
    """How the manager ended last, in words; "" if it has not."""
    last_end_at: float
    gave_up: bool = False
    """The manager ended too often in a row, and is not started again."""


class RestoredFile(msgspec.Struct, frozen=True):
    """`restored.json`: there if the folder was made from a backup, or its database lost its log."""

    backup: str
    """Id of the backup, and of this restoration of it: what follows each is another timeline."""
    made_at: float
    """When the backup was made: it may lack part of the past of swarms created before."""


class StrangerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What strangers may take of each port; the fields are those of StrangerLimits."""

    patience: Annotated[float, msgspec.Meta(ge=1.0, le=3600.0)] = StrangerLimits.patience
    guests: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = StrangerLimits.guests
    guests_per_source: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = (
        StrangerLimits.guests_per_source
    )
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=100_000.0)] = StrangerLimits.rate
    burst: Annotated[float, msgspec.Meta(ge=1.0, le=100_000.0)] = StrangerLimits.burst
    rate_per_source: Annotated[float, msgspec.Meta(gt=0.0, le=100_000.0)] = (
        StrangerLimits.rate_per_source
    )
    burst_per_source: Annotated[float, msgspec.Meta(ge=1.0, le=100_000.0)] = (
        StrangerLimits.burst_per_source
    )

    @property
    def limits(self) -> StrangerLimits:
        return StrangerLimits(**msgspec.structs.asdict(self))


class ManagerSettings(msgspec.Struct, frozen=True):
    """`settings.json`: what the manager was last started with, and is again unless told otherwise.

    Addresses are `tcp://host:port`, the lease is in seconds.
    """

    nodes: str = "tcp://0.0.0.0:50051"
    users: str = "tcp://0.0.0.0:50052"
    bulk: str = "tcp://0.0.0.0:50053"
    lease: Annotated[float, msgspec.Meta(ge=LEAST_LEASE, le=MOST_LEASE)] = 20.0
    strangers: StrangerSettings = StrangerSettings()
    encryption_key_from: str = ""
    """Where the key is with which blobs are encrypted, as `KeySource`; "" if they are not."""


class StrangersFile(msgspec.Struct, frozen=True):
    """`strangers.json`: what became of strangers since the manager started, in numbers."""

    late: int = 0
    """Guests that were cut, since they had not enrolled or signed in in time."""
    unfinished: int = 0
    """Connections that were cut, since they finished no handshake or said nothing after it."""
    crowded: int = 0
    """Connections that were cut, since too many others came after them."""
    surplus: int = 0
    """Connections that were cut when descriptors ran out, of the user or node that had most."""
    put_off: int = 0
    """Handshakes that were put off, since too many unknown keys came in a second."""


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = path / "manager.key"
        self.signing_key = path / "signing.key"
        self.database = path / "manta.db"
        self.database_log = path / "manta.db-wal"
        """There while a manager runs, and after one was killed; the newest changes are in it."""
        self.blobs = path / "blobs"
        self.encryption = path / KEY_FILE
        """The key of what is encrypted here, itself encrypted with the operator's; there if
        anything is."""
        self.audit = path / "audit"
        """What users did: see `manta.audit`."""
        self.lock = path / "manager.lock"
        """Held while a manager runs."""
        self.log = path / "manager.log"
        """Of a manager in the background."""
        self.manager_file = path / "manager.json"
        self.keeper_file = path / "keeper.json"
        self.keeper_lock = path / "keeper.lock"
        """Held while a process keeps a manager running here."""
        self.strangers_file = path / "strangers.json"
        self.restored_file = path / "restored.json"
        self.settings_file = path / SETTINGS

    def sealer(self, source: KeySource | None) -> Sealer | None:
        """What encrypts blobs, with the operator's key; None where they are not encrypted. Raises
        KeyFileError."""
        key = folder_key(
            self.path,
            source,
            "manta manager start --encryption-key-from",
            lambda: any(True for _ in self.blobs.glob(f"*/*{SEALED}")),
        )
        if key is None:
            return None
        from manta.transports.blobs.sealing import Sealer

        return Sealer(key)

    def read_restored_file(self) -> RestoredFile | None:
        """Describes the last restoration; None if there was none. Raises Damaged."""
        return _read(
            self.restored_file,
            RestoredFile,
            "from which backup this folder was made is not known",
            "restore the backup again, or delete the file",
        )

    def read_manager_file(self) -> ManagerFile | None:
        """None if there is no file. Does not tell whether that manager still runs. Raises
        Damaged."""
        return _read(
            self.manager_file,
            ManagerFile,
            "where a manager that runs here listens is not known",
            "stop the manager, if one runs, and start it again",
        )

    def read_settings(self) -> ManagerSettings:
        """What the manager was last started with. Raises Damaged."""
        settings = _read(
            self.settings_file,
            ManagerSettings,
            "the ports and the lease that the manager had are not known",
            "correct it, or delete it and give them again",
        )
        return settings or ManagerSettings()

    def write_settings(self, settings: ManagerSettings) -> None:
        _write(self.settings_file, settings)

    def is_in_use(self) -> bool:
        """Whether a manager runs here. The kernel releases its lock however it ends."""
        return _is_held(self.lock)

    def running(self) -> ManagerFile | None:
        """The file of the manager that runs here; None if none runs. Raises Damaged.

        The file alone proves nothing: after a crash another process may have its process id.
        """
        return self.read_manager_file() if self.is_in_use() else None

    def read_keeper_file(self) -> KeeperFile | None:
        """Does not tell whether that process still runs. Raises Damaged."""
        return _read(
            self.keeper_file,
            KeeperFile,
            "how often the manager was started again is not known",
            "stop the manager, if one runs, and start it again",
        )

    def is_kept(self) -> bool:
        """Whether a process keeps a manager running here, be it between two of them."""
        return _is_held(self.keeper_lock)

    def keeper(self) -> KeeperFile | None:
        """The file of the process that keeps a manager running here. Raises Damaged."""
        return self.read_keeper_file() if self.is_kept() else None

    def write_keeper_file(self, content: KeeperFile) -> None:
        _write(self.keeper_file, content)

    def write_manager_file(self, content: ManagerFile) -> None:
        _write(self.manager_file, content)

    def read_strangers_file(self) -> StrangersFile:
        """Raises Damaged."""
        strangers = _read(
            self.strangers_file,
            StrangersFile,
            "how many strangers were cut is not known",
            "delete it; a manager that runs writes it again",
        )
        return strangers or StrangersFile()

    def write_strangers_file(self, content: StrangersFile) -> None:
        _write(self.strangers_file, content)

    def write_restored_file(self, content: RestoredFile) -> None:
        _write(self.restored_file, content)


def take_lock(path: Path) -> int:
    """Returns the descriptor that holds the lock; the kernel releases it however this process ends.

    Waits a moment: who looks whether it is held takes it briefly. Raises BlockingIOError, OSError.
    """
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.01)
    except BaseException:
        os.close(lock)
        raise


def _is_held(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _write(path: Path, content: msgspec.Struct) -> None:
    """Writes it atomically: readers see the old file or the whole new one."""
    draft = path.with_suffix(".new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(content)))
    os.replace(draft, path)


def _read(path: Path, kind: type[T], lost: str, remedy: str) -> T | None:
    thing = Thing(str(path), lost, remedy)
    try:
        return read_stored_file(thing, json_decoder(kind).decode, path)
    except FileNotFoundError:
        return None
