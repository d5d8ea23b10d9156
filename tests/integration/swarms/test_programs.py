"""Programs as their users write them, whole and on real nodes, one cluster for all."""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from manta import AsyncUserAPI, Module, Swarm, Task, UserAPI
from manta.apis import errors
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.overviews import SwarmOverview
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.testing.clusters import client, running


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 4) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


def module(code: str, name: str = "code") -> Module:
    return Module(textwrap.dedent(code), name=name)


class Chain(Swarm):
    """Tasks one after another."""

    def __init__(self, *tasks: Task, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.tasks = tasks

    def execute(self) -> Task:
        last, *rest = self.tasks
        last = last()
        for task in rest:
            last = task(last)
        return last


def run(api: UserAPI, swarm: Swarm, status: str = "COMPLETED") -> SwarmOverview:
    ended = api.wait_swarm(api.deploy_swarm(CLUSTER, swarm), timeout=60)
    assert ended.status == status, ended.reason
    return ended


def output(api: UserAPI, swarm: SwarmOverview, alias: str) -> Any:
    """What the last round of the first instance returned."""
    return [t.output for t in api.get_tasks(swarm) if t.alias == alias and t.index == 0][-1]


def test_secure_aggregation_by_masks_that_peers_exchange(api: UserAPI) -> None:
    client = module(
        """
        import numpy as np
        from manta.light import Task

        class Client(Task):
            def run(self):
                others = [peer for peer in self.world.peers if peer != self.world.node_id]
                masks = {peer: np.random.randint(0, 1000, 4) for peer in others}
                for peer, mask in masks.items():
                    self.world.send_to_node(peer, "mask", mask)
                value = np.full(4, self.world.rank)
                for peer in others:
                    value = value + masks[peer] - self.world.receive_from_node(peer, "mask")
                self.world.results.add("masked", value)
                self.world.schedule_next_iter(self.world.peers[:2], "client")
        """
    )
    server = module(
        """
        from manta.light import World
        def main():
            return sum(World().get_results("masked"))
        """
    )
    swarm = Chain(
        Task(client, alias="client"), Task(server, "any", alias="server"), max_iteration=2
    )
    ended = run(api, swarm)
    sums = [task.output.tolist() for task in api.get_tasks(ended) if task.alias == "server"]
    assert sums == [[6] * 4, [1] * 4]  # in the second iteration on two nodes


HELLO = module("def main():\n    return 'hello'\n", "hello")


def test_many_first_calls_of_one_api_at_once(cluster: LocalCluster) -> None:
    with client(cluster) as api:
        token = api.rotate_token()
    key = cluster.manager_keys.public
    target = Target(HOST, cluster.user_port, "test", token=token, server_key=key)
    with UserAPI.over(Session(target, cluster.keys)) as api, ThreadPoolExecutor(8) as pool:
        swarms = list(pool.map(lambda _: api.deploy_swarm(CLUSTER, Chain(Task(HELLO))), range(8)))
        ended = list(pool.map(lambda swarm: api.wait_swarm(swarm, 60), swarms))
    assert {swarm.status for swarm in ended} == {"COMPLETED"}

    async def together() -> list[str]:
        async with AsyncUserAPI.over(Session(target, cluster.keys)) as api:

            async def one() -> str:
                swarm = await api.deploy_swarm(CLUSTER, Chain(Task(HELLO)))
                return (await api.wait_swarm(swarm, 60)).status

            return await asyncio.gather(*(one() for _ in range(4)))

    assert asyncio.run(together()) == ["COMPLETED"] * 4


def test_tasks_that_run_side_by_side_are_spread_over_the_nodes(api: UserAPI) -> None:
    class Ensemble(Swarm):
        def __init__(self) -> None:
            self.workers = [Task(HELLO, method="any") for _ in range(4)]

        def execute(self) -> list[Task]:
            return [worker() for worker in self.workers]

    ran = api.get_tasks(run(api, Ensemble()))
    assert sorted(task.node_alias for task in ran) == ["node-1", "node-2", "node-3", "node-4"]


def test_overviews_answer_as_dicts_do(api: UserAPI) -> None:
    swarm = run(api, Chain(Task(HELLO)))
    assert "status" in swarm
    assert "gone" not in swarm
    assert (swarm.get("status"), swarm.get("gone", 1)) == ("COMPLETED", 1)
    assert dict(swarm)["swarm_id"] == {**swarm}["swarm_id"] == swarm.swarm_id
    assert list(swarm) == list(swarm.keys())
    with pytest.raises(errors.InvalidArgument, match="The swarm comes last"):
        api.deploy_swarm(Chain(Task(HELLO)), CLUSTER)  # type: ignore[arg-type]


def test_a_module_may_be_called_as_a_library(api: UserAPI) -> None:
    code = "import random, json\ndef main():\n    return json.dumps(random.randint(1, 1))\n"
    for name in ("random", "json", "torch"):
        ended = run(api, Chain(Task(Module(code, name=name), "any")))
        assert output(api, ended, name) == "1"


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        ("object()", "code.0 returned what can't be kept as its output: value is of type object"),
        ("(yield)", "as its output: value is of type generator"),
        ("[1, {'a': {1}}]", r"value\[1\]\[\"a\"\] is of type set"),
    ],
)
def test_an_output_that_cannot_be_kept_is_told_as_one(
    api: UserAPI, returns: str, said: str
) -> None:
    swarm = run(api, Chain(Task(module(f"def main():\n    return {returns}\n"), "any")), "FAILED")
    assert re.search(said, swarm.reason)
