"""What the two ends of a bulk connection say: messages, versions, compressed chunks.

A message is one frame: the version byte, then msgpack. A chunk's bytes are a second
frame. Whoever opens a transfer chooses its id, and opens it again, under that id, after
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

from manta.transports.errors import (
    BlobCorrupt,
    BlobMissing,
    BlobRefused,
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
# CURVE costs more than lz4 a byte; this much has to be saved to pay for the compression.
_PAYS = 0.75

TransferId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62))]


class OpenPush(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """I have this blob for you."""

    id: TransferId
    digest: Digest
    size: Bytes


class OpenFetch(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Send me this blob; so much I have, up to there you may send."""

    id: TransferId
    digest: Digest
    size: Bytes
    received: Bytes
    limit: Bytes


class Accept(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The answer to either: so much the receiver has, up to there you may send."""

    id: TransferId
    received: Bytes
    limit: Bytes


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """`length` bytes of the blob, in the next frame."""

    id: TransferId
    offset: Bytes
    length: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHUNK)]
    compressed: bool


class Credit(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """So much I have, up to there you may send."""

    id: TransferId
    received: Bytes
    limit: Bytes


class Done(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The blob is published here."""

    id: TransferId


class Failed(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """This transfer is over."""

    id: TransferId
    code: str
    text: Annotated[str, msgspec.Meta(max_length=1000)]


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """I want it no longer."""

    id: TransferId


BulkMessage = OpenPush | OpenFetch | Accept | Chunk | Credit | Done | Failed | Cancel

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BulkMessage)
_VERSION = bytes([VERSION])
_CODES: dict[str, type[BulkError]] = {
    "missing": BlobMissing,
    "corrupt": BlobCorrupt,
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
    except (msgspec.MsgspecError, ValueError) as error:
        raise RemoteProtocolError(f"a bulk message is malformed: {error}") from error
    return message


def failed(transfer: bytes, error: BulkError) -> Failed:
    code = next((code for code, kind in _CODES.items() if isinstance(error, kind)), "failed")
    return Failed(transfer, code, str(error)[:1000])


def error_of(message: Failed) -> BulkError:
    return _CODES.get(message.code, BulkError)(message.text)


def pays_to_compress(source: Source) -> bool:
    """Try samples from the beginning, the middle and the end."""
    if source.size < _SAMPLE:
        return False
    starts = {0, (source.size - _SAMPLE) // 2, source.size - _SAMPLE}
    samples = [source.read(start, _SAMPLE) for start in starts]
    compressed = sum(len(lz4.block.compress(sample, store_size=False)) for sample in samples)
    return compressed < _PAYS * _SAMPLE * len(samples)


def compress(data: Buffer) -> Buffer | None:
    """None where it does not get smaller."""
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
