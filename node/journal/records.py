"""The format of a journal's file.

A file is a row of records: length (4 bytes), CRC-32 (4 bytes), body. The first body is a
`Begin`: what was cut off before. All others are `Kept` items, numbered without a gap. Where a
record is torn or does not match its checksum, the file ends: what follows was never
acknowledged to anybody.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from manta.protocol.node import Instance, JournalEntry, LogLine

_HEAD = struct.Struct("<II")
MAX_RECORD = 16 * 1024 * 1024


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Everything up to and including `upto` is acknowledged and was cut off."""

    swarm_id: str
    upto: int = 0
    open: tuple[Instance, ...] = ()
    """Attempts that had started and not ended by then."""


class KeptEntry(msgspec.Struct, frozen=True, tag=True):
    number: int
    entry: JournalEntry


class KeptLine(msgspec.Struct, frozen=True, tag=True):
    number: int
    line: LogLine


Record = Begin | KeptEntry | KeptLine

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    body = _encoder.encode(record)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def decode(data: bytes) -> tuple[list[Record], int]:
    """Returns the records before the first torn or damaged one, and their size in bytes."""
    records: list[Record] = []
    offset = 0
    while offset + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, offset)
        end = offset + _HEAD.size + length
        if length > MAX_RECORD or end > len(data):
            break
        body = data[offset + _HEAD.size : end]
        if zlib.crc32(body) != checksum:
            break
        try:
            records.append(_decoder.decode(body))
        except ValueError:
            break
        offset = end
    return records, offset
