"""The manager's folder: its keys, its database, its blobs, and where it listens."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from manta.transports.codec.decoders import json_decoder


class ManagerFile(msgspec.Struct, frozen=True):
    """`manager.json`: there while a manager runs; written after binding."""

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
    """`restored.json`: there once the folder was made from a backup."""

    backup: str
    """Id of the backup."""
    made_at: float
    """When it was made: swarms that were created before have a past that it may not know."""


@dataclass(frozen=True)
class Home:
    path: Path

    @property
    def key(self) -> Path:
        return self.path / "manager.key"

    @property
    def signing_key(self) -> Path:
        return self.path / "signing.key"

    @property
    def database(self) -> Path:
        return self.path / "manta.db"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def lock(self) -> Path:
        """Held while a manager runs."""
        return self.path / "manager.lock"

    @property
    def manager_file(self) -> Path:
        return self.path / "manager.json"

    @property
    def restored_file(self) -> Path:
        return self.path / "restored.json"

    def read_restored_file(self) -> RestoredFile | None:
        """Of the last restoration; None when there was none."""
        try:
            return json_decoder(RestoredFile).decode(self.restored_file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"{self.restored_file} cannot be read ({error}); restore the backup again."
            ) from error

    def read_manager_file(self) -> ManagerFile | None:
        """None when no manager has left one. Says nothing on whether that manager still runs."""
        try:
            return json_decoder(ManagerFile).decode(self.manager_file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"{self.manager_file} cannot be read ({error}); stop the manager and delete it."
            ) from error

    def is_in_use(self) -> bool:
        """Whether a manager runs here: the kernel lets go of its lock however it ends."""
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
        """What the manager that runs here has written.

        A file alone proves nothing: after a crash its process id may be a stranger's.
        """
        found = self.read_manager_file()
        return found if found is not None and self.is_in_use() else None

    def write_manager_file(self, content: ManagerFile) -> None:
        """Readers see the old file or the whole new one."""
        draft = self.manager_file.with_suffix(".new")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
        os.replace(draft, self.manager_file)
