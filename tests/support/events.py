"""Reads files of TensorBoard: records, each an event (tensorflow/core/util/event.proto)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path


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
