"""Modules with images, on nodes that run plain processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.errors import Unplaceable
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


class Imaged(Swarm):
    def __init__(self, program: str | None) -> None:
        super().__init__(max_iteration=2)
        self.only = Task(Module(program, "pytorch", name="only"))


def test_that_the_image_was_not_used_is_said_once_on_each_node(api: UserAPI) -> None:
    swarm = api.deploy_swarm(CLUSTER, Imaged("def main():\n    print('runs')\n"))
    assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    lines = list(api.stream_logs(swarm))
    said = [line for line in lines if "manta_light:pytorch" in line.text]
    assert sorted(line.node_alias for line in said) == ["node-1", "node-2"]
    assert all("is not used on this node" in line.text for line in said)
    assert sum(line.text == "runs" for line in lines) == 4
    plan = api.check_swarm(CLUSTER, Imaged("def main():\n    pass\n"))
    assert all("is not used" in verdict.reason for verdict in plan.verdicts if verdict.accepted)


def test_an_image_alone_is_refused_at_deployment(api: UserAPI) -> None:
    with pytest.raises(Unplaceable, match="is an image alone"):
        api.deploy_swarm(CLUSTER, Imaged(None))
