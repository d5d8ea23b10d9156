"""Results that stay on the node that made them: files, by swarm, until the swarm is
removed, or users delete them."""

from __future__ import annotations

import logging
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from manta.transports.blobs.file_depot import FileDepot
from manta.transports.errors import BlobMissing, BlobRefused

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.transports.blobs.sealing import Sealer

log = logging.getLogger(__name__)

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")


class HeldResults:
    """Thread-safe. At most `most` bytes of all swarms together."""

    def __init__(self, folder: Path, most: int, sealer: Sealer | None = None) -> None:
        self._sealer = sealer
        self._folder = folder
        self._most = most
        self._changed = threading.Condition()
        """Of what is being copied; its lock is that of all the rest."""
        self._depots = {
            path.name: FileDepot(path, sealer=sealer)
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
        self._arriving: set[tuple[str, str]] = set()
        """Swarms and digests of what is being copied."""
        self._unsaid: Counter[tuple[str, str]] = Counter()
        """How many results of this value are kept, and not in the journal yet."""
        self._keeps = 0
        self._kept: dict[tuple[str, str], int] = {}
        """The number of the last call that kept it."""
        self._worker = ThreadPoolExecutor(1, "manta-held-results")

    def close(self) -> None:
        """Waits for what is being copied."""
        self._worker.shutdown()

    def __contains__(self, digest: str) -> bool:
        return digest in self._where

    @property
    def swarms(self) -> list[str]:
        """Those of which there are any, or were."""
        with self._changed:
            return list(self._depots)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """By swarm: how many values it has, and their bytes."""
        with self._changed:
            found: dict[str, tuple[int, int]] = {}
            for digest, swarms in self._where.items():
                for swarm_id in swarms:
                    count, size = found.get(swarm_id, (0, 0))
                    size += self._depots[swarm_id].size_here(digest)
                    found[swarm_id] = count + 1, size
            return found

    def named(self) -> list[tuple[str, str]]:
        """Swarm and digest of each."""
        with self._changed:
            where = self._where.items()
            return [(swarm_id, digest) for digest, swarms in where for swarm_id in swarms]

    def has(self, swarm_id: str, digest: str) -> bool:
        return swarm_id in self._where.get(digest, ())

    def soon(self, call: Callable[..., T], *args: object) -> Future[T]:
        """Have it called on another thread, as what takes the disk's time is, one after another."""
        return self._worker.submit(call, *args)

    def keep(self, swarm_id: str, digest: str, values: TieredDepot) -> None:
        """Keep a value, on the disk when this returns; it is not deleted before `said`. Raises
        BlobRefused where that is not to be, BlobMissing."""
        size, key = values.size(digest), (swarm_id, digest)
        with self._changed:
            self._changed.wait_for(lambda: key not in self._arriving)
            self._keeps += 1
            if self.has(swarm_id, digest):
                self._kept[key] = self._keeps
                self._unsaid[key] += 1
                return
            depot = self._depot_for(swarm_id, size)
            self._used += size
            self._arriving.add(key)
        failure: BaseException | None = None
        try:
            values.copy_to(depot, digest)
        except BaseException as error:
            failure = error
        with self._changed:
            self._arriving.discard(key)
            self._changed.notify_all()
            is_over = self._depots.get(swarm_id) is not depot
            if is_over or failure is not None:
                self._used -= size
                if swarm_id not in self._depots:
                    shutil.rmtree(self._folder / swarm_id, ignore_errors=True)
                raise failure or BlobRefused(f"the swarm {swarm_id} was removed meanwhile")
            self._where.setdefault(digest, set()).add(swarm_id)
            self._kept[key] = self._keeps
            self._unsaid[key] += 1

    def _depot_for(self, swarm_id: str, size: int) -> FileDepot:
        """Raises BlobRefused."""
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
                place = self._folder / swarm_id
                depot = self._depots[swarm_id] = FileDepot(place, sealer=self._sealer)
            except OSError as error:
                raise BlobRefused(f"no folder for results: {error.strerror}") from error
        return depot

    def said(self, swarm_id: str, digest: str) -> None:
        """A result for which it was kept is in the journal by now, or is none."""
        key = swarm_id, digest
        with self._changed:
            self._unsaid[key] -= 1
            if self._unsaid[key] <= 0:
                del self._unsaid[key]

    def depot_of(self, digest: str) -> FileDepot:
        """One that has it. Raises BlobMissing."""
        with self._changed:
            for swarm_id in self._where.get(digest, ()):
                return self._depots[swarm_id]
        raise BlobMissing(f"the blob {digest[:12]} is no result that is held here")

    def drop_damaged(self, digest: str) -> None:
        """Delete it where its bytes no longer have its digest."""
        for swarm_id in list(self._where.get(digest, ())):
            depot = self._depots.get(swarm_id)
            try:
                if depot is None or depot.is_whole(digest):
                    continue
            except BlobMissing:
                pass
            log.error("the result %s of swarm %s is damaged: it is deleted", digest, swarm_id)
            with self._changed:
                self._forget(swarm_id, digest)

    def needed(self, swarm_id: str) -> tuple[int, set[str]]:
        """How often something was kept so far, and the digests of what the swarm keeps just now, or
        has yet to say in the journal."""
        with self._changed:
            keys = self._arriving | self._unsaid.keys()
            return self._keeps, {digest for id_, digest in keys if id_ == swarm_id}

    def drop(self, swarm_id: str, digest: str, since: int) -> bool:
        """Delete it, unless it is kept just now, or was after so many times that something was;
        whether it is gone."""
        key = swarm_id, digest
        with self._changed:
            is_kept = key in self._arriving or key in self._unsaid
            if is_kept or self._kept.get(key, 0) > since:
                return False
            self._forget(swarm_id, digest)
        return True

    def _forget(self, swarm_id: str, digest: str) -> None:
        depot, swarms = self._depots.get(swarm_id), self._where.get(digest, set())
        self._kept.pop((swarm_id, digest), None)
        if depot is None or swarm_id not in swarms:
            return
        self._used -= depot.size_here(digest)
        depot.delete(digest)
        swarms.discard(swarm_id)
        if not swarms:
            del self._where[digest]

    def free(self, swarm_id: str) -> None:
        """The swarm was removed."""
        with self._changed:
            depot = self._depots.get(swarm_id)
            if depot is None:
                return
            for digest in [one for one, swarms in self._where.items() if swarm_id in swarms]:
                self._forget(swarm_id, digest)
            del self._depots[swarm_id]
        shutil.rmtree(self._folder / swarm_id, ignore_errors=True)
