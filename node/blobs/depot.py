"""The node's blobs as its data plane sees them: values of tasks, and what the journal spooled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manta.transports.blobs.sources import FileSource
from manta.transports.errors import BlobMissing

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.transports.blobs.file_depot import FileDepot
    from manta.transports.blobs.interface import Sink, Source


class NodeDepot:
    """Reads from the values, else from the spool; what arrives is a value."""

    def __init__(self, values: TieredDepot, spool: FileDepot) -> None:
        self._values = values
        self._spool = spool

    def __contains__(self, digest: str) -> bool:
        return digest in self._values or digest in self._spool

    def source(self, digest: str) -> Source:
        try:
            return self._values.source(digest)
        except BlobMissing:  # a file may be one that a task holds: it is not mapped
            return FileSource(self._spool.open(digest))

    def sink(self, digest: str, size: int) -> Sink | None:
        return self._values.sink(digest, size)
