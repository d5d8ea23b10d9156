"""`check_swarm` of 1,000 tasks on two nodes: compiled, sent, placed, answered. Goal: 0.5 s.

In a chain, each with a module of its own; beside it the same for 100 tasks.
"""

from __future__ import annotations

import time

from manta import Module, Swarm, Task
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running
from tests.benchmarks._measure import spread


class Chain(Swarm):
    name = "chain"

    def __init__(self, count: int) -> None:
        self.tasks = [
            Task(Module(f"def main():\n    return {number}\n", name=f"task-{number}"))
            for number in range(count)
        ]

    def execute(self) -> Task:
        last = self.tasks[0]()
        for task in self.tasks[1:]:
            last = task(last)
        return last


def main() -> None:
    with running(LocalCluster, 2) as local, client(local) as api:
        for count in (100, 1000):
            swarm, seconds = Chain(count), []
            for _ in range(5):
                begin = time.perf_counter()
                plan = api.check_swarm(CLUSTER, swarm)
                seconds.append(time.perf_counter() - begin)
                assert not plan.problems
                assert len(plan.placements) == 2 * count
            print(f"{count} tasks: {spread(seconds)}")
