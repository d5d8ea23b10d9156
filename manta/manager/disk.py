"""The disk of the manager's folder, of which part is kept for the database.

    free space is less than    what stops
    the reserve                large values are refused, and those that nothing names are deleted
    half of it                 log lines wait on their nodes
    a quarter of it            so does all else that tasks say
    nothing is free            all that has to be stored: it is refused, or waits

So what fills a disk stops before what makes room again: the database records deletions as well.
"""

from __future__ import annotations

import os
from pathlib import Path

RESERVE, PART = 256 << 20, 20
"""The reserve in bytes; on a small disk it is one part of so many."""


class Disk:
    def __init__(self, folder: Path) -> None:
        """The folder may be one that does not exist yet."""
        self._folder = next(one for one in (folder, *folder.parents) if one.exists())
        found = os.statvfs(self._folder)
        self.reserve = min(RESERVE, found.f_blocks * found.f_frsize // PART)

    @property
    def free(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    @property
    def lacks(self) -> int:
        """The bytes that have to become free until large values are taken again."""
        return max(0, self.reserve - self.free)

    @property
    def takes_lines(self) -> bool:
        return self.free >= self.reserve // 2

    @property
    def takes_entries(self) -> bool:
        return self.free >= self.reserve // 4
