"""A FedAvg round without training over 8 nodes on this machine, as `manta run` starts it.

CURVE, SQLite and journals on. Median of 20 rounds, the first apart, and where the time
of a round went; beside it, bare pyzmq with CURVE moving the same bytes between as many
processes in the same run. Budgets: 0.4 MB 0.2 s, 10 MB 1.0 s.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.errors import WaitTimeout
from manta.apis.overviews import TaskOverview
from manta.apis.swarm import Swarm
from manta.apis.user_api import UserAPI
from manta.cli.live.timing import Span, shares
from manta.cli.loading import load_swarm
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.console.interrupts import Interrupts
from tests.benchmarks._measure import spread

NODES = 8
ROUNDS = 21
SWARM = Path(__file__).parent / "swarms" / "round.py"
BARE = Path(__file__).parent / "swarms" / "bare_round.py"


@contextmanager
def cluster() -> Iterator[UserAPI]:
    with Interrupts() as interrupts:
        local = LocalCluster(NODES, {}, interrupts)
        try:
            interrupts.begin()
            local.start()
            target = Target(HOST, local.user_port, "bench", server_key=local.manager_keys.public)
            with UserAPI.over(Session(target, local.keys)) as api:
                while sum(n.status == "CONNECTED" for n in api.list_nodes(CLUSTER)) < NODES:
                    time.sleep(0.02)
                yield api
        finally:
            interrupts.finish()
            local.stop(keep=False)


def run(megabytes: float, stages: int) -> tuple[list[float], list[dict[str, float]]]:
    """Seconds of each round, and of its parts."""
    parameters = {"megabytes": str(megabytes), "rounds": str(ROUNDS), "stages": str(stages)}
    with cluster() as api:
        return seconds_of_rounds(api, load_swarm(str(SWARM), parameters))


def seconds_of_rounds(api: UserAPI, swarm: Swarm) -> tuple[list[float], list[dict[str, float]]]:
    """Seconds of each iteration of a swarm that is run to its end, and of its parts."""
    deployed = api.deploy_swarm(CLUSTER, swarm)
    try:
        ended = api.wait_swarm(deployed, timeout=300)
    except WaitTimeout:
        api.stop_swarm(deployed, force=True)
        raise
    if ended.status != "COMPLETED":
        sys.exit(f"the swarm {ended.status}: {ended.reason}")
    tasks: dict[int, list[TaskOverview]] = defaultdict(list)
    for task in api.get_tasks(deployed):
        tasks[task.iteration].append(task)
    seconds, parts = [], []
    for iteration in sorted(tasks):
        spans = [
            Span(task.placed_at, task.ended_at, task.timings)
            for task in tasks[iteration]
            if task.ended_at is not None and task.timings is not None
        ]
        begin = min(span.placed_at for span in spans)
        end = max(span.ended_at for span in spans)
        seconds.append(end - begin)
        parts.append(shares(begin, end, spans))
    api.remove_swarm(deployed)  # its values would take room beside those of the next
    return seconds, parts


def bare(megabytes: float) -> float:
    """Median seconds of one round's bytes over bare pyzmq with CURVE."""
    printed = subprocess.run(
        [sys.executable, str(BARE), str(megabytes), str(NODES), "6"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return statistics.median(json.loads(printed))


def main() -> None:
    for megabytes, stages, budget in ((0.4, 2, 200), (10, 2, 1000), (0.4, 4, None), (10, 4, None)):
        seconds, parts = run(megabytes, stages)
        wanted = f"; budget {budget} ms" if budget else ""
        print(f"{megabytes:g} MB, {stages} stages: {spread(seconds[1:])}{wanted}")
        print(f"    first round {seconds[0] * 1000:.0f} ms; median of each part:", end="")
        for part in parts[0]:
            middle = statistics.median(split[part] for split in parts[1:])
            print(f" {part} {middle * 1000:.0f}", end="")
        print(" ms")
        if stages == 2:
            baseline = bare(megabytes)
            ratio = statistics.median(seconds[1:]) / baseline
            print(
                f"    bare pyzmq with CURVE, the same bytes: {baseline * 1000:.0f} ms; {ratio:.1f}x"
            )
