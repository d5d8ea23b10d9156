"""A scheduled swarm on a real manager and real nodes."""

from __future__ import annotations

from itertools import pairwise

from manta import Module, Swarm, Task
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running

WORKER = """
import time
from manta.light import World

class Worker:
    def setup(self):
        self.rounds = 0

    def execute(self):
        self.rounds += 1
        World().results.add("rounds", self.rounds)
"""

ONE_BY_ONE = """
import time
from manta.light import World

def main():
    begin = time.time()
    seen = World().results.select("rounds")
    time.sleep(0.05)
    World().results.add("span", [begin, time.time(), len(seen)])
"""


class Scheduled(Swarm):
    def __init__(self) -> None:
        self.worker = Task(Module(WORKER, name="worker"))
        self.checker = Task(Module(ONE_BY_ONE, name="checker"))
        self.schedule = [("worker", "parallel"), ("checker", "sequential")] * 3


def test_a_schedule_runs_in_order_and_one_by_one_where_it_says_so() -> None:
    with running(LocalCluster, 3) as cluster, client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, Scheduled())
        ended = api.wait_swarm(swarm, timeout=60)
        assert ended.status == "COMPLETED", ended.reason
        assert ended.iteration == 2
        results = api.get_swarm_results(swarm)
    for iteration in range(3):
        assert [r.value for r in results(iteration, "rounds")] == [iteration + 1] * 3
        spans = sorted(r.value for r in results(iteration, "span"))
        assert [seen for *_, seen in spans] == [3, 3, 3]
        for (_, end, _), (begin, *_) in pairwise(spans):
            assert end <= begin
