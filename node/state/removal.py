"""Removes folders that tasks wrote to."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path


def remove_folder(folder: Path) -> None:
    """Remove a folder with everything in it, folders that a task has locked included.

    Whatever cannot be removed stays.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    _unlock(folder)
    for above, names, _ in os.walk(folder):
        for name in names:
            _unlock(Path(above, name))
    shutil.rmtree(folder, ignore_errors=True)


def _unlock(folder: Path) -> None:
    """Make a folder writable. Does not follow links, which may lead out of it."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        finally:
            os.close(fd)
