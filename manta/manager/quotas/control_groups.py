"""What the control groups of this process allow it: a container's limits, of either version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def bounds(
    controller: str, file: str, file_of_v1: str, proc: Path = PROC, cgroup: Path = CGROUP
) -> list[int]:
    """All that are set: of the process's own groups, and of the whole container."""
    found = []
    for path in _files(controller, file, file_of_v1, proc, cgroup):
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # there is none, or it says "max"
            continue
    return found


def _files(controller: str, file: str, file_of_v1: str, proc: Path, cgroup: Path) -> Iterator[Path]:
    yield cgroup / file
    yield cgroup / controller / file_of_v1
    try:
        own = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        own = []
    for line in own:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield cgroup / path.lstrip("/") / file
        elif controllers == controller:
            yield cgroup / controller / path.lstrip("/") / file_of_v1
