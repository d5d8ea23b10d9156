"""Whether the kernel has killed a process of this task, as it took more memory than it may."""

from __future__ import annotations

_COUNTERS = (  # of cgroups v2 and v1, as the container sees its own
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
)


def kills(events: str | None = None) -> int:
    """How often so far, as that file counts; 0 where that is not counted."""
    for path in _COUNTERS if events is None else (events,):
        try:
            with open(path) as file:
                counts = dict(line.split() for line in file)
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0
