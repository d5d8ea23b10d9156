"""A manager and nodes as processes, a swarm, and what only the whole can show."""

from __future__ import annotations

import subprocess
import threading
import time

from manta import Module, Swarm, Task
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running
from tests.support.children import Child

COUNTER = """
import time
from manta.light import World

def main():
    world = World()
    for step in range(6):
        print("step", step, flush=True)
        time.sleep(0.2)
    world.results.add("count", world.globals.get("count", 0) + 1)
    world.globals["count"] = world.globals.get("count", 0) + 1
"""


class Counter(Swarm):
    def __init__(self) -> None:
        super().__init__(max_iteration=3)

    def execute(self) -> Task:
        return Task(Module(COUNTER, name="counter"), method="any")


def test_manager_killed_in_mid_swarm_and_started_again_has_lost_nothing() -> None:
    with running(LocalCluster, 1) as cluster, client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, Counter())
        kinds: list[str] = []
        reader = threading.Thread(
            target=lambda: kinds.extend(event.kind for event in api.stream_events(swarm))
        )
        reader.start()
        while not api.collect_logs(swarm):
            time.sleep(0.02)
        manager = cluster.children[0]
        manager.process.kill()
        manager.ended.wait(60)
        command: list[str] = manager.process.args  # type: ignore[assignment]
        command = command[: command.index("--fds")]
        with Child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as anew:
            try:
                ended = api.wait_swarm(swarm, timeout=60)
                assert ended.status == "COMPLETED", ended.reason
                assert api.get_swarm_results(swarm)("count").values() == [1, 2, 3]
                assert api.select_global(swarm, "count") == 3
                lines = [line.text for line in api.collect_logs(swarm)]
                assert lines == [f"step {i}" for i in range(6)] * 3
                reader.join(60)
                assert kinds.count("iteration") == 6
            finally:
                anew.terminate()
                reader.join(60)


FLOOD = """
from manta.light import World

def main():
    world = World()
    for i in range(100):
        world.results.add(f"t{i}", bytes(60_000))
    world.results.add("large", bytes(50_000_000))
    for i in range(1000):
        print("x" * 10_000)
    print("y" * 6_000_000)
    return bytes(60_000)
"""


MANY = """
from manta.light import World

def main():
    World().results.add("many", World().rank.to_bytes(1, "big") * 60_000)
    return bytes(60_000)
"""

COLLECT = """
from manta.light import World

def main():
    return [value[0] for value in World().get_results("many")]
"""


class Flood(Swarm):
    def execute(self) -> Task:
        many = Task(Module(MANY, name="many"), replicas=80)
        collect = Task(Module(COLLECT, name="collect"), method="any")(many)
        return Task(Module(FLOOD, name="flood"), method="any")(collect)


def test_much_at_once_comes_in_pages() -> None:
    with running(LocalCluster, 1) as cluster, client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, Flood())
        ended = api.wait_swarm(swarm, timeout=60)
        assert ended.status == "COMPLETED", ended.reason
        results = api.get_swarm_results(swarm)
        assert len(results) == 181
        assert len(results("large")[0].value) == 50_000_000
        text = "".join(line.text for line in api.collect_logs(swarm))
        assert text.count("x") == 10_000_000
        assert text.count("y") == 6_000_000
        tasks = api.get_tasks(swarm)
        assert len(tasks) == 82
        assert [len(task.output) for task in tasks[:80]] == [60_000] * 80
        assert tasks[80].output == list(range(80))
