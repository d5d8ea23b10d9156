"""The node's blobs as its data plane sees them: in memory, and what the journal spooled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manta.transports.errors import BlobMissing

if TYPE_CHECKING:
    from manta.transports.blobs import FileDepot, MemoryDepot
    from manta.transports.bulk import Sink, Source


class NodeDepot:
    """Reads from memory, else from the spool; what arrives goes to memory."""

    def __init__(self, memory: MemoryDepot, spool: FileDepot) -> None:
        self._memory = memory
        self._spool = spool

    def __contains__(self, digest: str) -> bool:
        return digest in self._memory or digest in self._spool

    def source(self, digest: str) -> Source:
        try:
            return self._memory.source(digest)
        except BlobMissing:
            return self._spool.source(digest)

    def sink(self, digest: str, size: int) -> Sink | None:
        return self._memory.sink(digest, size)
