"""One transfer: a source is sent as chunks, and chunks are written into a sink."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manta.transports.bulk.flow import Receiver, Sender
from manta.transports.bulk.wire import Chunk, Credit, compress, pack, payload_of, pays_to_compress

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.blobs.interface import Sink, Source
    from manta.transports.bulk.flow import Allowance
    from manta.transports.interface import Buffer

    Send = Callable[[list[Buffer]], bool]


class Statistics:
    """Bytes of blobs that were moved since the start, before compression."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0


class Outbound:
    """A blob that is sent."""

    def __init__(
        self, transfer: bytes, source: Source, chunk: int, allowance: Allowance, total: Statistics
    ) -> None:
        self.id = transfer
        self.size = source.size
        self.sender = Sender(source.size, chunk, allowance, ready=source.ready)
        self._source = source
        self._total = total
        self._compresses: bool | None = None

    def pump(self, send: Send) -> None:
        """Send what may be sent now; pause if the connection takes no more."""
        while (piece := self.sender.take()) is not None:
            data = self._source.read(piece.offset, piece.length)
            if self._compresses is None:
                self._compresses = pays_to_compress(self._source)
            smaller = compress(data) if self._compresses else None
            header = pack(Chunk(self.id, piece.offset, piece.length, smaller is not None))
            if not send([header, data if smaller is None else smaller]):
                self.sender.pause()
                return
            self._total.sent += piece.length

    def grown(self) -> None:
        """More of the source may be there."""
        self.sender.ready = self._source.ready

    def close(self) -> None:
        self.sender.pause()
        self._source.close()


class Inbound:
    """A blob that is received."""

    def __init__(
        self, transfer: bytes, digest: str, size: int, sink: Sink, window: int, total: Statistics
    ) -> None:
        self.id = transfer
        self.digest = digest
        self.size = size
        self.receiver = Receiver(size, window, received=sink.written)
        self._sink: Sink | None = sink
        self._total = total

    def chunk(self, message: Chunk, payload: Buffer) -> Credit | None:
        """Write a chunk if it is the next one; returns the credit to answer it with, if any.

        Raises RemoteProtocolError, and BulkError when it can't be written.
        """
        assert self._sink is not None
        if not self.receiver.chunk(message.offset, message.length):
            return None
        self._sink.write(payload_of(message, payload))
        self._total.received += message.length
        return Credit(self.id, *self.receiver.position())

    def commit(self) -> None:
        """Raises BulkError, and then nothing is published."""
        assert self._sink is not None
        sink, self._sink = self._sink, None
        sink.commit()

    def close(self) -> None:
        """Discard what was not committed."""
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.abort()
