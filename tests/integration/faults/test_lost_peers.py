"""Instances that are lost while others exchange values with them, and a manager in between."""

from __future__ import annotations

import subprocess
import textwrap
import time
from collections.abc import Iterator

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.children import Child
from tests.support.restarts import QuickToGiveUp
from tests.support.swarms import One, ended


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 3) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 3)
        yield api


def test_a_task_that_is_killed_releases_those_who_wait(api: UserAPI) -> None:
    done = ended(
        api,
        One(
            """
            import os, signal
            from manta.light import World
            from manta.light.errors import PeerLost
            def main():
                world = World()
                if world.rank == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    world.barrier()
                except PeerLost as lost:
                    return str(lost)
            """,
            quorum=0.5,
            deadline=30,
        ),
    )
    assert done.status == "COMPLETED", done.reason
    told = [task.output for task in api.get_tasks(done) if task.status == "FINISHED"]
    assert len(told) == 2
    assert all("code.2 on node-3 (" in text for text in told), told


@pytest.mark.parametrize("lost", [0, 2])
def test_all_reduce_goes_on_without_an_instance_that_is_lost(api: UserAPI, lost: int) -> None:
    """Rank 0, which reduces for the others, too; all that are left get the same bits."""
    code = f"""
        import os, signal
        import numpy as np
        from manta.light import World
        def main():
            world = World()
            if world.rank == {lost}:
                os.kill(os.getpid(), signal.SIGKILL)
            value = {{"w": np.full(20_000, 0.1 * (world.rank + 1)), "n": [world.rank]}}
            total = world.all_reduce(value, on_peer_lost="continue")
            again = world.all_reduce(1, on_peer_lost="continue")
            return [total["w"], total["n"], again]
        """
    done = ended(api, One(code, quorum=0.6, deadline=30))
    assert done.status == "COMPLETED", done.reason
    left = [rank for rank in range(3) if rank != lost]
    got = [task.output for task in api.get_tasks(done) if task.status == "FINISHED"]
    assert len(got) == 2
    for weights, ranks, again in got:
        assert weights.tobytes() == got[0][0].tobytes()
        assert weights[0] == pytest.approx(sum(0.1 * (rank + 1) for rank in left))
        assert (ranks, again) == ([sum(left)], 2)


def test_all_reduce_raises_where_it_shall_not_go_on_without_rank_0(api: UserAPI) -> None:
    code = """
        from manta.light import World
        from manta.light.errors import PeerLost
        def main():
            world = World()
            if world.rank == 0:
                raise RuntimeError("gone")
            try:
                world.all_reduce(1)
            except PeerLost as lost:
                return str(lost)
        """
    done = ended(api, One(code, quorum=0.6, deadline=30))
    told = [task.output for task in api.get_tasks(done) if task.status == "FINISHED"]
    assert len(told) == 2
    assert all("all_reduce waits for code.0 on node-1 (" in text for text in told), told


LOST = {
    # Who is lost, the call, and whom its error names.
    "scatter": (0, "world.scatter([1, 2, 3] if world.rank == 0 else None)", "scatter waits for"),
    "reduce_scatter": (2, "world.reduce_scatter([1, 2, 3])", "reduce_scatter waits for"),
    "all_gather": (1, "world.all_gather(world.rank)", "all_gather waits for"),
    "barrier": (0, "world.barrier()", "barrier waits for"),
    "gather": (2, "world.gather(world.rank)", "gather waits for"),
    "everybody": (1, "world.gather(1, quorum=1.0)", "gather has 2 of 3 values:"),
}


def test_who_is_lost_is_named_by_each_collective_at_once(api: UserAPI) -> None:
    """One swarm, a task for each call; each loses another instance before it contributed."""
    code = """
        import os, signal, time
        from manta.light import World
        from manta.light.errors import LightError
        def main():
            world = World()
            if world.rank == {rank}:
                time.sleep(0.5)  # the others wait by then
                os.kill(os.getpid(), signal.SIGKILL)
            began = time.monotonic()
            try:
                return ["got", {call}]
            except LightError as error:
                return [type(error).__name__, str(error), time.monotonic() - began]
        """

    class Losing(Swarm):
        def execute(self) -> list[Task]:
            return [
                Task(
                    Module(textwrap.dedent(code.format(rank=rank, call=call)), name=name),
                    quorum=0.6,
                    deadline=60,
                )
                for name, (rank, call, _) in LOST.items()
            ]

    done = ended(api, Losing())
    assert done.status == "COMPLETED", done.reason
    for name, (rank, _, words) in LOST.items():
        tasks = [task for task in api.get_tasks(done) if task.alias == name]
        got = [task.output for task in tasks if task.status == "FINISHED"]
        assert len(got) == 2, (name, got)
        for kind, *told in got:
            if told == [None]:
                continue  # not the root
            assert kind == "PeerLost", (name, kind, told)
            assert f"{words} {name}.{rank} " in told[0], (name, told)
            assert told[1] < 15


