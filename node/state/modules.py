"""The folders of unpacked modules: those in use, and the latest others within bounds."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from manta.node.state.folder import remove_folder

log = logging.getLogger(__name__)

MOST, MOST_BYTES = 128, 2 << 30
_NAME = re.compile("[0-9a-f]{64}")


class ModuleFolders:
    """By the digests of their packages. May be used from any thread."""

    def __init__(self, path: Path, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        """Removes what a killed daemon was unpacking."""
        self._path = path
        self._most = most
        self._most_bytes = most_bytes
        self._used: dict[str, str] = {}
        """By who uses it."""
        self._lock = threading.Lock()
        for left in [each for each in path.iterdir() if not _NAME.fullmatch(each.name)]:
            remove_folder(left)

    @property
    def used(self) -> frozenset[str]:
        """The digests of those in use."""
        with self._lock:
            return frozenset(self._used.values())

    def use(self, digest: str, user: str) -> Path:
        """Returns the folder of a package, whether or not it is there: it stays until `user` uses
        another one or none."""
        folder = self._path / digest
        with self._lock:
            self._used[user] = digest
            with contextlib.suppress(OSError):
                os.utime(folder)  # which was used last
        return folder

    def leave(self, user: str) -> None:
        with self._lock:
            self._used.pop(user, None)

    def trim(self) -> None:
        """Remove those that were not used for longest. Called when one has been added."""
        with self._lock:
            found = sorted(self._found(), key=lambda each: each[1])
            count, size = len(found), sum(size for _, _, size in found)
            for folder, _, its in found:
                if count <= self._most and size <= self._most_bytes:
                    return
                if folder.name not in self._used.values():
                    log.info("the module in %s was removed: others were used since", folder)
                    remove_folder(folder)
                    count, size = count - 1, size - its

    def _found(self) -> Iterator[tuple[Path, float, int]]:
        """Folder, when it was used last, bytes."""
        for folder in self._path.iterdir():
            if _NAME.fullmatch(folder.name):
                with contextlib.suppress(FileNotFoundError):  # it is being replaced
                    yield folder, folder.stat().st_mtime, _size(folder)


def _size(folder: Path) -> int:
    """Bytes of its files."""
    return sum(
        os.lstat(os.path.join(place, name)).st_size
        for place, _, names in os.walk(folder)
        for name in names
    )
