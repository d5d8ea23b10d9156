"""Control groups of tasks, v1 and v2, where this process may make any.

Each node has a folder of groups in its own group, `manta-NODE`, by which a daemon finds what an
earlier one has left; each task has a group in it. With v1 there is such a folder in the hierarchy
of each controller. With v2 a group that hands controllers on may have no processes itself: those
of the node go to a group `manta-daemon` beside its tasks', if there are no others
(https://docs.kernel.org/admin-guide/cgroup-v2.html, "No Internal Process Constraint").
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final, NamedTuple

from manta.light.runtime.processes import descendants, send
from manta.node.isolation.limits import Limits

CONTROLLERS: Final = ("memory", "cpu", "pids")
_DAEMON = "manta-daemon"
_PERIOD = 100_000  # microseconds
_ENDING_TIME = 3.0


class Hierarchy(NamedTuple):
    """Where this process is in a tree of groups."""

    version: int
    controllers: frozenset[str]
    """Of v1 alone: those of v2 are in a file."""
    group: Path


def hierarchies(mounts: str, own: str) -> list[Hierarchy]:
    """Of `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7))."""
    paths = {}
    for line in own.splitlines():
        number, controllers, path = line.split(":", 2)
        key = frozenset(controllers.split(",")) if controllers else frozenset[str]()
        if number == "0" or controllers:
            paths[key] = path
    found = []
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        root, at = fields.split()[3:5]
        kind, _, options = [*rest.split(), "", "", ""][:3]
        if kind == "cgroup2" and frozenset() in paths:
            found.append(Hierarchy(2, frozenset(), _beneath(at, root, paths[frozenset()])))
        elif kind == "cgroup":
            for mine, path in paths.items():
                if mine and mine <= frozenset(options.split(",")):
                    found.append(Hierarchy(1, mine, _beneath(at, root, path)))
    return found


def _beneath(at: str, root: str, path: str) -> Path:
    """Where the group of that path is, in a mount that shows the tree from `root` on."""
    inside = path.removeprefix(root.rstrip("/")) if path.startswith(root) else path
    return Path(at + inside)


class Group:
    """A task's group: one folder, or with v1 one for each controller."""

    def __init__(self, version: int, folders: dict[str, Path]) -> None:
        """`folders` by controller."""
        self.version = version
        self._folders = folders

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(self._folders)

    @property
    def memory_events(self) -> Path | None:
        """The file that counts whom the kernel has killed there for lack of memory."""
        folder = self._folders.get("memory")
        return folder and folder / ("memory.events" if self.version == 2 else "memory.oom_control")

    def limit(self, limits: Limits) -> None:
        """Raises OSError."""
        for controller, name, value in settings(self.version, limits):
            folder = self._folders.get(controller)
            if folder is not None and (folder / name).exists():  # swap may not be counted
                (folder / name).write_text(value)

    @property
    def entries(self) -> list[Path]:
        """The files to which a process writes 0 to be in it, with all that it starts."""
        return [folder / "cgroup.procs" for folder in dict.fromkeys(self._folders.values())]

    def peak(self) -> int | None:
        """The most bytes that it has had at a time, with files in the page cache."""
        folder = self._folders.get("memory")
        name = "memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"
        try:
            return int((folder / name).read_text()) if folder else None
        except OSError:
            return None  # v2 has it from Linux 5.19 on

    def cpu_time(self) -> float | None:
        """Seconds that its processes have run."""
        folder = self._folders.get("cpu")
        try:
            if folder is None:
                return None
            if self.version == 2:
                return _count(folder / "cpu.stat", "usage_usec") / 1e6
            return int((folder / "cpuacct.usage").read_text()) / 1e9
        except (OSError, ValueError):
            return None  # v1 may have it in another hierarchy

    def most_processes(self) -> int | None:
        """The most that it has had at a time, with threads."""
        folder = self._folders.get("pids")
        try:
            return int((folder / "pids.peak").read_text()) if folder else None
        except (OSError, ValueError):
            return None  # Linux has it from 6.1 on

    def memory_kills(self) -> int:
        """How many of its processes the kernel has killed, since it had no more memory."""
        return 0 if self.memory_events is None else _count(self.memory_events, "oom_kill")

    def refused_forks(self) -> int:
        folder = self._folders.get("pids")
        return 0 if folder is None else _count(folder / "pids.events", "max")

    def pids(self) -> set[int]:
        found = set()
        for entry in self.entries:
            with contextlib.suppress(OSError):
                found |= set(map(int, entry.read_text().split()))
        return found

    def end(self) -> bool:
        """Kills all that are in it; whether none is left."""
        deadline = time.monotonic() + _ENDING_TIME
        if "pids" in self._folders:
            with contextlib.suppress(OSError):  # nobody forks any more
                (self._folders["pids"] / "pids.max").write_text("0")
        while pids := self.pids():
            if time.monotonic() > deadline:  # in uninterruptible sleep
                return False
            for pid in pids:
                send(pid, signal.SIGKILL)
            time.sleep(0.002)
        return True

    def remove(self) -> bool:
        """Whether it is gone. It stays until whoever adopted its processes has reaped them."""
        try:
            for folder in dict.fromkeys(self._folders.values()):
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()
        except OSError:
            return False
        return True


def settings(version: int, limits: Limits) -> list[tuple[str, str, str]]:
    """Controller, file and content, in the order in which they are to be written."""
    found = [("pids", "pids.max", str(limits.processes))]
    if limits.memory is not None:
        first, swap = (
            ("memory.max", ("memory.swap.max", "0"))
            if version == 2
            else ("memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", str(limits.memory)))
        )
        found += [("memory", first, str(limits.memory)), ("memory", *swap)]
    if limits.cpu is not None:
        quota = max(1000, int(limits.cpu * _PERIOD))  # the least that the kernel takes
        if version == 2:
            found.append(("cpu", "cpu.max", f"{quota} {_PERIOD}"))
        else:
            found.append(("cpu", "cpu.cfs_period_us", str(_PERIOD)))
            found.append(("cpu", "cpu.cfs_quota_us", str(quota)))
    return found


class Groups:
    """The groups of one node's tasks. Where it may make none, `why_not` says so."""

    def __init__(self, node: str, found: list[Hierarchy] | None = None) -> None:
        """`node` tells those of several nodes apart."""
        self.version = 0
        self.why_not = "the kernel offers no control groups here."
        self._parents: dict[str, Path] = {}
        for hierarchy in sorted(mounted() if found is None else found):
            try:
                self._use(hierarchy, f"manta-{node}")
            except OSError as error:
                self.why_not = (
                    f"control groups can't be made in {hierarchy.group} ({error.strerror}): run "
                    "the node as a service of systemd with Delegate=yes."
                )

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(self._parents)

    def _use(self, hierarchy: Hierarchy, name: str) -> None:
        if hierarchy.version == 1:
            for controller in hierarchy.controllers.intersection(CONTROLLERS):
                parent = hierarchy.group / name
                parent.mkdir(exist_ok=True)
                self._parents[controller] = parent
                self.version = 1
            return
        above = hierarchy.group
        if above.name == _DAEMON:
            above = above.parent
        offered = (above / "cgroup.controllers").read_text().split()
        wanted = [one for one in CONTROLLERS if one in offered and one not in self._parents]
        if not wanted:
            return
        _make_room(above)
        parent = above / name
        parent.mkdir(exist_ok=True)
        for folder in (above, parent):
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{one}" for one in wanted))
        self._parents.update(dict.fromkeys(wanted, parent))
        self.version = 2

    def make(self, task: str) -> Group:
        """Raises OSError."""
        folders = {controller: parent / task for controller, parent in self._parents.items()}
        for folder in dict.fromkeys(folders.values()):
            folder.mkdir()
        return Group(self.version, folders)

    def left(self) -> dict[str, Group]:
        """Those that are there, by task."""
        found: dict[str, dict[str, Path]] = {}
        for controller, parent in self._parents.items():
            with contextlib.suppress(FileNotFoundError):
                for folder in parent.iterdir():
                    if folder.is_dir():
                        found.setdefault(folder.name, {})[controller] = folder
        return {task: Group(self.version, folders) for task, folders in found.items()}

    def close(self) -> None:
        """Removes the node's folder, if no task is left in it."""
        for parent in dict.fromkeys(self._parents.values()):
            with contextlib.suppress(OSError):
                parent.rmdir()


def _make_room(above: Path) -> None:
    """Puts this process and what it has started into a group beneath. Raises OSError."""
    here = set(map(int, (above / "cgroup.procs").read_text().split()))
    if not here:
        return
    foreign = here - {os.getpid()} - descendants(os.getpid())
    if foreign:
        raise BlockingIOError(0, f"process {min(foreign)}, which is not the node's, is in it")
    daemon = above / _DAEMON
    daemon.mkdir(exist_ok=True)
    for pid in here:
        (daemon / "cgroup.procs").write_text(str(pid))


def mounted() -> list[Hierarchy]:
    """Those of this machine."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text()
        return hierarchies(mounts, Path("/proc/self/cgroup").read_text())
    except OSError:
        return []  # a kernel without them


def _count(path: Path, name: str) -> int:
    try:
        counts = dict(line.split() for line in path.read_text().splitlines())
        return int(counts.get(name, 0))
    except OSError:
        return 0
