"""Tasks that exchange while something is wrong: values are larger than the memory, a node takes
nothing, a sender dies before all has come."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import pytest

from manta import UserAPI
from manta.apis.overviews import SwarmOverview
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing import wait_until
from manta.testing.clusters import client, running, wait_for_nodes
from tests.integration.swarms.test_direct import lines, plane_of
from tests.support.memory import MIB, NOW, Growth, little_memory, megabytes
from tests.support.restarts import QuickToGiveUp
from tests.support.swarms import One, outputs


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Its nodes are linked as nodes on several machines are."""
    with little_memory(partial(LocalCluster, links="sealed"), 3) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 3)
        yield api


@contextmanager
def standing_still(process: psutil.Process) -> Iterator[None]:
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def has_said(api: UserAPI, swarm: SwarmOverview, *words: str) -> bool:
    assert not api.get_swarm(swarm).ended, api.get_swarm(swarm).reason
    said = [line.text for line in api.collect_logs(swarm)]
    return all(word in said for word in words)


def completed(api: UserAPI, swarm: SwarmOverview) -> list[Any]:
    done = api.wait_swarm(swarm, timeout=100)
    assert done.status == "COMPLETED", (done.reason, api.collect_errors(done))
    return [task.output for task in api.get_tasks(done) if task.status == "FINISHED"]


def plane(cluster: LocalCluster, alias: str) -> psutil.Process:
    found = plane_of(cluster, alias)
    assert found is not None
    return found


# Beyond the memory.

GREET = """
    from manta.light import World
    def main():
        world = World()
        world.broadcast(f"of {world.rank}", 1)
        return [world.get_broadcast(f"of {rank}") for rank in range(world.size)]
    """


@megabytes(96, 4_300, moved=9)
def test_letters_and_broadcasts_beyond_the_memory_leave_all_others_small(
    api: UserAPI, cluster: LocalCluster, megabytes: int
) -> None:
    code = f"""
        import numpy as np
        from manta.light import World
        def main():
            world = World()
            if world.rank == 0:
                value = np.ones({megabytes} << 20, "u1")
                world.send_to_node("node-2", "large", value)
                world.broadcast("large", value)
                del value
            if world.rank == 1:
                got = world.receive_from_node("node-1", "large", timeout=900)
                assert int(got[::4096].sum()) == {megabytes} * 256
                del got
            return int(world.get_broadcast("large", timeout=900)[::4096].sum())
        """
    assert outputs(api, One(GREET)) == [[1] * 3] * 3  # all planes have begun
    daemons = [child.process.pid for child in cluster.children]
    growth = Growth([*daemons, *(plane(cluster, alias).pid for alias in cluster.aliases)], NOW)
    swarm = api.deploy_swarm(CLUSTER, One(code))
    while not api.get_swarm(swarm).ended:
        growth.look()
    assert completed(api, swarm) == [megabytes * 256] * 3
    growth.check(64 * MIB)


# A node that takes nothing.


def test_a_node_that_stands_still_holds_up_nobody_else(api: UserAPI, cluster: LocalCluster) -> None:
    """Nothing that is sent to it is lost, or comes twice."""
    code = """
        import time
        import numpy as np
        from manta.light import World
        def main():
            world = World()
            others = [f"node-{rank + 1}" for rank in range(3) if rank != world.rank]
            for node in others:
                world.send_to_node(node, "hello", 1)
            for node in others:
                world.receive_from_node(node, "hello")
            print("linked", flush=True)
            while not world.globals.get("go"):
                time.sleep(0.05)
            if world.rank == 2:
                got = [world.receive_from_node("node-1", "late") for _ in range(10)]
                return [int(part[0]) for part in got]
            other = others[0]
            for number in range(30):
                part = np.full(60_000, number)
                if world.rank == 0 and number < 10:  # more would wait for the receiver
                    world.send_to_node("node-3", "late", part)
                world.send_to_node(other, "now", part)
                assert world.receive_from_node(other, "now")[0] == number
            print(f"{world.rank} is done", flush=True)
            return None
        """
    swarm = api.deploy_swarm(CLUSTER, One(code))
    lines(api, swarm, 3)
    with standing_still(plane(cluster, "node-3")):
        api.set_global(swarm, "go", True)
        wait_until(lambda: has_said(api, swarm, "0 is done", "1 is done"))
    assert completed(api, swarm) == [None, None, list(range(10))]


# A sender that dies before all has come.

MIDWAY = """
    import os, signal, time
    import numpy as np
    from manta.light import World
    def main():
        world = World()
        other = f"node-{2 - world.rank}"
        first = world.restore() is None
        world.checkpoint(True)
        world.send_to_node(other, "hello", 1)
        world.receive_from_node(other, "hello")
        print("linked", flush=True)
        while not world.globals.get("go"):
            time.sleep(0.05)
        if world.rank == 0:
            world.send_to_node(other, "large", np.arange(5_000_000))
            print("sent", flush=True)
            if first and WHO == "task":
                os.kill(os.getpid(), signal.SIGKILL)
            return world.receive_from_node(other, "sum", timeout=60)
        got = world.receive_from_node(other, "large", timeout=60)
        world.send_to_node(other, "sum", int(got.sum()))
        return len(got)
    """


@pytest.mark.parametrize("who", ["plane", "task"])
def test_what_a_sender_that_dies_midway_had_sent_comes_once(
    api: UserAPI, cluster: LocalCluster, who: str
) -> None:
    """While nothing of it has been taken; its next attempt sends it again."""
    pair = ["node-1", "node-2"]
    code = MIDWAY.replace("WHO", repr(who))
    swarm = api.deploy_swarm(CLUSTER, One(code, retries=1, specified_ids=pair))
    lines(api, swarm, 2)
    with standing_still(plane(cluster, "node-2")):
        api.set_global(swarm, "go", True)
        wait_until(lambda: has_said(api, swarm, "sent"))
        if who == "plane":
            plane(cluster, "node-1").send_signal(signal.SIGKILL)
    assert completed(api, swarm) == [sum(range(5_000_000)), 5_000_000]


def test_what_a_node_that_is_lost_midway_had_sent_is_not_waited_for() -> None:
    code = """
        import time
        from manta.light import World
        from manta.light.errors import PeerLost
        def main():
            world = World()
            other = f"node-{2 - world.rank}"
            world.send_to_node(other, "hello", 1)
            world.receive_from_node(other, "hello")
            print("linked", flush=True)
            while not world.globals.get("go"):
                time.sleep(0.05)
            if world.rank:
                world.send_to_node(other, "large", bytes(40_000_000))
                print("sent", flush=True)
                time.sleep(100)  # its node is killed meanwhile
            try:
                world.receive_from_node(other, "large", timeout=60)
            except PeerLost as lost:
                return str(lost)
        """
    with running(QuickToGiveUp, 2) as cluster, client(cluster) as api:
        assert isinstance(cluster, QuickToGiveUp)
        swarm = api.deploy_swarm(CLUSTER, One(code, quorum=0.5, deadline=60))
        lines(api, swarm, 2)
        with standing_still(plane(cluster, "node-1")):
            api.set_global(swarm, "go", True)
            wait_until(lambda: has_said(api, swarm, "sent"))
            cluster.kill("node-2")
        told = completed(api, swarm)
        assert len(told) == 1
        assert "node-2" in told[0]
