"""Tasks that exchange over the planes of their nodes, and what fails meanwhile."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from manta import UserAPI
from manta.apis.overviews import SwarmOverview
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.restarts import QuickToGiveUp
from tests.support.swarms import One, ended, errors, outputs


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 2)
        yield api


def plane_of(cluster: LocalCluster, alias: str) -> psutil.Process | None:
    node = next(child for child in cluster.children if child.name == alias)
    for child in psutil.Process(node.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if "manta.node.plane" in child.cmdline():
                return child
    return None


def lines(api: UserAPI, swarm: SwarmOverview, count: int) -> list[str]:
    """Waits for so many lines that its tasks print."""
    while len(found := api.collect_logs(swarm)) < count:
        assert api.get_swarm(swarm).status == "ACTIVE", api.get_swarm(swarm).reason
        time.sleep(0.02)
    return [line.text for line in found]


def test_values_of_all_sizes_arrive_and_large_arrays_are_seen_where_they_lie(api: UserAPI) -> None:
    code = """
        import mmap
        import numpy as np
        from manta.light import World
        def lies_in(array):
            while isinstance(array, np.ndarray):
                array = array.base
            return type(array.obj if isinstance(array, memoryview) else array)
        def main():
            world = World()
            sizes = [0, 1, 65_536, 65_537, 50_000_000]
            if world.rank:
                for size in sizes:
                    world.send_to_node("node-1", "bytes", b"x" * size)
                    world.send_to_node("node-1", "array", np.arange(size, dtype=np.uint8))
                return None
            told = []
            for size in sizes:
                assert world.receive_from_node("node-2", "bytes") == b"x" * size
                got = world.receive_from_node("node-2", "array")
                assert (got == np.arange(size, dtype=np.uint8)).all()
                got += 1  # it is this task's own
            return lies_in(got) is mmap.mmap
        """
    assert outputs(api, One(code)) == [True, None]


def test_instances_on_one_node_exchange_in_it(api: UserAPI) -> None:
    code = """
        import numpy as np
        from manta.light import World
        def main():
            world = World()
            for size in (1, 1_000_000):
                world.send_to_node("node-1", f"to {1 - world.rank} {size}", np.ones(size))
            mine = f"to {world.rank}"
            got = [world.receive_from_node("node-1", f"{mine} {n}") for n in (1, 1_000_000)]
            world.broadcast(f"of {world.rank}", world.rank)
            return [int(sum(map(sum, got))), world.get_broadcast(f"of {1 - world.rank}")]
        """
    swarm = One(code, replicas=2, specified_ids=["node-1"])
    assert outputs(api, swarm) == [[1_000_001, 1], [1_000_001, 0]]


def test_a_node_that_nobody_there_has_asked_for_anything_yet_is_sent_letters(api: UserAPI) -> None:
    code = """
        from manta.light import World
        def main():
            world = World()
            if world.rank == 0:
                for number in range(300):
                    world.send_to_node("node-2", "t", [number] * 10)
                world.barrier()
                return None
            world.barrier()  # it has sent all before this one is heard
            return [world.receive_from_node("node-1", "t")[0] for _ in range(300)]
        """
    assert outputs(api, One(code)) == [None, list(range(300))]


def test_instances_that_run_one_after_another_leave_letters_for_each_other(api: UserAPI) -> None:
    code = """
        from manta.light import World
        def main():
            world = World()
            other = f"node-{2 - world.rank}"
            if world.rank == 0:
                world.send_to_node(other, "t", "left here")
                return None
            return world.receive_from_node(other, "t", timeout=20)
        """

    class InTurn(One):
        schedule = (("only", "sequential"),)

    assert outputs(api, InTurn(code)) == [None, "left here"]


def test_an_attempt_that_dies_and_its_successor_count_once(api: UserAPI) -> None:
    """It receives the same letters, and what it sent does not come twice."""
    code = """
        import os, signal
        from manta.light import World
        def main():
            world = World()
            other = f"node-{2 - world.rank}"
            if world.rank:
                for number in range(6):
                    world.send_to_node(other, "to", number)
                got = [world.receive_from_node(other, "from") for _ in range(5)]
                world.send_to_node(other, "done", None)
                return got
            first = world.restore() is None
            world.checkpoint(True)
            got = []
            for number in range(5):
                got.append(world.receive_from_node(other, "to"))
                world.send_to_node(other, "from", number)
                if first and number == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
            got.append(world.receive_from_node(other, "to"))
            world.receive_from_node(other, "done")
            return got
        """
    assert outputs(api, One(code, retries=1)) == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4]]


TALKS = """
    import time
    from manta.light import World
    def main():
        world = World()
        other = f"node-{2 - world.rank}"
        first = world.restore() is None
        world.checkpoint(True)
        world.send_to_node(other, "hello", world.rank)
        world.receive_from_node(other, "hello")
        print("connected", flush=True)
        if first:
            time.sleep(100)  # its plane is killed meanwhile
        return world.rank
    """


def test_a_plane_that_is_killed_costs_its_attempts_no_retry(
    cluster: LocalCluster, api: UserAPI
) -> None:
    swarm = api.deploy_swarm(CLUSTER, One(TALKS))
    lines(api, swarm, 2)
    killed = [plane for alias in ("node-1", "node-2") if (plane := plane_of(cluster, alias))]
    assert len(killed) == 2
    for plane in killed:
        plane.send_signal(signal.SIGKILL)
    done = api.wait_swarm(swarm, timeout=60)
    assert done.status == "COMPLETED", done.reason
    said = [error.sentence for error in api.collect_errors(done)]
    assert sum("the node's plane, through which it exchanges" in one for one in said) == 2, said
    found = plane_of(cluster, "node-1")
    assert found is not None
    assert found != killed[0]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ('sock.sendall(b"\\xff" * 64)', "a frame of"),
        ('sock.sendall((3).to_bytes(4, "little") + b"bad")', "ValidationError"),
        (
            'MessageSocket(sock).send({"k": "say_to_all", "n": 9, "tag": "x", "value": [70000]}, '
            '(os.memfd_create("x"),))',
            "is not sealed",
        ),
    ],
)
def test_who_breaks_the_protocol_of_the_plane_is_ended(api: UserAPI, bad: str, why: str) -> None:
    code = f"""
        import os, time
        from manta.light import World
        from manta.light.context import usage
        from manta.light.wire import MessageSocket
        def main():
            World().broadcast("x", 1)
            sock = usage.context._channels[0]._plane._connection.socket
            {bad}
            time.sleep(60)
        """
    (said,) = errors(api, One(code, specified_ids=["node-1"]))[:1]
    assert "code.0 was ended, because it broke the protocol: " in said
    assert why in said


def test_who_waits_is_told_of_an_instance_that_fails_and_of_one_that_has_finished(
    api: UserAPI,
) -> None:
    code = """
        from manta.light import World
        from manta.light.errors import PeerLost
        def main():
            world = World()
            if world.rank == {silent}:
                {does}
            try:
                return world.receive_from_node("node-{node}", "never")
            except PeerLost as lost:
                return str(lost)
        """
    for does in ("raise RuntimeError", "return None"):
        swarm = One(code.format(silent=1, node=2, does=does), quorum=0.5, deadline=30)
        done = ended(api, swarm)
        assert done.status == "COMPLETED", done.reason
        told = [one.output for one in api.get_tasks(done) if one.index == 0]
        assert "No message 'never' has come from node-2" in told[-1], told


HELLO = """
    from manta.light import World
    def main():
        world = World()
        world.broadcast(f"of {world.rank}", world.rank)
        return world.get_broadcast(f"of {1 - world.rank}")
    """


def test_a_swarm_that_is_stopped_ends_its_waits_and_leaves_nothing(
    cluster: LocalCluster, api: UserAPI
) -> None:
    code = """
        from manta.light import World
        def main():
            print("waiting", flush=True)
            World().receive_from_node("node-1" if World().rank else "node-2", "never")
        """
    swarm = api.deploy_swarm(CLUSTER, One(code))
    lines(api, swarm, 2)
    api.stop_swarm(swarm)
    assert api.wait_swarm(swarm, timeout=60).status == "STOPPED"
    assert outputs(api, One(HELLO)) == [1, 0]  # the planes serve what comes next


def test_a_node_that_is_killed_takes_its_plane_along_and_is_missed() -> None:
    code = """
        import time
        from manta.light import World
        from manta.light.errors import PeerLost
        def main():
            world = World()
            if world.rank:
                world.send_to_node("node-1", "hello", 1)
                time.sleep(100)  # its node is killed meanwhile
            world.receive_from_node("node-2", "hello")
            print("connected", flush=True)
            try:
                world.receive_from_node("node-2", "never", timeout=60)
            except PeerLost as lost:
                return str(lost)
        """
    with running(QuickToGiveUp, 2) as cluster, client(cluster) as api:
        assert isinstance(cluster, QuickToGiveUp)
        swarm = api.deploy_swarm(CLUSTER, One(code, quorum=0.5, deadline=60))
        lines(api, swarm, 1)
        plane = plane_of(cluster, "node-2")
        assert plane is not None
        cluster.kill("node-2")
        plane.wait(60)
        done = api.wait_swarm(swarm, timeout=60)
        assert done.status == "COMPLETED", done.reason
        (told,) = [one.output for one in api.get_tasks(done) if one.output]
        assert told.startswith("No message 'never' has come from node-2"), told
        cluster.again("node-2")
        wait_for_nodes(api, 2)
        assert outputs(api, One(HELLO)) == [1, 0]
