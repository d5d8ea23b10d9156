"""The bulk plane as the layers above see it: blobs move apart from control messages.

Values are not compressed in their container (`codec.values`), because a task must read them
without lz4: that is done here, chunk by chunk, when a sample of the blob says that it pays.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.security.admission import Admission

Operation = Literal["push", "fetch"]


class BulkPeer(Protocol):
    """Transfers with one dialled peer; they survive lost connections until `timeout` seconds."""

    def push(self, digest: str, size: int, *, timeout: float) -> Future[None]:
        """Move a blob of this process's depot there; done once the peer has published it."""

    def fetch(self, digest: str, size: int, *, timeout: float) -> Future[None]:
        """Move a blob of the peer's depot here; done once this depot has published it."""

    def close(self) -> None:
        """Idempotent; what is in progress raises BulkError."""


class Bulk(Protocol):
    """One process's bulk plane."""

    def listen(
        self,
        address: str,
        admission: Admission,
        authorize: Callable[[str, Operation, str], bool],
        *,
        fd: int | None = None,
    ) -> str:
        """Serve the depot; returns the address with the port that was taken.

        `authorize(peer_key, operation, digest)` decides on each transfer at its start. `fd` is
        a TCP socket that already listens. Raises AddressInUse.
        """

    def dial(self, address: str, server_key: str) -> BulkPeer:
        """Returns at once; connects when there is something to move."""

    def close(self) -> None:
        """Idempotent; what is in progress raises BulkError."""
