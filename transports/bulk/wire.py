"""The wire format of bulk transfers: messages, versions, compressed chunks.

A message is one frame: the version byte, then msgpack. A chunk's bytes are a second
frame. The side that opens a transfer chooses its id, and reopens it under that id after
a lost connection.

    push    OpenPush ->  <- Accept   Chunk... ->  <- Credit...   <- Done | Failed
    fetch   OpenFetch -> <- Accept   <- Chunk...   Credit... ->  (all received) | <- Failed
    either  Cancel ->

A chunk is compressed with lz4 when a sample of its blob says that it pays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import lz4.block
import msgspec

from manta.transports.codec.decoders import MALFORMED
from manta.transports.errors import (
    BlobCorrupt,
    BlobMissing,
    BlobRefused,
    BlobTooLarge,
    BulkError,
    RemoteProtocolError,
    VersionMismatch,
)

if TYPE_CHECKING:
    from manta.transports.blobs.interface import Source
    from manta.transports.interface import Buffer

VERSION = 1
MAX_CHUNK = 1 << 20
MAX_HEADER = 4096
_SAMPLE = 16 * 1024
_PAYS = 0.75  # a byte costs CURVE more than lz4: the compressed share up to which lz4 pays

TransferId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]


class _Message(msgspec.Struct, frozen=True, array_like=True):
    id: TransferId


class OpenPush(_Message, frozen=True, tag=1):
    """The peer is to take this blob."""

    digest: Digest
    size: Bytes


class OpenFetch(_Message, frozen=True, tag=2):
    """The peer is to send this blob, from `received` up to `limit`."""

    digest: Digest
    size: Bytes
    received: Bytes
    limit: Bytes


class Accept(_Message, frozen=True, tag=3):
    """Answers either: the receiver holds `received` bytes and takes them up to `limit`."""

    received: Bytes
    limit: Bytes


class Chunk(_Message, frozen=True, tag=4):
    """`length` bytes of the blob, in the next frame."""

    offset: Bytes
    length: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK)]
    compressed: bool


class Credit(_Message, frozen=True, tag=5):
    """The receiver holds `received` bytes and takes them up to `limit`."""

    received: Bytes
    limit: Bytes


class Done(_Message, frozen=True, tag=6):
    """The receiver has published the blob."""


class Failed(_Message, frozen=True, tag=7):
    """The transfer failed; `text` is for the user."""

    code: str
    text: Annotated[str, msgspec.Meta(max_length=1000)]


class Cancel(_Message, frozen=True, tag=8):
    """The transfer is no longer wanted."""


BulkMessage = OpenPush | OpenFetch | Accept | Chunk | Credit | Done | Failed | Cancel

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BulkMessage)
_VERSION = bytes([VERSION])
_CODES: dict[str, type[BulkError]] = {
    "missing": BlobMissing,
    "corrupt": BlobCorrupt,
    "too-large": BlobTooLarge,
    "refused": BlobRefused,
}


def pack(message: BulkMessage) -> bytes:
    return _VERSION + _encoder.encode(message)


def unpack(frame: Buffer) -> BulkMessage:
    """Raises RemoteProtocolError; VersionMismatch for another version's message."""
    if not frame or len(frame) > MAX_HEADER:
        raise RemoteProtocolError(f"a bulk message has a header of {len(frame)} bytes")
    if frame[0] != VERSION:
        raise VersionMismatch(
            f"the peer speaks version {frame[0]} of the bulk protocol, and this is {VERSION}: "
            "update the older one"
        )
    try:
        message: BulkMessage = _decoder.decode(memoryview(frame)[1:])
    except MALFORMED as error:
        raise RemoteProtocolError(f"a bulk message is malformed: {error}") from error
    return message


def failed(transfer: bytes, error: BulkError) -> Failed:
    code = next((code for code, kind in _CODES.items() if isinstance(error, kind)), "failed")
    return Failed(transfer, code, str(error)[:1000])


def error_of(message: Failed) -> BulkError:
    return _CODES.get(message.code, BulkError)(message.text)


def pays_to_compress(source: Source) -> bool:
    """Compresses samples from the beginning, the middle and the end of what is there."""
    size = source.ready
    if size < _SAMPLE:
        return False
    starts = {0, (size - _SAMPLE) // 2, size - _SAMPLE}
    samples = [source.read(start, _SAMPLE) for start in starts]
    compressed = sum(len(lz4.block.compress(sample, store_size=False)) for sample in samples)
    return compressed < _PAYS * _SAMPLE * len(samples)


def compress(data: Buffer) -> Buffer | None:
    """None when it would not be smaller."""
    compressed: bytes = lz4.block.compress(data, store_size=False)
    return compressed if len(compressed) < len(data) else None


def payload_of(chunk: Chunk, payload: Buffer) -> Buffer:
    """The chunk's bytes. Raises RemoteProtocolError unless there are `length` of them."""
    if chunk.compressed:
        try:
            payload = lz4.block.decompress(payload, uncompressed_size=chunk.length)
        except lz4.block.LZ4BlockError as error:
            raise RemoteProtocolError(f"a chunk cannot be decompressed: {error}") from error
    if len(payload) != chunk.length:
        raise RemoteProtocolError(f"a chunk has {len(payload)} bytes, not {chunk.length}")
    return payload
