"""The blobs of a node as its bulk transfers see them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from manta.transports.errors import BlobMissing

if TYPE_CHECKING:
    from manta.node.blobs.held_results import HeldResults
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.transports.blobs.file_depot import FileDepot
    from manta.transports.blobs.interface import Sink, Source
    from manta.transports.interface import Buffer

log = logging.getLogger(__name__)


class NodeDepot:
    """Reads values, else results that stay here and what is spooled. Nobody pushes to a node."""

    def __init__(self, values: TieredDepot, spool: FileDepot, held: HeldResults) -> None:
        self._values = values
        self._spool = spool
        self._held = held

    def __contains__(self, digest: str) -> bool:
        return digest in self._values or digest in self._spool or digest in self._held

    def sink(self, digest: str, size: int) -> Sink | None:
        return self._values.sink(digest, size)

    def draft(self, digest: str, size: int) -> Sink:
        return self._values.draft(digest, size)

    def open(self, digest: str) -> int:
        """A descriptor of a value, which the caller closes. Raises BlobMissing."""
        return self._values.open(digest)

    def source(self, digest: str) -> Source:
        """It stays in the node's memory or files while it is read. Raises BlobMissing."""
        try:
            return _Pinned(self._values, digest)
        except BlobMissing:  # a file may be one that a task holds: it is not mapped
            depot = self._held.depot_of(digest) if digest in self._held else self._spool
            return depot.unmapped(digest)

    def without_damaged(self, digest: str) -> bool:
        """Delete copies whose bytes no longer have their digest; whether any is left."""
        self._values.drop_damaged(digest, again=True)
        self._held.drop_damaged(digest)
        if digest in self._spool and not self._spool.is_whole(digest):
            log.error("%s is damaged: it is deleted", self._spool.path(digest))
            self._spool.delete(digest)
        return digest in self


class _Pinned:
    """A Source of a value."""

    def __init__(self, values: TieredDepot, digest: str) -> None:
        values.pin(digest)
        self._values, self._digest = values, digest
        self._is_open = True
        try:
            self._source = values.source(digest)
        except BaseException:
            self.close()
            raise
        self.size = self.ready = self._source.size

    def read(self, offset: int, length: int) -> Buffer:
        return self._source.read(offset, length)

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            try:
                self._values.unpin(self._digest)
            except BlobMissing:  # it was found damaged, and deleted
                return
            finally:
                if hasattr(self, "_source"):
                    self._source.close()
