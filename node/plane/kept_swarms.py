"""Of which swarms a plane's folder keeps what tasks told each other, whether a plane runs or not.

The manager is told of them, and says which are over. A plane drops what it knows of those; where
none runs, their files are deleted here, while none can begin.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from manta.node.plane.folder_lock import take_over
from manta.node.plane.spool import VALUES, named, sync_folder
from manta.node.plane.spool_records import Begin, begin_of, decode, whole

HEAD = 4096
"""Bytes at the start of a file in which its first record is."""


class KeptSwarms:
    """`look` is for one thread, `forget` for any."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begins: dict[Path, Begin] = {}

    def look(self) -> set[str]:
        """Their ids. Raises OSError."""
        found = {}
        for path in self._folder.glob("*.spool"):  # its name is that of a timeline
            if (begin := self._begins.get(path) or _read_begin(path)) is not None:
                found[path] = begin
        self._begins = found
        return {begin.swarm_id for begin in found.values()}

    def forget(self, swarm_ids: Collection[str]) -> bool:
        """Deletes what is kept of these; whether nobody else had the folder. Raises OSError, and
        goes on with what is left when it is called again."""
        lock = take_over(self._folder)
        if lock is None:
            return False
        try:
            for path in self._folder.glob("*.spool"):
                begin = _read_begin(path)
                if begin is not None and begin.swarm_id in swarm_ids:
                    self._delete(path)
            sync_folder(self._folder)
        finally:
            os.close(lock)
        return True

    def _delete(self, path: Path) -> None:
        """Its values first: without the file nothing would name them."""
        for id_ in named(whole(decode(path.read_bytes())[0])):
            (self._folder / VALUES / id_.hex()).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _read_begin(path: Path) -> Begin | None:
    """None of a file that is damaged, or gone: a plane that finds it sees to it."""
    try:
        with path.open("rb") as file:
            return begin_of(file.read(HEAD))
    except FileNotFoundError:
        return None
