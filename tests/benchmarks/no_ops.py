"""10,000 task instances that do nothing, through one manager and two nodes, warm.

`fresh` instances run in a process of their own, forked for each; `resident` ones in an
object that lives on. Instances a second over all but the first iteration, and the CPU that
one took where. Beside them in the same run, as many bare forks from two processes, and a
`ProcessPoolExecutor` of two, which isolates nothing. Goal: 500 a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import psutil

from manta.apis.user_api import UserAPI
from manta.cli.loading import load_swarm
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running

SWARM = Path(__file__).parent / "swarms" / "no_ops.py"
INSTANCES, ROUNDS = 100, 101
FORKS = """
import os
for _ in range({count}):
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
"""


def _nothing(_: int) -> None:
    """What a pool is given to do."""


def _cpu() -> dict[str, float]:
    """Seconds of CPU by kind of process so far; ended rounds count with their runtime."""
    used: defaultdict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        try:
            command, times = process.cmdline(), process.cpu_times()
        except psutil.Error:
            continue  # a round that has ended
        kind = next((kind for kind in _KINDS if f"manta.{kind}" in command), None)
        if kind is not None:
            used[kind] += times.user + times.system
            used[kind] += times.children_user + times.children_system if kind == "light" else 0.0
    return used


_KINDS = ("manager", "node", "light")


def rate(api: UserAPI, rounds: int, *, resident: bool) -> tuple[float, dict[str, float]]:
    """Instances a second, over all but the first iteration; milliseconds of CPU for one."""
    parameters = {"instances": str(INSTANCES), "rounds": str(rounds), "resident": str(resident)}
    deployed = api.deploy_swarm(CLUSTER, load_swarm(str(SWARM), parameters))
    samples: list[dict[str, float]] = []
    for sample in _until_ended(api, deployed.swarm_id):
        samples.append(sample)
    tasks = [task for task in api.get_tasks(deployed) if task.iteration > 0]
    first = min(task.placed_at for task in tasks)
    last = max(task.ended_at or 0.0 for task in tasks)
    if len(tasks) != INSTANCES * (rounds - 1):
        sys.exit(f"{len(tasks)} attempts, not {INSTANCES * (rounds - 1)}: the figures would lie")
    cpu = {kind: (samples[-1][kind] - samples[0][kind]) / len(tasks) * 1000 for kind in _KINDS}
    return len(tasks) / (last - first), cpu


def _until_ended(api: UserAPI, swarm_id: str) -> Iterator[dict[str, float]]:
    """CPU from when the first iteration is over to just before the end."""
    while (swarm := api.get_swarm(swarm_id)).iteration < 1:
        time.sleep(0.05)
    while not swarm.ended:
        yield _cpu()
        time.sleep(0.2)
        swarm = api.get_swarm(swarm_id)
    if swarm.status != "COMPLETED":
        sys.exit(f"the swarm {swarm.status}: {swarm.reason}")


def forks(count: int) -> float:
    """Bare forks a second, from two processes."""
    code = [sys.executable, "-c", FORKS.format(count=count // 2)]
    begin = time.perf_counter()
    for process in [subprocess.Popen(code) for _ in range(2)]:
        process.wait()
    return count / (time.perf_counter() - begin)


def pool(count: int) -> float:
    """Calls of a pool of two processes a second."""
    with ProcessPoolExecutor(2, get_context("fork")) as both:
        list(both.map(_nothing, range(2)))
        begin = time.perf_counter()
        for future in [both.submit(_nothing, number) for number in range(count)]:
            future.result()
        return count / (time.perf_counter() - begin)


def main() -> None:
    count = INSTANCES * (ROUNDS - 1)
    print(f"load {os.getloadavg()[0]:.1f}")
    with running(LocalCluster, 2) as local, client(local) as api:
        for resident in (False, True):
            reached, cpu = rate(api, ROUNDS, resident=resident)
            spent = ", ".join(f"{kind} {used:.2f}" for kind, used in cpu.items())
            name = "resident" if resident else "fresh"
            print(f"{name}: {reached:.0f} a second; ms of CPU for one: {spent}")
    print(f"bare forks: {forks(count):.0f} a second; a process pool: {pool(count):.0f}")
