"""How much tasks keep on a node for their swarms, and no more than its operator lets them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from manta.node.errors import QuotaReached

_BLOCK = 4096


class KeptSizes:
    """By folder, one for each swarm; looked through once, then counted. For several threads."""

    def __init__(self) -> None:
        self._used: dict[Path, int] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def storing(self, path: Path, size: int, most: int) -> Iterator[None]:
        """Counts a file of so many bytes, whose name ends in `.kept`, in the place of the one that
        is there, unless what is written within fails. Raises QuotaReached."""
        folder, file = path.parent, path.with_suffix(".kept")
        with self._lock:
            if (used := self._used.get(folder)) is None:
                used = _used(folder)
            kept = used - _size(file)
            if kept + _blocks(size) > most:
                raise QuotaReached(
                    f"This swarm keeps {kept / 1e6:,.1f} MB of state on this node and asks for "
                    f"{size / 1e6:,.1f} MB, and {most / 1e6:,.1f} MB are allowed "
                    "(resources.scratch_mb): keep less (set_state), or have the node's operator "
                    "raise that."
                )
            self._used[folder] = kept + _blocks(size)
        try:
            yield
        except BaseException:
            self.forget(folder)
            raise

    def forget(self, folder: Path) -> None:
        """It was removed, or is to be looked through again."""
        with self._lock:
            self._used.pop(folder, None)


def _used(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return sum(_size(Path(entry.path)) for entry in os.scandir(folder))
    return 0


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return _blocks(path.stat().st_size)
    return 0


def _blocks(size: int) -> int:
    """A file takes whole blocks: so however many there are has a bound."""
    return max(1, -(-size // _BLOCK)) * _BLOCK
