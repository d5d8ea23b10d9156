"""A swarm whose tasks keep all that they may on a node, and another one there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from manta import UserAPI
from manta.cli.local import cluster as local
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from tests.integration.swarms.test_direct import lines
from tests.support.swarms import One, outputs

GREEDY = """
    import time
    from manta.light import World
    from manta.light.errors import ResourceExhaustionError
    def main():
        world = World()
        try:
            while True:
                world.barrier()
        except ResourceExhaustionError as error:
            print(error, flush=True)
        while True:
            time.sleep(0.1)
    """
OTHER = """
    import numpy as np
    from manta.light import World
    def main():
        world = World()
        (other,) = [peer.node_alias for peer in world.peers if peer.rank != world.rank]
        summed = world.all_reduce(np.full(200_000, world.rank + 1.0))
        world.send_to_node(other, "x", np.full(200_000, float(world.rank)))
        letter = world.receive_from_node(other, "x")
        world.barrier()
        return [float(summed[0]), float(letter[-1]), world.all_gather(world.rank)]
    """


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Its nodes keep 8 MB of values in memory, and little that is small."""
    write = local.node_config

    def with_limit(*arguments: Any) -> str:
        return write(*arguments).replace("[resources]\n", "[resources]\nvalue_memory_mb = 8\n")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "node_config", with_limit)
        with running(LocalCluster, 2) as cluster:
            yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 2)
        yield api


def test_collectives_of_one_swarm_leave_room_for_what_another_exchanges(api: UserAPI) -> None:
    greedy = api.deploy_swarm(CLUSTER, One(GREEDY, replicas=2, specified_ids=["node-1"]))
    for line in lines(api, greedy, 2):
        assert "has no room for a collective" in line
        assert "MiB of them for this swarm, which may have" in line
        assert "make fewer calls in an iteration" in line
    assert outputs(api, One(OTHER, replicas=2)) == [[3.0, 1.0, [0, 1]], [3.0, 0.0, [0, 1]]]
    assert api.get_swarm(greedy).status == "ACTIVE"
    api.stop_swarm(greedy, force=True)
