"""The Python stacks of an attempt's processes, while they run.

`faulthandler` writes them in a signal's handler in C, whatever holds the interpreter. A template
registers it before it forks, so all that is forked from it has it. What becomes another program
has lost it, and the signal is ignored there, as SIGWINCH is by default. They are written into a
file in memory that the runtime has made, whose size is sealed: it can't grow, and nobody who writes
waits for a reader.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterable

from manta.light.runtime import processes
from manta.light.wire import MAX_STACKS

SIGNAL = signal.SIGWINCH
_BIT = 1 << (SIGNAL - 1)
_FILE = 256 * 1024  # bytes
_PROCESSES = 64
_PATIENCE = 2.5
"""Seconds for all of them."""
_EACH = 0.5
_LOOK = 0.002
_LONGEST_COMMAND = 120
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device",
    "T": "stopped",
    "t": "stopped by a debugger",
    "Z": "ended",
    "X": "ended",
    "I": "idle",
}


class Stacks:
    """Made by a runtime before it forks; `register` is called in its template."""

    def __init__(self) -> None:
        self._file = -1
        try:
            self._file = os.memfd_create("manta-stacks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self._file, _FILE)
            seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, seals)
        except OSError:  # no memory: there are no stacks then, which is told
            return

    def register(self) -> None:
        """Has this process, and all that it forks, answer the signal."""
        if self._file >= 0:
            import faulthandler

            faulthandler.register(SIGNAL, file=self._file, all_threads=True, chain=False)

    def take(self, runtime: int, besides: int, attempt: int, folder: str) -> str:
        """Returns the stacks of all processes below `runtime` but `besides`, that of the attempt
        first, with the files of `folder`, and of Python's path, named relative to it.

        Takes `_PATIENCE` seconds at most: what does not answer is named.
        """
        deadline = time.monotonic() + _PATIENCE
        found = processes.descendants(runtime) - {besides}
        order = sorted(found, key=lambda pid: (pid != attempt, pid))
        parts, room = list[str](), MAX_STACKS - 100
        for pid in order[:_PROCESSES]:
            part = self._of(pid, deadline, is_attempt=pid == attempt)
            part = _relative(part, (folder, *sys.path))
            parts.append(_cut(part, room))
            room -= len(parts[-1]) + 1
            if room <= 0:
                break
        if len(parts) < len(order):
            parts.append(f"... and {len(order) - len(parts)} further processes.")
        return "\n".join(parts)

    def _of(self, pid: int, deadline: float, *, is_attempt: bool) -> str:
        status = _status(pid)
        state = _STATES.get(status.get("State", "X")[:1], "in another state")
        whose = "the attempt's own" if is_attempt else _command(pid)
        head = f"Process {pid} ({whose}), {state}"
        if not int(status.get("SigCgt", "0"), 16) & _BIT:
            return f"{head}: it is no Python that was forked here, and has no stacks to show."
        if state.startswith(("stopped", "ended")):
            return f"{head}: it shows no stacks."
        written = self._ask(pid, min(deadline, time.monotonic() + _EACH))
        if not written:
            return f"{head}: it did not show its stacks in time."
        return f"{head}:\n{written}"

    def _ask(self, pid: int, deadline: float) -> str:
        """Returns what a process writes when it gets the signal. While its handler runs, the kernel
        blocks the signal in that thread."""
        block_it = _blocking(pid)
        os.lseek(self._file, 0, os.SEEK_SET)
        processes.send(pid, SIGNAL)
        rests = 0
        while rests < 2 and time.monotonic() < deadline:
            time.sleep(_LOOK)
            is_writing = _is_pending(pid) or _blocking(pid) - block_it
            has_written = os.lseek(self._file, 0, os.SEEK_CUR) > 0
            rests = rests + 1 if has_written and not is_writing else 0
        size = min(os.lseek(self._file, 0, os.SEEK_CUR), _FILE)
        return os.pread(self._file, size, 0).decode("ascii", "replace").rstrip("\n")


def _status(pid: int, thread: int | None = None) -> dict[str, str]:
    """Of a process or a thread (proc(5)); nothing of one that has ended."""
    path = f"/proc/{pid}/status" if thread is None else f"/proc/{pid}/task/{thread}/status"
    try:
        with open(path, errors="replace") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return {}


def _is_pending(pid: int) -> bool:
    return bool(int(_status(pid).get("ShdPnd", "0"), 16) & _BIT)


def _blocking(pid: int) -> set[int]:
    """The threads that block the signal."""
    try:
        threads = map(int, os.listdir(f"/proc/{pid}/task"))
        return {one for one in threads if int(_status(pid, one).get("SigBlk", "0"), 16) & _BIT}
    except OSError:
        return set()


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4 * _LONGEST_COMMAND).replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "which has ended"
    words = words.strip()
    return words if len(words) <= _LONGEST_COMMAND else words[:_LONGEST_COMMAND] + "..."


def _relative(text: str, folders: Iterable[str]) -> str:
    for folder in sorted({one for one in folders if len(one) > 1}, key=len, reverse=True):
        text = text.replace(f'File "{folder.rstrip(os.sep)}{os.sep}', 'File "')
    return text


def _cut(text: str, room: int) -> str:
    """What is asked for is at the end: a process's main thread comes last."""
    if len(text) <= room:
        return text
    head, _, rest = text.partition("\n")
    return f"{head}\n...\n{rest[-max(0, room - len(head) - 5) :]}"[:room]
