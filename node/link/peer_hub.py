"""Moves blobs between this node and its peers; today the manager is the only one.

The data plane starts at the first transfer. A blob that several ask for at a time moves once.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from manta.actors import Actor, ExitReason, Refused, Reply
from manta.node.shared.context import NodeContext
from manta.node.shared.messages import BlobMoved
from manta.protocol.paths import MANAGER_LINK
from manta.protocol.values import BlobRef
from manta.transports.addresses import join_host
from manta.transports.blobs.sources import FileSource
from manta.transports.errors import (
    BlobCorrupt,
    BlobMissing,
    BlobRefused,
    BlobTooLarge,
    TransportError,
)

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.transports.blobs.file_depot import FileDepot
    from manta.transports.blobs.interface import Source
    from manta.transports.bulk.curve import BulkPeer, CurveBulk

log = logging.getLogger(__name__)

TRANSFER_TIMEOUT = 900.0
"""Seconds; a transfer is resumed over reconnects until then."""

BLOB_LOST = "blob-lost"
"""Code of a refusal: this node no longer has the blob that was to be pushed."""

BLOB_TOO_LARGE = "blob-too-large"
"""Code of a refusal: the manager will never take the blob."""

BLOB_REFUSED = "blob-refused"
"""Code of a refusal: there is no room for the blob where it was to go."""

MEASURED = 256 * 1024
"""Bytes from which on a transfer measures the link."""


class Fetch(msgspec.Struct, frozen=True):
    """Answered when the blob is in the memory depot."""

    blob: BlobRef


class Push(msgspec.Struct, frozen=True):
    """Answered when the manager holds the blob."""

    blob: BlobRef


class BulkAddress(msgspec.Struct, frozen=True):
    """Where the manager moves blobs, as the context has it from now on."""

    address: str


class NodeDepot:
    """As the data plane sees it: reads values, else what is spooled; what arrives is a value."""

    def __init__(self, values: TieredDepot, spool: FileDepot) -> None:
        self._values = values
        self._spool = spool
        self.sink = values.sink

    def __contains__(self, digest: str) -> bool:
        return digest in self._values or digest in self._spool

    def source(self, digest: str) -> Source:
        try:
            return self._values.source(digest)
        except BlobMissing:  # a file may be one that a task holds: it is not mapped
            return FileSource(self._spool.open(digest))

    def without_damaged(self, blob: BlobRef) -> Refused | None:
        """Delete copies whose bytes no longer have their digest; says so if none is left."""
        digest = blob.digest
        self._values.drop_damaged(digest, again=True)
        if digest in self._spool and not self._spool.is_whole(digest):
            log.error("%s is damaged: it is deleted", self._spool.path(digest))
            self._spool.delete(digest)
        return None if digest in self else _lost(blob)


class PeerHub(Actor):
    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._depot = NodeDepot(context.values, context.spool)
        self._bulk: CurveBulk[NodeDepot] | None = None
        self._address = ""
        self._peer: BulkPeer | None = None
        self._moving: dict[Fetch | Push, list[Reply]] = {}

    def on_start(self) -> None:
        self._connect(self._context.bulk_address)

    def on_stop(self, reason: ExitReason) -> None:
        if self._bulk is not None:
            self._bulk.close()

    def receive(self, message: Any) -> Any:
        match message:
            case Fetch(blob):
                if blob.digest not in self._context.values:
                    self._move(message, self.defer())
            case Push(blob):
                if blob.digest not in self._depot:
                    raise _lost(blob)
                self._move(message, self.defer())
            case BulkAddress(address):
                self._connect(address)
            case _:
                return super().receive(message)
        return None

    def _move(self, wanted: Fetch | Push, reply: Reply) -> None:
        waiting = self._moving.setdefault(wanted, [])
        waiting.append(reply)
        if len(waiting) == 1 and self._address:
            self._start(wanted)

    def _connect(self, address: str) -> None:
        if address == self._address:
            return
        self._address = address
        if self._peer is not None:
            self._peer.close()
            self._peer = None
        for wanted in list(self._moving):
            self._start(wanted)

    def _start(self, wanted: Fetch | Push) -> None:
        if self._bulk is None:
            from manta.transports.bulk.curve import CurveBulk  # costs a thread

            self._bulk = CurveBulk(self._context.keys, self._depot)
        if self._peer is None:
            self._peer = self._bulk.dial(self._address, self._context.manager_key)
        blob, address, began = wanted.blob, self._address, self.clock.now()
        move = self._peer.fetch if isinstance(wanted, Fetch) else self._peer.push
        future: Future[None] = move(blob.digest, blob.size, timeout=TRANSFER_TIMEOUT)

        def ended(_: Any, error: BaseException | None) -> None:
            if error is not None and address != self._address:
                return  # started again with the manager's other address
            if isinstance(wanted, Push) and isinstance(error, BlobCorrupt):
                error = self._depot.without_damaged(blob) or error
            if error is None and blob.size >= MEASURED:
                self.notify(MANAGER_LINK, BlobMoved(blob.size, self.clock.now() - began))
            for reply in self._moving.pop(wanted, ()):
                reply.fail(_refusal(wanted, error)) if error else reply.set(None)

        self.pipe(future, ended)


def bulk_address(announced: str, host: str) -> str:
    """Replaces an announced wildcard address by the host that was dialled."""
    scheme, _, rest = announced.rpartition("://")
    name, _, port = rest.rpartition(":")
    if name in ("", "*", "0.0.0.0", "[::]"):
        return f"{scheme or 'tcp'}://{join_host(host, int(port))}"
    return announced


def _lost(blob: BlobRef) -> Refused:
    return Refused(BLOB_LOST, f"This node no longer has the blob {blob.digest[:12]}.")


def _refusal(wanted: Fetch | Push, error: BaseException) -> BaseException:
    if not isinstance(error, TransportError):
        return error
    codes: dict[type[TransportError], str] = {
        BlobMissing: "blob-missing",
        BlobRefused: BLOB_REFUSED,
        BlobTooLarge: BLOB_TOO_LARGE,
        BlobCorrupt: "blob-corrupt",
    }
    way = "fetched from" if isinstance(wanted, Fetch) else "pushed to"
    return Refused(
        codes.get(type(error), "bulk"),
        f"A value of {wanted.blob.size} bytes ({wanted.blob.digest[:12]}) could not be {way} the "
        f"manager: {error}",
    )
