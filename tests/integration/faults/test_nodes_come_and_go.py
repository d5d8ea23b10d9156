"""Nodes that come and go while swarms run: who takes part, and what is placed again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.cli.local.cluster import CLUSTER
from manta.testing import wait_until
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.restarts import QuickToGiveUp, Restartable

NODES = {"node-1", "node-2", "node-3", "node-4"}


@pytest.fixture
def cluster() -> Iterator[Restartable]:
    with running(QuickToGiveUp, 4) as cluster:
        assert isinstance(cluster, Restartable)
        yield cluster


@pytest.fixture
def api(cluster: Restartable) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


class One(Swarm):
    def __init__(self, task: Task, after: list[Task] | None = None, rounds: int = 1) -> None:
        super().__init__(max_iteration=rounds)
        self.task, self.after = task, after or []

    def execute(self) -> Task:
        return self.task(self.after)


HELD = Module(
    "import time\nfrom manta.light import World\ndef main():\n    world = World()\n"
    "    while world.iteration == 0 and 'go' not in world.globals:\n        time.sleep(0.05)\n",
    name="held",
)
WRITER = Module(
    "from manta.light import World\ndef main():\n    World().results.add('mark', 1)\n",
    name="writer",
)


def nodes_of(api: UserAPI, swarm: Any, iteration: int) -> set[str]:
    return {task.node_alias for task in api.get_tasks(swarm, iteration) if task.alias == "held"}


def test_nodes_that_join_take_part_unless_it_is_fixed(cluster: Restartable, api: UserAPI) -> None:
    api.stop_node("node-4")
    wait_until(lambda: api.get_node("node-4").status != "CONNECTED")
    assert api.list_available_node_ids(CLUSTER) == ["node-1", "node-2", "node-3"]
    fixed = api.deploy_swarm(CLUSTER, One(Task(HELD, fixed=True), rounds=2))
    free = api.deploy_swarm(CLUSTER, One(Task(HELD), rounds=2))
    wait_until(lambda: all(len(api.get_tasks(swarm)) == 3 for swarm in (fixed, free)))
    cluster.again("node-4")
    wait_for_nodes(api, 4)
    for swarm in (fixed, free):
        api.set_global(swarm, "go", True)
        assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    assert nodes_of(api, fixed, 1) == NODES - {"node-4"}
    assert nodes_of(api, free, 1) == NODES


def test_a_node_that_goes_in_mid_task_for_every_method(cluster: Restartable, api: UserAPI) -> None:
    forms: dict[str, One] = {
        "all": One(Task(HELD)),
        "quorum": One(Task(HELD, quorum=0.75)),
        "any": One(Task(HELD, "any", maximum=4)),
        "random": One(Task(HELD, "random")),
        "best_resources": One(Task(HELD, "best_resources")),
        "replicas": One(Task(HELD, replicas=4)),
        "tag": One(Task(HELD, "tag-mark"), [Task(WRITER)]),
    }
    swarms = {name: api.deploy_swarm(CLUSTER, swarm) for name, swarm in forms.items()}

    def runs(name: str) -> list[str]:
        tasks = api.get_tasks(swarms[name])
        return [t.node_alias for t in tasks if t.alias == "held" and t.ended_at is None]

    wait_until(lambda: all(set(runs(name)) == NODES for name in forms))
    cluster.kill("node-3")
    ended = api.wait_swarm(swarms["all"], timeout=60)
    assert ended.status == "FAILED"
    assert "node-3" in ended.reason
    again = ["any", "random", "best_resources", "replicas", "tag"]
    wait_until(lambda: all(len(runs(name)) == 4 for name in again))
    assert all("node-3" not in runs(name) for name in again)
    for name in [*again, "quorum"]:
        api.set_global(swarms[name], "go", True)
        ended = api.wait_swarm(swarms[name], timeout=60)
        assert ended.status == "COMPLETED", (name, ended.reason)
    said = [event.sentence for event in api.stream_events(swarms["quorum"])]
    assert any("node-3" in sentence for sentence in said), "who was left out is recorded"
