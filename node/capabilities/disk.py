"""How fast this machine writes to the disk on which a node keeps its state.

It is measured once, for a moment, and kept beside the state; a folder that was moved to another
disk is measured again.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec

from manta.transports.codec.decoders import MALFORMED, json_decoder
from manta.transports.files import FileTooLarge, read_bounded

FILE, DRAFT = "disk.json", "disk.probe"
MOST_BYTES, MOST_SECONDS, PIECE = 32 << 20, 0.5, 1 << 20
SPARE = 1 << 30
"""Bytes that have to be free, or it is not measured."""


class Speed(msgspec.Struct, frozen=True):
    device: int
    """On which it was measured, as `st_dev` has it."""
    written: float
    """Bytes a second, with what the disk itself took to keep them."""


def kept(folder: Path) -> float:
    """As it was measured for this folder's disk; 0 if it was not."""
    with contextlib.suppress(OSError, FileTooLarge, *MALFORMED):
        found = json_decoder(Speed).decode(read_bounded(folder / FILE))
        if found.device == folder.stat().st_dev:
            return found.written
    return 0.0


def measure(folder: Path) -> float:
    """Writes at most 32 MiB, for about half a second, and keeps what comes of it. Takes longer
    where the disk takes long to write one of them. Raises OSError."""
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < SPARE:
        return 0.0
    draft, data = folder / DRAFT, os.urandom(PIECE)  # some file systems compress
    began, size = time.perf_counter(), 0
    try:
        with draft.open("wb", buffering=0) as file:
            while size < MOST_BYTES and time.perf_counter() - began < MOST_SECONDS:
                size += file.write(data)
                os.fdatasync(file)
        speed = Speed(folder.stat().st_dev, size / (time.perf_counter() - began))
        draft.write_bytes(msgspec.json.encode(speed))
        os.replace(draft, folder / FILE)
    finally:
        draft.unlink(missing_ok=True)
    return speed.written
