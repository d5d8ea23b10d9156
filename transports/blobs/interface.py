"""Where blobs are kept, as those see it who read and write them.

A blob is known by its digest, BLAKE3 of its bytes as 64 hexadecimal characters, and
never changes. A depot publishes a blob whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from manta.transports.interface import Buffer


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
