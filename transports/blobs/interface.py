"""Depots, where a process keeps blobs, as the layers above see them.

A blob is known by its digest, BLAKE3 of its bytes as 64 hexadecimal characters, and
never changes. A depot publishes a blob whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from manta.transports.interface import Buffer


class Source(Protocol):
    """A blob that is being read."""

    size: int

    @property
    def ready(self) -> int:
        """Bytes from the front that can be read now: all, unless the blob is still arriving."""

    def read(self, offset: int, length: int) -> Buffer: ...

    def close(self) -> None: ...


class Sink(Protocol):
    """A blob that is being written, from front to back."""

    @property
    def written(self) -> int:
        """Bytes that it holds: where a transfer into it begins."""

    def write(self, data: Buffer) -> None: ...

    def commit(self) -> None:
        """Check the digest and publish the blob; the last call.

        Raises BlobCorrupt, and then nothing is published.
        """

    def abort(self) -> None:
        """Discard what was written; the last call."""


class Depot(Protocol):
    """Keeps blobs. The bulk plane calls it on its own thread."""

    def source(self, digest: str) -> Source:
        """Raises BlobMissing."""

    def sink(self, digest: str, size: int) -> Sink | None:
        """None when the depot holds the blob. Raises BlobRefused when there is no room."""


class ServedDepot(Depot, Protocol):
    """Serves peers that may not all know which blobs it holds."""

    def draft(self, digest: str, size: int) -> Sink:
        """A sink, whether or not the depot holds the blob. Raises BlobRefused when there is no
        room."""
