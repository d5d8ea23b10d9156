"""A lock that lets one daemon at a time use a state folder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from manta.node.errors import StateInUse


class StateLock:
    """Held until released, or until the process ends, however it ends."""

    PATIENCE = 2.0  # seconds for a predecessor that is about to end

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + self.PATIENCE
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            if time.monotonic() > deadline:
                os.close(self._fd)
                raise StateInUse(
                    f"Another node daemon (process {holder or 'unknown'}) uses {folder}: stop it "
                    "with `manta_node stop`, or give this one a configuration of its own."
                )
            time.sleep(0.05)
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            os.close(self._fd)
            raise

    def release(self) -> None:
        os.close(self._fd)
