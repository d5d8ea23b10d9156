"""The manager's folder: its keys, its database, its blobs, and where it listens."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from manta.console.local_manager import SETTINGS
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Thing, read_stored_file

T = TypeVar("T")

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


class RestoredFile(msgspec.Struct, frozen=True):
    """`restored.json`: there if the folder was made from a backup, or its database lost its log."""

    backup: str
    """Id of the backup."""
    made_at: float
    """When the backup was made: it may lack part of the past of swarms created before."""


class ManagerSettings(msgspec.Struct, frozen=True):
    """`settings.json`: what the manager was last started with, and is again unless told otherwise.

    Addresses are `tcp://host:port`, the lease is in seconds.
    """

    nodes: str = "tcp://0.0.0.0:50051"
    users: str = "tcp://0.0.0.0:50052"
    bulk: str = "tcp://0.0.0.0:50053"
    lease: Annotated[float, msgspec.Meta(ge=LEAST_LEASE, le=MOST_LEASE)] = 20.0


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = path / "manager.key"
        self.signing_key = path / "signing.key"
        self.database = path / "manta.db"
        self.database_log = path / "manta.db-wal"
        """There while a manager runs, and after one was killed; the newest changes are in it."""
        self.blobs = path / "blobs"
        self.lock = path / "manager.lock"
        """Held while a manager runs."""
        self.manager_file = path / "manager.json"
        self.restored_file = path / "restored.json"
        self.settings_file = path / SETTINGS

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
        try:
            lock = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def running(self) -> ManagerFile | None:
        """The file of the manager that runs here; None if none runs. Raises Damaged.

        The file alone proves nothing: after a crash another process may have its process id.
        """
        return self.read_manager_file() if self.is_in_use() else None

    def write_manager_file(self, content: ManagerFile) -> None:
        _write(self.manager_file, content)

    def write_restored_file(self, content: RestoredFile) -> None:
        _write(self.restored_file, content)


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
