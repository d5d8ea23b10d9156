"""Processes that a test starts."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import AnyStr


class Child(subprocess.Popen[AnyStr]):
    """Killed when the body of its `with` raises. To wait for it might take for ever, and a test
    hears of its timeout only once."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, traceback)


def freeze(pid: int) -> None:
    """Returns when each of its threads stands still: they do so a little after the signal, and may
    read what comes in between."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 20
    while not _stands_still(pid):
        assert time.monotonic() < deadline, f"{pid} runs on"
        time.sleep(0.001)


def _stands_still(pid: int) -> bool:
    stats = (thread / "stat" for thread in Path(f"/proc/{pid}/task").iterdir())
    return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)
