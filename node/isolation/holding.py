"""Holds tasks to their limits, each by the best means that there is on this machine."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from manta.light.runtime.processes import kill_tree, marked
from manta.node.isolation import enter
from manta.node.isolation import limits as decide
from manta.node.isolation.cgroups import Group, Groups
from manta.node.isolation.limits import LIMITS, Limits, Means
from manta.node.isolation.watchdog import Watchdog, Watched, threads_of_user
from manta.protocol.bundle import Usage

log = logging.getLogger("manta.node.isolation")

_MARK = "MANTA_NODE"
_REAPING_TIME = 1.0  # seconds for init; what is left of groups the node's next start removes


class Held:
    """One task: to be started by `command`, watched, and ended once its first process has."""

    def __init__(self, holder: Holder, limits: Limits, group: Group) -> None:
        self._holder = holder
        self._limits = limits
        self._group = group
        self._watched: Watched | None = None
        self._verdict: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """By which it is found again, and the runtime finds out whether an attempt's process was
        killed for memory."""
        found = {_MARK: self._holder.node}
        events = self._group.memory_events
        if self._limits.memory is not None and events is not None:
            found |= {"MANTA_MEMORY": str(self._limits.memory), "MANTA_MEMORY_EVENTS": str(events)}
        return found

    @property
    def memory_events(self) -> Path | None:
        """The file that the runtime reads for that."""
        return self._group.memory_events

    def command(
        self, program: Iterable[str], confinement: enter.Confinement | None = None
    ) -> list[str]:
        """What is to be started instead of a program."""
        plan = self._holder.plan
        others = threads_of_user() if plan.watches else 0
        rlimits = decide.rlimits(self._limits, plan, others)
        return enter.command(program, map(str, self._group.entries), rlimits, confinement)

    def watch(self, pid: int) -> None:
        """Measures the process that was started, and what it starts, if nothing else holds it."""
        plan = self._holder.plan
        if plan.watches:
            self._watched = Watched(pid, self._limits, plan, self._tell)
            self._holder.watchdog.watch(self._watched)

    def _tell(self, sentence: str) -> None:
        self._verdict = sentence

    def peak(self) -> int | None:
        """The most bytes that it has had, as far as that is known."""
        return self._watched.peak if self._watched is not None else self._group.peak()

    def usage(self) -> Usage:
        """What it has used since it began, as far as that is known, and may use."""
        limits = self._limits
        watched = 0 if self._watched is None else self._watched.most_processes
        return Usage(
            memory=self.peak(),
            memory_limit=limits.memory,
            cpu=self._group.cpu_time(),
            cores_limit=limits.cpu if self._holder.plan.cpu is Means.GROUP else None,
            processes=watched or self._group.most_processes(),
            processes_limit=limits.processes,
        )

    def verdict(self, code: int | None) -> str:
        """Why its first process has ended, if it took more than it may; else nothing."""
        if self._verdict is not None:
            return self._verdict
        limit, peak = self._limits.memory, self._group.peak()
        if code == -signal.SIGKILL and limit and self._group.memory_kills():
            return decide.memory_exceeded(limit, peak or limit)
        return ""

    def end(self) -> None:
        """Ends what is left of it, wherever it hangs. Idempotent."""
        if self._watched is not None:
            self._holder.watchdog.let_go(self._watched)
        self._holder.end(self._group)


class Holder:
    """`node` tells the groups of several nodes of this machine apart."""

    def __init__(self, node: str, limits: Limits = LIMITS, groups: Groups | None = None) -> None:
        """`limits`: what a task may take that says nothing itself."""
        self.node = node
        self._limits = limits
        self._groups = Groups(node) if groups is None else groups
        self.plan = decide.plan(self._groups.controllers)
        self.watchdog = Watchdog()
        self._lock = threading.Lock()
        self._over: list[Group] = []
        """Groups that can't be removed yet."""

    @property
    def sentence(self) -> str:
        """What holds tasks to their limits, for people."""
        return decide.sentence(self.plan, self._groups.version, self._groups.why_not)

    def hold(self, task: str, memory: int | None, cpu: float | None) -> Held:
        """Prepares for a task, which has that memory in bytes and so many cores. Raises OSError."""
        limits = self._limits._replace(
            memory=memory if memory is not None else self._limits.memory,
            cpu=cpu if cpu is not None else self._limits.cpu,
        )
        self._clean_up()
        group = self._groups.make(task)
        try:
            group.limit(limits)
        except OSError:
            group.remove()
            raise
        return Held(self, limits, group)

    def end(self, group: Group) -> bool:
        """Ends all that are in a group; whether none is left."""
        if is_empty := group.end():
            with self._lock:
                self._over.append(group)
            self._clean_up()
        else:
            log.error("Processes of a task could not be ended: %s.", sorted(group.pids()))
        return is_empty

    def _clean_up(self) -> None:
        with self._lock:
            self._over = [group for group in self._over if not group.remove()]

    def recover(self) -> list[str]:
        """Ends what a daemon of this node that was killed has left; whose it was, by sentence."""
        told = []
        for task, group in self._groups.left().items():
            count = len(group.pids())
            if not self.end(group):
                told.append(f"Processes of session {task} could not be ended.")
            elif count:
                told.append(
                    f"{count} processes of session {task}, which the daemon before this one has "
                    "left, were ended."
                )
        if runtimes := marked(f"{_MARK}={self.node}"):  # that stood still, in no group
            kill_tree(runtimes)
            told.append(
                f"{len(runtimes)} processes of tasks, which the daemon before this one has left, "
                "were ended with all that they had started."
            )
        return told

    def close(self) -> None:
        """Idempotent."""
        self.watchdog.close()
        deadline = time.monotonic() + _REAPING_TIME
        while self._over and time.monotonic() < deadline:
            self._clean_up()
            time.sleep(0.005)
        self._groups.close()
