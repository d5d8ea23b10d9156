"""Sends the metrics of a swarm to a tracker, from where it was left the time before.

The manager keeps the metrics: while a tracker is down nothing is read, and the swarm goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from manta.apis.overviews import MetricsOverview
from manta.cli.exit_codes import LocalError
from manta.cli.tracking.trackers import Tracker, TrackerDown
from manta.console.terminal import say_note
from manta.protocol.user import FeedPage, MetricsItem

LONGEST_PAUSE = 60.0
"""Seconds between two attempts, of which the first come sooner."""
MOST_CURSORS = 1000
"""Files that are kept: one for each swarm and tracker."""


class Cursor:
    """How far a tracker has the metrics of a swarm, on disk. One process at a time has it."""

    def __init__(self, home: Path, swarm_id: str, target: str) -> None:
        """Raises LocalError."""
        digest = hashlib.blake2b(target.encode(), digest_size=8).hexdigest()
        folder = home / "trackers"
        self._path = folder / f"{swarm_id}-{digest}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalError(f"{self._path}: {error.strerror}: look at its rights.") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.value = int(os.pread(self._fd, 64, 0) or b"0")
        except BlockingIOError:
            self.close()
            raise LocalError(
                f"Another process sends the metrics of {swarm_id} to {target}: stop it first."
            ) from None
        except ValueError:
            self.close()
            raise LocalError(
                f"{self._path} is damaged: remove it, and all metrics are sent once more."
            ) from None
        _trim(folder)

    def advance(self, value: int) -> None:
        """Raises LocalError."""
        try:
            os.pwrite(self._fd, b"%020d\n" % value, 0)
            os.fsync(self._fd)
        except OSError as error:
            raise LocalError(
                f"{self._path} can't be written ({error.strerror}): make room there; the last "
                "metrics are sent once more then."
            ) from None
        self.value = value

    def close(self) -> None:
        os.close(self._fd)


def forward(
    pages: Iterable[FeedPage],
    connect: Callable[[], Tracker],
    cursor: Cursor,
    pause: Callable[[float], None],
) -> int:
    """Sends what the pages bring, each until the tracker has it, and returns how many entries.

    Raises what the pages raise, MissingPackage and LocalError.
    """
    tracker: Tracker | None = None
    count = 0
    try:
        for page in pages:
            items = [MetricsOverview.of(one) for one in page.items if isinstance(one, MetricsItem)]
            failures = 0
            while True:
                try:
                    tracker = tracker or connect()
                    tracker.send(items, page.cursor)
                    break
                except TrackerDown as down:
                    tracker = None
                    if not failures:
                        say_note(f"{down}: it is tried again, and what is missing is sent then.")
                    pause(min(LONGEST_PAUSE, 2.0**failures))
                    failures += 1
            cursor.advance(page.cursor)
            count += len(items)
    finally:
        if tracker is not None:
            tracker.close()
    return count


def _trim(folder: Path) -> None:
    """Removes those that were written longest ago."""
    kept = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in kept[:-MOST_CURSORS]:
        path.unlink(missing_ok=True)
