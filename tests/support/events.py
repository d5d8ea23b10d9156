"""Reads files of trackers: TensorBoard's events (tensorflow/core/util/event.proto), and the log
that W&B keeps of a run (records of its wandb_internal.proto, in the format of LevelDB's log)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

WANDB_HEADER = b":W&B\xe1\xbe\x00"
BLOCK, CHUNK_HEADER = 32 * 1024, 7
WHOLE, LAST = 1, 4


def scalars(folder: Path) -> list[tuple[str, int, float, float]]:
    """Returns series, step, value and time of all values below a folder, file by file."""
    from tensorboardX.proto.event_pb2 import Event

    return [
        (value.tag, event.step, value.simple_value, event.wall_time)
        for file in sorted(folder.rglob("*tfevents*"))
        for event in map(Event.FromString, _records(file.read_bytes()))
        for value in event.summary.value
    ]


def _records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]  # behind the length and its checksum
        at += 12 + length + 4


def rows(folder: Path) -> list[dict[str, object]]:
    """Returns what all runs of W&B below a folder have logged, file by file."""
    from wandb.proto.wandb_internal_pb2 import Record

    return [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row}
        for file in sorted(folder.rglob("offline-run-*/*.wandb"))
        for record in map(Record.FromString, _chunks(file.read_bytes()))
        if (row := record.history.item)
    ]


def _chunks(data: bytes) -> Iterator[bytes]:
    """The records of a log as LevelDB has it: each in one chunk or several, and none of these over
    the end of a block. A file's own header is part of its first block."""
    at, found = len(WANDB_HEADER), b""
    assert data[:4] == WANDB_HEADER[:4], data[:8]
    while at < len(data):
        if -at % BLOCK < CHUNK_HEADER:
            at += -at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        at += CHUNK_HEADER
        found += data[at : at + length]
        at += length
        if kind in (WHOLE, LAST):
            yield found
            found = b""
