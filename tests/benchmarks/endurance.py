"""20,000 iterations with values on two nodes: what each process holds while they run.

Descriptors, threads and memory (PSS) of the manager, the nodes with their planes and the tasks'
runtimes, and the files on disk, when a tenth, a half and nearly all of the iterations are done.
Descriptors and threads are to stay as they are, and so is memory once caches are full: a manager's
after about a thousand iterations (the page on the manager says with what). What the manager must be
able to tell of an iteration (its events, its results) grows with their number in its database, as
does a node's list of what ran on it (its audit log, which is bounded), and nothing else does.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil

from manta.apis.user_api import UserAPI
from manta.cli.loading import load_swarm
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running
from tests.benchmarks._measure import pss

SWARM = Path(__file__).parent / "swarms" / "endurance.py"
ITERATIONS = int(os.environ.get("MANTA_ENDURANCE", "20000"))
_KINDS = {
    "manta.manager": "manager",
    "manta.node": "node",
    "manta.node.plane": "plane",
    "manta.light": "runtime",
}
"""By the module that a process runs."""
LISTS = "audit"

Sample = tuple[int, int, int]
"""Descriptors, threads, bytes of memory."""


def _processes() -> dict[str, psutil.Process]:
    """The daemons and runtimes under this process, without the rounds that come and go."""
    found: dict[str, psutil.Process] = {}
    counts = dict.fromkeys(_KINDS.values(), 0)
    for process in psutil.Process().children(recursive=True):
        try:
            command, parent = process.cmdline(), process.parent()
            forked = parent is not None and parent.cmdline() == command
        except psutil.Error:
            continue
        kind = next((kind for module, kind in _KINDS.items() if module in command), None)
        if kind is not None and not forked:
            counts[kind] += 1
            found[f"{kind} {counts[kind]}"] = process
    return found


def _sample(folder: Path) -> tuple[dict[str, Sample], dict[str, tuple[int, int]]]:
    held = {}
    for name, process in _processes().items():
        try:
            held[name] = process.num_fds(), process.num_threads(), pss(process.pid)
        except (psutil.Error, OSError):
            continue
    disk: dict[str, tuple[int, int]] = {}
    for part in sorted(path for path in folder.iterdir() if path.is_dir()):
        for file in part.rglob("*"):
            try:
                size = file.stat().st_size if file.is_file() else 0
            except OSError:
                continue  # it has been deleted
            name = LISTS if LISTS in file.parts else f"{part.name}/"
            count, before = disk.get(name, (0, 0))
            disk[name] = count + 1, before + size
    return held, disk


def _run(api: UserAPI, folder: Path) -> None:
    deployed = api.deploy_swarm(CLUSTER, load_swarm(str(SWARM), {"rounds": str(ITERATIONS)}))
    marks = [ITERATIONS // 10, ITERATIONS // 2, ITERATIONS * 19 // 20]
    began = time.perf_counter()
    samples: list[tuple[int, dict[str, Sample], dict[str, tuple[int, int]]]] = []
    while not (swarm := api.get_swarm(deployed)).ended:
        if len(samples) < len(marks) and swarm.iteration >= marks[len(samples)]:
            samples.append((swarm.iteration, *_sample(folder)))
        time.sleep(0.2)
    if swarm.status != "COMPLETED":
        sys.exit(f"the swarm {swarm.status}: {swarm.reason}")
    spent = time.perf_counter() - began
    print(f"{ITERATIONS} iterations in {spent:.0f} s, {spent / ITERATIONS * 1000:.1f} ms each")
    print(f"{'':12}" + "".join(f"  {f'iteration {at}':>30}" for at, _, _ in samples))
    for name in samples[0][1]:
        row = (held.get(name, (0, 0, 0)) for _, held, _ in samples)
        cells = (f"{fds} fds {threads} threads {size / 1e6:.1f} MB" for fds, threads, size in row)
        print(f"{name:12}" + "".join(f"  {cell:>30}" for cell in cells))
    for name in samples[0][2]:
        sizes = (disk.get(name, (0, 0)) for _, _, disk in samples)
        cells = (f"{count} files {size / 1e6:.1f} MB" for count, size in sizes)
        print(f"{name:12}" + "".join(f"  {cell:>30}" for cell in cells))


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f}")
    with running(LocalCluster, 2) as local, client(local) as api:
        _run(api, local.folder)
