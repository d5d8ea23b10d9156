"""How many threads the manager may have: each swarm that is not over costs one."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

from manta.manager.quotas import control_groups
from manta.manager.quotas.control_groups import CGROUP, PROC

MOST_LIVE = 1000
"""Swarms that are not over, of all users together, however many threads there may be."""


def live_swarms() -> int:
    """Half of the threads that this machine or container allows, so that there are always some
    left for a start."""
    return min(MOST_LIVE, *(bound // 2 for bound in _bounds()))


def _bounds(proc: Path = PROC, cgroup: Path = CGROUP) -> list[int]:
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    found = [] if soft == resource.RLIM_INFINITY else [soft]
    with contextlib.suppress(OSError, ValueError):
        found.append(int((proc / "sys/kernel/threads-max").read_text()))
    found += control_groups.bounds("pids", "pids.max", "pids.max", proc, cgroup)
    return found or [2 * MOST_LIVE]
