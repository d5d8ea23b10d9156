"""Whose a plane's folder is: one process's at a time, as long as that lives."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

LOCK = "lock"
"""The file in the folder that is held locked."""


def take_over(folder: Path, patience: float = 0.0) -> int | None:
    """The lock of a folder, once whoever had it before has ended; None if it does not within
    `patience` seconds. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(lock)
                return None
            time.sleep(0.02)
        except OSError:
            os.close(lock)
            raise
        else:
            return lock
