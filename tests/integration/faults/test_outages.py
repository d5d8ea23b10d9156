"""Nothing that a task tells is lost or told twice when its manager goes away, however it goes."""

from __future__ import annotations

import signal
import subprocess
import threading
import time

from manta import Module, Swarm, Task, UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running

NODES, STEPS, OUTAGES = 2, 300, 8
TALKATIVE = f"""
import time
from manta.light import World

def main():
    world = World()
    for step in range({STEPS}):
        world.log_metrics({{"value": step}}, step=step)
        print("step", step)
        if step % 10 == 0:
            world.results.add("step", step)
        time.sleep(0.02)
"""


class Talkative(Swarm):
    def execute(self) -> Task:
        return Task(Module(TALKATIVE, name="talkative"))


class Seen:
    """What readers that were there all the time have seen."""

    def __init__(self, api: UserAPI, swarm_id: str) -> None:
        self.metrics: list[tuple[str, int | None]] = []
        self.lines: list[tuple[str, str]] = []
        self.results: list[tuple[str, object]] = []
        self._threads = [
            threading.Thread(
                target=lambda: self.metrics.extend(
                    (item.node_alias, item.step) for item in api.stream_metrics(swarm_id)
                )
            ),
            threading.Thread(
                target=lambda: self.lines.extend(
                    (line.node_alias, line.text) for line in api.stream_logs(swarm_id)
                )
            ),
            threading.Thread(
                target=lambda: self.results.extend(
                    (item.node_alias, item.value) for item in api.stream_results(swarm_id)
                )
            ),
        ]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)


def test_short_outages_of_the_manager_lose_nothing() -> None:
    with running(LocalCluster, NODES) as cluster, client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, Talkative()).swarm_id
        seen = Seen(api, swarm)
        while not api.get_metrics(swarm):
            time.sleep(0.02)
        manager = cluster.children[0]
        command: list[str] = manager.process.args  # type: ignore[assignment]
        command = command[: command.index("--fds")]
        process: subprocess.Popen[bytes] = manager.process
        try:
            for number in range(OUTAGES):
                process.send_signal((signal.SIGKILL, signal.SIGTERM)[number % 2])
                process.wait(60)
                time.sleep(0.1 * (number % 4))
                quiet = subprocess.DEVNULL
                process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
                time.sleep(0.3 + 0.2 * (number % 3))
            ended = api.wait_swarm(swarm, timeout=60)
            assert ended.status == "COMPLETED", ended.reason
            seen.join()
            nodes = [f"node-{number}" for number in range(1, NODES + 1)]
            every = [(node, step) for node in nodes for step in range(STEPS)]
            told = sorted((item.node_alias, item.step) for item in api.get_metrics(swarm))
            assert told == every
            assert sorted(seen.metrics) == every
            lines = sorted((node, f"step {step}") for node, step in every)
            assert sorted((line.node_alias, line.text) for line in api.collect_logs(swarm)) == lines
            assert sorted(seen.lines) == lines
            written = [(node, step) for node, step in every if step % 10 == 0]
            assert sorted(seen.results) == written
        finally:
            process.terminate()
            process.wait(60)
            seen.join()
