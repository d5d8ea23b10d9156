"""What a task may take of its machine, by what it is held to that, and in which words. Pure.

A control group counts all that a task's processes take together and refuses more. Where the node
may make none, it measures its tasks (`watchdog`) and ends one that takes more: later, and dearer,
but alone and with its peak.
"""

from __future__ import annotations

import resource
from collections.abc import Collection
from enum import StrEnum
from typing import Final, NamedTuple

PROCESSES: Final = 1024
"""Processes and threads that a task may have if nothing else was said."""
FILES: Final = 65_536
"""Descriptors of each process; a large value that is mapped takes one."""
FASTEST: Final = 4 << 30
"""Bytes a second at which a task can come to use memory, as far as is worth looking."""
SOONEST, LATEST = 0.02, 0.5
"""Seconds between two measurements."""
UNLIMITED: Final = (
    "Nothing limits what a task reads and writes of the disk, and sends and receives, in a second."
)
"""What no level holds a task to, for people."""
_MIB = 1 << 20


class Limits(NamedTuple):
    memory: int | None = None
    """Bytes, of all its processes together."""
    cpu: float | None = None
    """Cores."""
    processes: int = PROCESSES
    """With threads."""
    files: int = FILES


LIMITS: Final = Limits()


class Means(StrEnum):
    """By what a limit is kept."""

    GROUP = "a control group"
    WATCHED = "measurements"
    NOTHING = "nothing"


class Plan(NamedTuple):
    memory: Means
    cpu: Means
    processes: Means

    @property
    def watches(self) -> bool:
        return Means.WATCHED in (self.memory, self.processes)


def plan(controllers: Collection[str]) -> Plan:
    """By what each limit is kept where groups can be made with these controllers."""

    def means(controller: str, otherwise: Means) -> Means:
        return Means.GROUP if controller in controllers else otherwise

    return Plan(
        means("memory", Means.WATCHED),
        means("cpu", Means.NOTHING),
        means("pids", Means.WATCHED),
    )


def sentence(plan: Plan, version: int, why_not: str) -> str:
    """For the node's operator: what holds tasks to their limits, and why not more."""
    groups = [name for name, means in plan._asdict().items() if means is Means.GROUP]
    watched = [name for name, means in plan._asdict().items() if means is Means.WATCHED]
    told = []
    if groups:
        told.append(f"Control groups (v{version}) hold tasks to their {_and(groups)}.")
    if watched:
        told.append(
            f"Of a task are measured {_and(watched)}, and one that takes more is ended, up to "
            f"{LATEST:g} s late: {why_not}"
        )
    if plan.cpu is Means.NOTHING:
        told.append("Nothing holds a task to its cpu but the threads that libraries start.")
    return " ".join((*told, UNLIMITED))


def rlimits(limits: Limits, plan: Plan, others: int) -> dict[int, int]:
    """Of each process, by `resource.RLIMIT_*`, soft and hard.

    `others` are the threads that the node's user has. That user's bound on all of them is no
    bound on a task; it stops one that forks faster than it is measured, unless the user is root.
    """
    found = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: limits.files}
    if plan.processes is Means.WATCHED:
        found[resource.RLIMIT_NPROC] = others + 2 * limits.processes
    return found


class Measured(NamedTuple):
    """What the processes of a task have."""

    memory: int
    """Bytes, memory that several share counted once."""
    processes: int
    """With threads."""


def excess(measured: Measured, limits: Limits, plan: Plan) -> str | None:
    """What is told of a task that is over what it may and is not held otherwise."""
    if plan.memory is Means.WATCHED and limits.memory and measured.memory > limits.memory:
        return memory_exceeded(limits.memory, measured.memory)
    if plan.processes is Means.WATCHED and measured.processes > limits.processes:
        return (
            f"It had {measured.processes:,} processes and threads, and may have "
            f"{limits.processes:,}: start fewer at a time."
        )
    return None


def memory_exceeded(limit: int, peak: int) -> str:
    return f"It took {more_memory(limit, peak)}"


def more_memory(limit: int, peak: int | None = None) -> str:
    """The end of a sentence. `peak`: what it took, where that is known."""
    taken = "" if peak is None else f"{peak / _MIB:,.0f} of "
    return (
        f"more memory than it may, {taken}{limit / _MIB:,.0f} MiB: have its module or task ask for "
        "more (resources={'memory': ...}), or take less."
    )


def pause(memory: int, limit: int | None) -> float:
    """Seconds until a task is measured again: sooner, the nearer it is to its limit."""
    if limit is None:
        return LATEST
    return min(LATEST, max(SOONEST, (limit - memory) / FASTEST))


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
