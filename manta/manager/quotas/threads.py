"""How many threads the manager may have: each swarm that is not over costs one."""

from __future__ import annotations

import resource
from pathlib import Path

MOST_LIVE = 1000
"""Swarms that are not over, of all users together, however many threads there may be."""


def live_swarms() -> int:
    """Half of the threads that this machine or container allows, so that there are always some
    left for a start."""
    return min(MOST_LIVE, *(bound // 2 for bound in _bounds()))


def _bounds(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> list[int]:
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    found = [] if soft == resource.RLIM_INFINITY else [soft]
    files = [proc / "sys/kernel/threads-max", cgroup / "pids.max", cgroup / "pids/pids.max"]
    try:
        own = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        own = []
    for line in own:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            files.append(cgroup / path.lstrip("/") / "pids.max")
        elif controllers == "pids":
            files.append(cgroup / "pids" / path.lstrip("/") / "pids.max")
    for file in files:
        try:
            found.append(int(file.read_text()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return found or [2 * MOST_LIVE]
