"""The format of a journal's file.

A file is a row of records: length (4 bytes), CRC-32 (4 bytes), body. The first body is a
`Begin`: what was cut off before. All others are `Kept` items, numbered without a gap. Where a
record is torn or does not match its checksum, the file ends.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from manta.protocol.node import Instance, JournalEntry, LogLine
from manta.transports.codec.decoders import MALFORMED

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
    return frame(_encoder.encode(record))


def frame(body: bytes) -> bytes:
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def decode(data: bytes) -> tuple[list[Record], int, str]:
    """Returns the records before the first torn or damaged one, their size in bytes, and what is
    wrong with that one, "" if there is none."""
    records: list[Record] = []
    offset, due = 0, None
    if not data:
        return records, 0, "it is empty"
    while offset < len(data):
        try:
            body, end = next_body(data, offset)
            record = _decoder.decode(body)
        except MALFORMED as error:
            return records, offset, str(error)
        if (None if isinstance(record, Begin) else record.number) != due:
            return records, offset, "a record is not the one that is due"
        due = record.upto + 1 if isinstance(record, Begin) else record.number + 1
        records.append(record)
        offset = end
    return records, offset, ""


def next_body(data: bytes, offset: int) -> tuple[bytes, int]:
    """The body of the record that begins there, and where it ends. Raises ValueError where it is
    torn or damaged."""
    start = offset + _HEAD.size
    if start > len(data):
        raise ValueError("it ends within a record")
    length, checksum = _HEAD.unpack_from(data, offset)
    if length > MAX_RECORD or start + length > len(data):
        raise ValueError("it ends within a record")
    body = data[start : start + length]
    if zlib.crc32(body) != checksum:
        raise ValueError("a record does not have its checksum")
    return body, start + length
