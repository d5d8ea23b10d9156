"""Move a blob to or from a peer, never interleaved with control messages.

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