def test_the_lock_of_who_is_lost_goes_to_the_next(api: UserAPI) -> None:
    code = """
        import os, signal
        from manta.light import World
        def main():
            world = World()
            if world.rank == 0:
                with world.lock("file"):
                    world.broadcast("held", True)
                    world.receive_from_node("node-2", "waits", timeout=30)
                    os.kill(os.getpid(), signal.SIGKILL)
            world.get_broadcast("held", timeout=30)
            if world.rank == 1:
                try:
                    with world.lock("file", timeout=0.2):
                        return "too soon"
                except TimeoutError as error:
                    told = str(error)
                world.send_to_node("node-1", "waits", True)
                with world.lock("file", timeout=30):
                    return told
        """
    done = ended(api, One(code, quorum=0.6, deadline=60))
    assert done.status == "COMPLETED", done.reason
    got = [task.output for task in api.get_tasks(done) if task.status == "FINISHED"]
    held = "Waited 0.2 s in vain: the lock 'file' is held by code.0 on node-1."
    assert sorted(got, key=str) == [None, held]


def test_gather_goes_on_without_a_node_that_is_lost_and_a_straggler() -> None:
    code = """
        import time
        from manta.light import World
        from manta.light.errors import LightError
        def main():
            world = World()
            print("there", flush=True)
            if world.rank == 2:
                time.sleep(100)  # its node is lost meanwhile
            if world.rank == 3:
                world.receive_from_node("node-1", "come", timeout=60)
            began = time.monotonic()
            by_deadline = world.gather(world.rank, quorum=0.5, deadline=3)
            by_quorum = world.gather(world.rank, quorum=0.5, timeout=60)
            if world.rank:
                return None
            world.send_to_node("node-4", "come", True)
            try:
                world.gather(world.rank, quorum=0.75, deadline=0.5)
            except LightError as error:
                return [by_deadline, by_quorum, str(error), time.monotonic() - began]
        """
    with running(QuickToGiveUp, 4) as cluster, client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, One(code, quorum=0.75, deadline=60))
        while len(api.collect_logs(swarm)) < 4:
            time.sleep(0.02)
        cluster.children[3].process.kill()
        done = api.wait_swarm(swarm, timeout=60)
        assert done.status == "COMPLETED", done.reason
        (told,) = [task.output for task in api.get_tasks(done) if task.output]
        assert told[:2] == [{0: 0, 1: 1}, {0: 0, 1: 1}]
        assert "code.2, code.3 did not answer" in told[2]
        assert told[3] < 10


def test_talk_goes_on_over_a_manager_that_is_killed() -> None:
    """Nothing that was said is lost or comes twice."""
    code = """
        import time
        from manta.light import World
        def main():
            world = World()
            other = f"node-{2 - world.rank}"
            got = []
            for number in range(40):
                world.send_to_node(other, "t", number)
                got.append(world.receive_from_node(other, "t", timeout=60))
                time.sleep(0.02)
                if number == 10:
                    print("talking")
            return [got, world.all_reduce(sum(got))]
        """
    with running(LocalCluster, 2) as cluster, client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, One(code))
        while not api.collect_logs(swarm):
            time.sleep(0.02)
        manager = cluster.children[0]
        manager.process.kill()
        manager.ended.wait(60)
        command: list[str] = manager.process.args  # type: ignore[assignment]
        command = command[: command.index("--fds")]
        quiet = subprocess.DEVNULL
        with Child(command, stdout=quiet, stderr=quiet) as anew:
            try:
                done = api.wait_swarm(swarm, timeout=90)
                assert done.status == "COMPLETED", done.reason
                for task in api.get_tasks(swarm):
                    assert task.output == [list(range(40)), 2 * sum(range(40))]
            finally:
                anew.terminate()
