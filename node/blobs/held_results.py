"""Results that stay on the node that made them: files, by swarm, until the swarm is removed."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from manta.transports.blobs.file_depot import FileDepot
from manta.transports.errors import BlobMissing, BlobRefused

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot

_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")


class HeldResults:
    """Thread-safe. At most `most` bytes of all swarms together."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._lock = threading.Lock()
        self._depots = {
            path.name: FileDepot(path)
            for path in sorted(folder.iterdir())
            if path.is_dir() and _NAME.fullmatch(path.name)
        }
        self._where: dict[str, set[str]] = {}
        """By digest: the swarms whose result it is."""
        self._used = 0
        for swarm_id, depot in self._depots.items():
            for digest in depot:
                self._where.setdefault(digest, set()).add(swarm_id)
                self._used += depot.size(digest)

    def __contains__(self, digest: str) -> bool:
        return digest in self._where

    @property
    def swarms(self) -> list[str]:
        """Those of which there are any."""
        with self._lock:
            return list(self._depots)

    def named(self) -> list[tuple[str, str]]:
        """Swarm and digest of each."""
        with self._lock:
            where = self._where.items()
            return [(swarm_id, digest) for digest, swarms in where for swarm_id in swarms]

    def has(self, swarm_id: str, digest: str) -> bool:
        return swarm_id in self._where.get(digest, ())

    def keep(self, swarm_id: str, digest: str, values: TieredDepot) -> None:
        """Keep a value, on the disk when this returns. Raises BlobRefused where that is not to be,
        BlobMissing."""
        size = values.size(digest)
        with self._lock:
            if self.has(swarm_id, digest):
                return
            if not _NAME.fullmatch(swarm_id):
                raise BlobRefused(f"{swarm_id[:80]!r} is no swarm's id")
            if self._used + size > self._most:
                raise BlobRefused(
                    f"no room for a result of {size} bytes: {self._used} of the {self._most} bytes "
                    "are used that results may take here (result_disk_mb)"
                )
            depot = self._depots.get(swarm_id)
            if depot is None:
                try:
                    depot = self._depots[swarm_id] = FileDepot(self._folder / swarm_id)
                except OSError as error:
                    raise BlobRefused(f"no folder for results: {error.strerror}") from error
            self._used += size
        try:
            values.copy_to(depot, digest)
        except BaseException:
            with self._lock:
                self._used -= size
            raise
        with self._lock:
            self._where.setdefault(digest, set()).add(swarm_id)

    def depot_of(self, digest: str) -> FileDepot:
        """One that has it. Raises BlobMissing."""
        with self._lock:
            for swarm_id in self._where.get(digest, ()):
                return self._depots[swarm_id]
        raise BlobMissing(f"the blob {digest[:12]} is no result that is held here")

    def free(self, swarm_id: str) -> None:
        """The swarm was removed."""
        with self._lock:
            depot = self._depots.pop(swarm_id, None)
            if depot is None:
                return
            for digest in [one for one, swarms in self._where.items() if swarm_id in swarms]:
                self._used -= depot.size_here(digest)
                self._where[digest].discard(swarm_id)
                if not self._where[digest]:
                    del self._where[digest]
        shutil.rmtree(self._folder / swarm_id, ignore_errors=True)
