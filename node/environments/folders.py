"""The folders of environments: those in use, and the latest others within bounds.

`KEY/.manta-environment` says, in JSON, what an environment consists of and how large it is. It is
written last, so that a folder without one was never whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from manta.node.state import remove_folder
from manta.transports.codec.decoders import MALFORMED, json_decoder
from manta.transports.files import FileTooLarge, read_bounded

log = logging.getLogger("manta.node.environments")

MOST: Final = 32
"""Environments of a node."""
ENTRY: Final = ".manta-environment"
_NAME = re.compile("[0-9a-f]{64}")


class Entry(msgspec.Struct, frozen=True):
    asked: str
    """`digest_of` the requirements."""
    size: int
    """Bytes of its files."""


class Folders:
    """By key. May be used from any thread."""

    def __init__(self, path: Path, most_bytes: int, most: int = MOST) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self._most = most
        self._used: dict[str, str] = {}
        """By who uses it."""
        self._entries: dict[str, Entry] | None = None
        self._lock = threading.Lock()

    @property
    def there(self) -> tuple[str, ...]:
        """The digests of what was asked for, of those that are there."""
        with self._lock:
            return tuple(sorted({entry.asked for entry in self._known().values()}))

    def use(self, key: str, user: str) -> None:
        """Whether or not it is there: it stays until `user` uses another one or none."""
        with self._lock:
            self._used[user] = key
            if key in self._known():
                with contextlib.suppress(OSError):
                    os.utime(self.path / key)  # which was used last

    def leave(self, user: str) -> None:
        with self._lock:
            self._used.pop(user, None)

    def find(self, key: str) -> Path | None:
        """None unless it is there, whole, and its Python still is."""
        with self._lock:
            folder = self.path / key
            if key in self._known() and (folder / "bin" / "python").exists():
                return folder
            self._known().pop(key, None)
            return None

    def room(self) -> int:
        """Bytes that another one may have, since those in use stay."""
        with self._lock:
            known = self._known()
            used = sum(known[key].size for key in {*self._used.values()} if key in known)
            return max(0, self.most_bytes - used)

    def add(self, key: str, draft: Path, entry: Entry) -> Path:
        """Puts a draft in its place, and others away that were not used for longest. Raises
        OSError."""
        (draft / ENTRY).write_bytes(msgspec.json.encode(entry))
        folder = self.path / key
        with self._lock:
            if folder.exists():
                remove_folder(folder)
            os.rename(draft, folder)
            os.utime(folder)
            self._known()[key] = entry
            self._trim()
        return folder

    def _trim(self) -> None:
        known = self._known()
        count, size = len(known), sum(entry.size for entry in known.values())
        used = {*self._used.values()}
        for key in sorted(known, key=self._since):
            if count <= self._most and size <= self.most_bytes:
                return
            if key not in used:
                log.info("the environment in %s was removed: others were used since", key)
                remove_folder(self.path / key)
                count, size = count - 1, size - known.pop(key).size

    def _since(self, key: str) -> float:
        try:
            return (self.path / key).stat().st_mtime
        except OSError:
            return 0.0

    def _known(self) -> dict[str, Entry]:
        """Looked up once; whatever was not whole is removed then."""
        if self._entries is None:
            self._entries = {}
            with contextlib.suppress(OSError):  # who wants to build one is told
                self._entries.update(self._look())
        return self._entries

    def _look(self) -> Iterator[tuple[str, Entry]]:
        for folder in [*self.path.iterdir()]:
            try:
                entry = json_decoder(Entry).decode(read_bounded(folder / ENTRY))
            except (OSError, FileTooLarge, *MALFORMED):
                entry = None
            if entry is not None and _NAME.fullmatch(folder.name):
                yield folder.name, entry
            else:
                remove_folder(folder)


def links_in(folder: Path) -> dict[str, str]:
    """Where they lead, by their paths below the folder. Raises OSError."""
    return {
        path: os.readlink(folder / path) for path, mode in _all_in(folder) if stat.S_ISLNK(mode)
    }


def foreign_in(folder: Path, links: Mapping[str, str]) -> str:
    """The path of something below the folder that is no folder, file, or one of these links: who
    wrote there may lead whoever writes next elsewhere. "" if there is none. Raises OSError."""
    for path, mode in _all_in(folder):
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            continue
        if not stat.S_ISLNK(mode) or links.get(path) != os.readlink(folder / path):
            return path
    return ""


def _all_in(folder: Path) -> Iterator[tuple[str, int]]:
    """What is below it, by its path, with its mode. Follows no link. Raises OSError."""
    for place, folders, files in os.walk(folder, onerror=_raised):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            yield os.path.relpath(path, folder), os.lstat(path).st_mode


def _raised(error: OSError) -> None:
    raise error


def size_of(folder: Path) -> int:
    """Bytes of its files, as far as they stay while it is looked."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
