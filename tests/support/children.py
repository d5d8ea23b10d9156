"""Processes that a test starts."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import AnyStr

from manta.testing import wait_until


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
    wait_until(lambda: _stands_still(pid), what=lambda: f"{pid} runs on")


def signal_other_thread(pid: int, number: signal.Signals) -> None:
    """Has a thread take the signal that is not the main one, as the kernel may where it is sent to
    the process."""
    for folder in Path(f"/proc/{pid}/task").iterdir():
        blocked = int((folder / "status").read_text().partition("\nSigBlk:")[2].split()[0], 16)
        if int(folder.name) != pid and not blocked & 1 << (number - 1):
            assert ctypes.CDLL(None, use_errno=True).tgkill(pid, int(folder.name), number) == 0
            return
    raise AssertionError(f"no thread of {pid} but the main one takes {number!r}")


def _stands_still(pid: int) -> bool:
    stats = (thread / "stat" for thread in Path(f"/proc/{pid}/task").iterdir())
    return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)
