"""The manager's folder: its keys, its database, its blobs, and where it listens."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec


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

    def read_manager_file(self) -> ManagerFile | None:
        """None when no manager has left one. Says nothing on whether that manager still runs."""
        try:
            return msgspec.json.decode(self.manager_file.read_bytes(), type=ManagerFile)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(
                f"{self.manager_file} cannot be read ({error}); stop the manager and delete it."
            ) from error

    def write_manager_file(self, content: ManagerFile) -> None:
        """Readers see the old file or the whole new one."""
        draft = self.manager_file.with_suffix(".new")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
        os.replace(draft, self.manager_file)
