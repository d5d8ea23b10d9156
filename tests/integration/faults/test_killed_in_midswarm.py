"""Processes that are killed in mid-swarm, with a real manager and real nodes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.overviews import TaskOverview
from manta.cli.loading import load_swarm
from manta.cli.local.cluster import CLUSTER
from manta.testing import wait_until
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.restarts import QuickToGiveUp, Restartable

EXAMPLE = Path(__file__).parents[3] / "examples" / "fl_digits"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    command = [sys.executable, str(EXAMPLE / "make_shards.py"), "--folder", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return f"{folder}/node{{i}}.npz"


@pytest.fixture
def cluster(shards: str) -> Iterator[Restartable]:
    with running(QuickToGiveUp, 4, digits=shards) as cluster:
        assert isinstance(cluster, Restartable)
        yield cluster


@pytest.fixture
def api(cluster: Restartable) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


SLEEPER = """
import time
from manta.light import World

def main():
    while World().globals.get("go") is None:
        time.sleep(0.05)
    return World().node_id
"""


class Sleeps(Swarm):
    """One task that runs until the global `go` is set."""

    def __init__(self, method: str, **more: Any) -> None:
        super().__init__()
        self.task = Task(Module(SLEEPER, name="sleeper"), method=method, **more)

    def execute(self) -> Task:
        return self.task()


def tasks_running(api: UserAPI, swarm: str) -> list[TaskOverview]:
    return [task for task in api.get_tasks(swarm) if task.status == "RUNNING"]


def test_a_node_that_is_killed_in_mid_round(cluster: Restartable, api: UserAPI) -> None:
    anywhere = api.deploy_swarm(CLUSTER, Sleeps("any")).swarm_id
    wait_until(lambda: len(tasks_running(api, anywhere)) == 1)
    (attempt,) = tasks_running(api, anywhere)
    everywhere = api.deploy_swarm(CLUSTER, Sleeps("all")).swarm_id
    enough = api.deploy_swarm(CLUSTER, Sleeps("all", quorum=0.75)).swarm_id
    alive = api.deploy_swarm(CLUSTER, Sleeps("all", quorum="alive", deadline="auto")).swarm_id
    for swarm in everywhere, enough, alive:
        wait_until(lambda swarm=swarm: len(tasks_running(api, swarm)) == 4)  # type: ignore[misc]

    cluster.kill(attempt.node_alias)

    # All: it can't be done without the node, and the reason names it.
    ended = api.wait_swarm(everywhere, timeout=60)
    assert ended.status == "FAILED"
    assert attempt.node_alias in ended.reason
    # Any: placed again, on another node.
    wait_until(lambda: len(tasks_running(api, anywhere)) == 1)
    (again,) = tasks_running(api, anywhere)
    assert again.node_alias != attempt.node_alias
    assert again.attempt == 1
    # A quorum of three in four holds without it, and so does one of everybody alive.
    for swarm in anywhere, enough, alive:
        api.set_global(swarm, "go", True)
        assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    said = " ".join(event.sentence for event in api.stream_events(alive))
    assert f"{attempt.node_alias} was lost" in said


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_manager_that_ends_in_mid_swarm_and_comes_back(
    cluster: Restartable, api: UserAPI, how: str
) -> None:
    swarm = load_swarm(str(EXAMPLE / "swarm.py"), {"rounds": "12", "target": "2.0"})
    deployed = api.deploy_swarm(CLUSTER, swarm)
    wait_until(lambda: api.get_swarm(deployed).iteration >= 3)
    before = {
        (item.iteration, item.node_id): item.value
        for item in api.get_swarm_results(deployed, "evaluated")
    }
    (cluster.kill if how == "killed" else cluster.end)("manager")
    cluster.again("manager")
    wait_for_nodes(api, 4)
    ended = api.wait_swarm(deployed, timeout=120)
    assert ended.status == "COMPLETED", ended.reason
    assert ended.iteration == 11
    results = api.get_swarm_results(deployed, "evaluated")
    after = {(item.iteration, item.node_id): item.value for item in results}
    assert len(results) == len(after) == 12 * 4  # nothing lost, nothing twice
    assert {key: after[key] for key in before} == before
    assert [info.name for info in api.list_clusters()] == [CLUSTER]


def test_a_user_who_streams_while_the_manager_is_away(cluster: Restartable, api: UserAPI) -> None:
    deployed = api.deploy_swarm(CLUSTER, Sleeps("all"))
    wait_until(lambda: len(tasks_running(api, deployed.swarm_id)) == 4)
    seen: list[str] = []
    reader = threading.Thread(
        target=lambda: seen.extend(e.sentence for e in api.stream_events(deployed))
    )
    reader.start()
    cluster.kill("manager")
    cluster.again("manager")
    wait_for_nodes(api, 4)
    api.set_global(deployed, "go", True)
    assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
    reader.join(60)
    assert not reader.is_alive()
    assert len(seen) == len(set(seen))
