"""Whether a node can keep anything: it takes no new work while it cannot."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from manta.transports.errors import remedied

ROOM, ROOM_AGAIN = 256 * 1024, 1024 * 1024
"""Bytes that must find room, and that must once they did not: else it would go to and fro."""


class Storage:
    """The disks of a state folder and its parts. May be used from any thread."""

    def __init__(self, *folders: Path) -> None:
        self.trouble = ""
        """Why nothing can be kept, as the rest of a sentence that begins with the node's name."""
        self._folders = folders
        self._lock = threading.Lock()

    def check(self) -> bool:
        """Look whether there is room; returns whether that has changed."""
        with self._lock:
            before = self.trouble
            room = ROOM_AGAIN if before else ROOM
            disks = {_disk(folder): folder for folder in reversed(self._folders)}
            troubles = (_trouble(folder, room) for folder in reversed(disks.values()))
            self.trouble = next(filter(None, troubles), "")
            return self.trouble != before


def _disk(folder: Path) -> int | Path:
    try:
        return folder.stat().st_dev
    except OSError:
        return folder


def _trouble(folder: Path, room: int) -> str:
    path = folder / "probe"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, room)
        finally:
            os.close(fd)
            path.unlink()
    except OSError as error:
        return f"cannot write in {folder} ({remedied(error)})"
    return ""
