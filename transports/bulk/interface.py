"""Move a blob to or from a peer, never interleaved with control messages.

A blob is content-addressed: its digest is BLAKE3 of its bytes, as 64
hexadecimal characters. This module is the interface; `curve_bulk` is its first form. Values
are not compressed in their container (`values`), because a task must read them without lz4:
that is done here, chunk by chunk, when a sample of the blob says that it pays.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.interface import Buffer
    from manta.transports.security.admission import Admission

Operation = Literal["push", "fetch"]


class Source(Protocol):
    """A sealed blob that is being read."""

    size: int

    def read(self, offset: int, length: int) -> Buffer: ...

    def close(self) -> None: ...


class Sink(Protocol):
    """A blob that is being written, front to back."""

    def write(self, data: Buffer) -> None: ...

    def commit(self) -> None:
        """Check the digest and publish. Raises BlobCorrupt, and then nothing is published.

        Either way it is the last call.
        """

    def abort(self) -> None:
        """Throw away what was written."""


class Depot(Protocol):
    """Where a process keeps blobs. Called on the bulk thread."""

    def source(self, digest: str) -> Source:
        """Raises BlobMissing."""

    def sink(self, digest: str, size: int) -> Sink | None:
        """None when the blob is already here. Raises BlobRefused when there is no room."""


class BulkPeer(Protocol):
    """Transfers with one dialled peer; they are resumed over reconnects until `timeout`."""

    def push(self, digest: str, size: int, *, timeout: float) -> Future[None]:
        """Move a blob of this process's depot there; done once the peer has published it."""

    def fetch(self, digest: str, size: int, *, timeout: float) -> Future[None]:
        """Move a blob of the peer's depot here; done once this depot has published it."""

    def close(self) -> None: ...


class Bulk(Protocol):
    """One process's data plane."""

    def listen(
        self,
        address: str,
        admission: Admission,
        authorize: Callable[[str, Operation, str], bool],
        *,
        fd: int | None = None,
    ) -> str:
        """Serve the depot; returns the address with the port taken.

        `authorize(peer_key, operation, digest)` is asked at each transfer's start.
        """

    def dial(self, address: str, server_key: str) -> BulkPeer: ...

    def close(self) -> None: ...
