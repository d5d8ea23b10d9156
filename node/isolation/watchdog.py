"""Measures tasks that no control group holds, and tells of those that take more than they may.

What a process has is read as RSS, which is quick and counts memory that several share for each of
them; only where that is more than the task may have, PSS is read, which counts it once and takes a
millisecond for each 100 MiB. A process that hides from other processes of its user
(PR_SET_DUMPABLE) counts with its RSS.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from manta.light.runtime.processes import descendants, kill_tree
from manta.node.isolation.limits import LATEST, Limits, Measured, Plan, excess, pause

log = logging.getLogger("manta.node.isolation")

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Watched:
    """A task that is measured until `over`, or until it is let go."""

    pid: int
    limits: Limits
    plan: Plan
    told: Callable[[str], None]
    """Called once on the watchdog's thread, before the task is ended, with a sentence."""
    peak: int = 0
    most_processes: int = 0
    due: float = 0.0


class Watchdog:
    """One thread for all tasks of a node, which begins with the first of them."""

    def __init__(self) -> None:
        self._watched: dict[int, Watched] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def watch(self, task: Watched) -> None:
        with self._changed:
            self._watched[task.pid] = task
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(
                    target=self._run, name="manta-watchdog", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def let_go(self, task: Watched) -> None:
        """Nothing is told of it any more. Idempotent."""
        with self._changed:
            if self._watched.get(task.pid) is task:
                del self._watched[task.pid]

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._watched.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._watched and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                now = time.monotonic()
                due = [task for task in self._watched.values() if task.due <= now]
                if not due:
                    first = min(task.due for task in self._watched.values())
                    self._changed.wait(max(0.0, first - now))
            for task in due:
                try:
                    self._look(task)
                except Exception:
                    log.exception("The task of process %d could not be measured.", task.pid)
                    task.due = time.monotonic() + LATEST

    def _look(self, task: Watched) -> None:
        measured = measure(task.pid, task.limits.memory)
        task.peak = max(task.peak, measured.memory)
        task.most_processes = max(task.most_processes, measured.processes)
        sentence = excess(measured, task.limits, task.plan)
        if sentence is None:
            task.due = time.monotonic() + pause(measured.memory, task.limits.memory)
            return
        with self._changed:
            if self._watched.pop(task.pid, None) is not task:
                return  # let go meanwhile
            task.told(sentence)
            kill_tree({task.pid})


def measure(pid: int, limit: int | None = None) -> Measured:
    """What a process and its descendants have; exactly, if it may be more than `limit`."""
    pids = {pid} | descendants(pid)
    processes = sum(_threads(one) for one in pids)
    memory = sum(_rss(one) for one in pids)
    if limit is not None and memory > limit:
        memory = sum(_pss(one) for one in pids)
    return Measured(memory, processes)


def threads_of_user() -> int:
    """How many threads this process's user has."""
    uid, found = os.getuid(), 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == uid:
                found += _threads(int(name))
    return found


def _threads(pid: int) -> int:
    """0 for one that has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _rss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _pss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(b"Pss:")) << 10
    except (OSError, StopIteration):
        return _rss(pid)
