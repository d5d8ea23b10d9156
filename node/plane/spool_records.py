"""The format of a spool's file: what was kept of one swarm's attempts, on one of its timelines.

Records are framed as those of the journal are. The first is a `Begin`. What was kept of an attempt
comes in parts; it counts when the last one is there, whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from manta.node.journal.records import frame, next_body
from manta.transports.codec.decoders import MALFORMED
from manta.transports.exchange.kept import Item, Kept
from manta.transports.exchange.messages import Parcel

VERSION = 1
PART = 4 << 20
"""Bytes of values in a record, about."""


class Begin(msgspec.Struct, frozen=True, tag=True):
    version: int
    node_id: str
    swarm_id: str
    epoch: str


class Part(msgspec.Struct, frozen=True, tag=True):
    kept: Kept
    is_last: bool


Record = Begin | Part

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


def begin(node_id: str, swarm_id: str, epoch: str) -> bytes:
    return frame(_encode(Begin(VERSION, node_id, swarm_id, epoch)))


def begin_of(data: bytes) -> Begin | None:
    """Of a file that begins with these bytes; None if it is damaged, or of another version."""
    try:
        record = _decode(next_body(data, 0)[0])
    except MALFORMED:
        return None
    return record if isinstance(record, Begin) and record.version == VERSION else None


def encode(kept: Kept) -> bytes:
    parts = list(_parts(kept.items)) or [()]
    return b"".join(
        frame(
            _encode(
                Part(Kept(kept.era, kept.task, kept.rank, kept.number, items), at == len(parts))
            )
        )
        for at, items in enumerate(parts, 1)
    )


def _parts(items: Iterable[Item]) -> Iterator[tuple[Item, ...]]:
    part, size = list[Item](), 0
    for item in items:
        part.append(item)
        size += _size(item)
        if size >= PART:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)


def _size(item: Item) -> int:
    value = getattr(item, "value", b"")
    size = len(value) if isinstance(value, bytes) else 0
    return 100 + size + len(getattr(item, "what", b"")) + 20 * len(getattr(item, "serials", ()))


def decode(data: bytes) -> tuple[list[Record], int, str]:
    """As of RecordFile."""
    records: list[Record] = []
    offset = 0
    if not data:
        return records, 0, "it is empty"
    while offset < len(data):
        try:
            body, end = next_body(data, offset)
            record = _decode(body)
        except MALFORMED as error:
            return records, offset, str(error)
        if isinstance(record, Begin) != (offset == 0):
            return records, offset, "a record is not where it belongs"
        records.append(record)
        offset = end
    return records, offset, ""


def whole(records: Iterable[Record]) -> list[Kept]:
    """What was kept of those attempts of which all parts are there."""
    found: list[Kept] = []
    items: list[Item] = []
    of = None
    for record in records:
        if not isinstance(record, Part):
            continue
        kept = record.kept
        at = kept.era, kept.task, kept.rank, kept.number
        if at != of:
            of, items = at, []
        items += kept.items
        if record.is_last:
            found.append(Kept(*at, tuple(items)))
            of = None
    return found


def parcels(kept: Iterable[Kept]) -> Iterator[Parcel]:
    """The values that it names, which are files."""
    for one in kept:
        for item in one.items:
            value = getattr(item, "value", None)
            if isinstance(value, Parcel):
                yield value
