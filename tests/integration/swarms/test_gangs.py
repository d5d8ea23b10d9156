"""More instances that wait for each other than there are places: nobody waits in vain."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.errors import Unplaceable
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running

CERTAIN = "from manta.light import World\ndef main():\n    World().barrier(timeout=60)\n"
HIDDEN = (
    "from manta.light import World\ndef meet():\n    World().barrier(timeout=60)\n"
    "def main():\n    meet()\n"
)


class Gang(Swarm):
    def __init__(self, code: str, replicas: int) -> None:
        super().__init__()
        self.code, self.replicas = code, replicas

    def execute(self) -> Task:
        return Task(Module(self.code, name="g"), replicas=self.replicas)()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


def places(api: UserAPI) -> int:
    return sum(node.platform_info.max_concurrent_tasks for node in api.list_nodes(CLUSTER))


def test_what_can_be_known_is_refused_at_check(api: UserAPI) -> None:
    plan = api.check_swarm(CLUSTER, Gang(CERTAIN, places(api) + 1))
    assert f"give it at most {places(api)} replicas" in plan.problems[0]
    with pytest.raises(Unplaceable, match="wait for each other"):
        api.deploy_swarm(CLUSTER, Gang(CERTAIN, places(api) + 1))


def test_as_many_as_there_are_places_meet(api: UserAPI) -> None:
    deployed = api.deploy_swarm(CLUSTER, Gang(CERTAIN, places(api)))
    assert api.wait_swarm(deployed, 50).status == "COMPLETED"


def test_what_shows_only_as_it_runs_is_told_at_once(api: UserAPI) -> None:
    began = time.monotonic()
    deployed = api.deploy_swarm(CLUSTER, Gang(HIDDEN, places(api) + 3))
    ended = api.wait_swarm(deployed, 50)
    assert ended.status == "FAILED"
    assert time.monotonic() - began < 40, "it waited for its timeout"
    assert "barrier can never end" in ended.reason
    assert "queued on node-" in ended.reason
