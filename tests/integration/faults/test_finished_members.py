"""Members of a collective that have finished, on the one node of all, whose plane is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psutil
import pytest

from manta import UserAPI
from manta.cli.local.cluster import CLUSTER
from manta.testing import wait_until
from manta.testing.clusters import client, running
from tests.support.restarts import Restartable
from tests.support.swarms import One

SIZE = 3


@pytest.fixture
def cluster() -> Iterator[Restartable]:
    with running(Restartable, 1) as cluster:
        assert isinstance(cluster, Restartable)
        yield cluster


def kill_plane(cluster: Restartable) -> None:
    node = psutil.Process(cluster.child("node-1").process.pid)
    (plane,) = [one for one in node.children() if "manta.node.plane" in one.cmdline()]
    plane.kill()


def kill_node(cluster: Restartable) -> None:
    cluster.kill("node-1")
    cluster.again("node-1")


FEW = """
    got = [world.all_gather((world.rank, time.time()))]
    """
LARGE = """
    mine = np.full(3_000_000, time.time() * (world.rank + 1))
    got = [float(world.all_reduce(mine)[-1]), float(world.all_gather(mine)[2][0])]
    """
MANY = """
    got = [world.all_gather((world.rank, time.time(), number)) for number in range(300)]
    """


@pytest.mark.parametrize("kill", [kill_plane, kill_node])
@pytest.mark.parametrize("calls", [FEW, LARGE, MANY], ids=["few", "large", "many"])
def test_others_that_run_again_get_what_it_got_and_what_it_gave(
    cluster: Restartable, calls: str, kill: Callable[[Restartable], None]
) -> None:
    """What each gives differs from one attempt to the next."""
    code = f"""
import time
import numpy as np
from manta.light import World

def main():
    world = World()
    first = world.restore() is None
    world.checkpoint(True)
{calls.rstrip()}
    if world.rank == 0:
        world.gather("of 0", root=1)
        return got
    if first:
        print("waits", flush=True)
        time.sleep(100)
    return got, world.gather(f"of {{world.rank}}", root=1)
"""
    with client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, One(code, replicas=SIZE))
        wait_until(lambda: len(api.collect_logs(swarm)) == SIZE - 1)
        wait_until(lambda: finished(api, swarm.swarm_id) == [0])
        kill(cluster)
        done = api.wait_swarm(swarm, timeout=90)
        assert done.status == "COMPLETED", (done.reason, api.collect_errors(done))
        outputs = [task.output for task in api.get_tasks(done) if task.status == "FINISHED"]
    got, *others = outputs
    assert [tuple(one) for one in others] == [(got, ["of 0", "of 1", "of 2"]), (got, None)]


def finished(api: UserAPI, swarm: str) -> list[int]:
    return [task.index for task in api.get_tasks(swarm) if task.status == "FINISHED"]
