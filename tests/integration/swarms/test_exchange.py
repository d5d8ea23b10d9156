"""What instances of a swarm say to each other, on a real manager and real nodes."""

from __future__ import annotations

import subprocess
import textwrap
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.children import Child
from tests.support.swarms import One, ended, outputs

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 3) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 3)
        yield api


def test_collectives(api: UserAPI) -> None:
    got = outputs(
        api,
        One(
            """
            import numpy as np
            from manta.light import World
            def main():
                world = World()
                rank, size = world.rank, world.size
                model = {"w": np.full(4, float(rank)), "n": [rank, 1]}
                summed = world.all_reduce(model)
                return {
                    "sum": [summed["w"].tolist(), summed["n"]],
                    "mean": world.all_reduce(np.arange(3) * rank, op="mean").tolist(),
                    "max": world.all_reduce(rank, op="max"),
                    "prod": world.all_reduce(rank + 1, op="prod"),
                    "all_gather": world.all_gather(f"r{rank}"),
                    "gather": world.gather(rank, root=1),
                    "scatter": world.scatter([10, 20, 30] if rank == 2 else None, root=2),
                    "reduce_scatter": world.reduce_scatter(np.arange(6) + rank).tolist(),
                    "barrier": world.barrier(),
                    "peers": [[p.rank, p.node_id, p.node_alias] for p in world.peers],
                    "share": world.share,
                }
            """
        ),
    )
    third = pytest.approx(1 / 3)
    for rank, output in enumerate(got):
        assert output["sum"] == [[3.0] * 4, [3, 3]]
        assert output["mean"] == [0.0, 1.0, 2.0]
        assert output["max"] == 2
        assert output["prod"] == 6
        assert output["all_gather"] == ["r0", "r1", "r2"]
        assert output["gather"] == ([0, 1, 2] if rank == 1 else None)
        assert output["scatter"] == [10, 20, 30][rank]
        assert output["reduce_scatter"] == [[3, 6], [9, 12], [15, 18]][rank]
        assert output["barrier"] is None
        assert output["peers"] == [[n, f"node-{n + 1}", f"node-{n + 1}"] for n in range(3)]
        assert output["share"] == third


def test_values_of_other_forms_are_told_to_all_instances_which_then_go_on(api: UserAPI) -> None:
    got = outputs(
        api,
        One(
            """
            import numpy as np
            from manta.light import World
            from manta.light.errors import CollectiveError
            def told(reduce, value):
                try:
                    return reduce(value)
                except CollectiveError as error:
                    return str(error)
            def main():
                world = World()
                mine = np.ones(4 + (world.rank == 2))
                return [
                    told(world.all_reduce, mine),
                    told(world.reduce_scatter, mine),
                    world.all_reduce(world.rank, timeout=20),
                ]
            """,
            timeout=30,
        ),
    )
    words = (
        "value of rank 0 is an array of shape (4,) and dtype float64, of rank 2 an array of shape "
        "(5,) and dtype float64: all instances must give values of one form."
    )
    assert got == [[words, words, 3]] * 3


def test_what_cannot_be_reduced_is_told_to_all_instances(api: UserAPI) -> None:
    got = outputs(
        api,
        One(
            """
            from manta.light import World
            def main():
                try:
                    World().all_reduce({"name": "a"})
                except Exception as error:
                    return [type(error).__name__, str(error)]
            """,
            timeout=30,
        ),
    )
    words = "value['name'] is a str, which cannot be reduced"
    assert [kind for kind, _ in got] == ["TypeError", "CollectiveError", "CollectiveError"]
    assert all(sentence.startswith(words) for _, sentence in got)


def test_messages_and_broadcasts(api: UserAPI) -> None:
    got = outputs(
        api,
        One(
            """
            import numpy as np
            from manta.light import World
            world = World()
            rank = world.rank
            after, before = f"node-{(rank + 1) % 3 + 1}", f"node-{(rank + 2) % 3 + 1}"
            for number in range(5):
                world.send_to_node(after, "t", [rank, number])
            world.send_to_node(after, "large", np.full(100_000, rank))
            got = [world.receive_from_node(before, "t") for _ in range(5)]
            large = world.receive_from_node(before, "large")
            if rank == 1:
                world.broadcast("model", np.arange(50_000))
            def main():
                model = world.get_broadcast("model")
                return [got, int(large[-1]), len(large), int(model.sum())]
            """
        ),
    )
    for rank, (messages, value, length, total) in enumerate(got):
        before = (rank + 2) % 3
        assert messages == [[before, number] for number in range(5)]
        assert (value, length, total) == (before, 100_000, 50_000 * 49_999 // 2)


def test_threads_receive_while_the_main_one_trains_and_logs(api: UserAPI) -> None:
    got = outputs(
        api,
        One(
            """
            import threading
            from manta.light import World
            def main():
                world, heard = World(), []
                if world.rank == 0:
                    def receive():
                        for _ in range(3):
                            heard.append(world.receive_from_node("node-2", "word", timeout=30))
                    threads = [threading.Thread(target=receive) for _ in range(2)]
                    for thread in threads:
                        thread.start()
                    for step in range(20):  # long before anything was sent
                        world.log_metrics({"loss": 1 / (step + 1)}, step=step)
                    world.send_to_node("node-2", "trained", True)
                    for thread in threads:
                        thread.join()
                elif world.rank == 1:
                    world.receive_from_node("node-1", "trained", timeout=30)
                    for number in range(6):
                        world.send_to_node("node-1", "word", number)
                return sorted(heard)
            """
        ),
    )
    assert got == [[0, 1, 2, 3, 4, 5], [], []]


def test_a_message_waits_for_the_next_iteration_and_an_object_lives_on(api: UserAPI) -> None:
    got = outputs(
        api,
        One(
            """
            from manta.light import Task
            class Passing(Task):
                def setup(self):
                    self.seen = []
                def execute(self):
                    world, other = self.world, f"node-{3 - self.world.rank}"
                    if world.iteration == 0:
                        world.send_to_node(other, "later", world.rank)
                    else:
                        self.seen.append(world.receive_from_node(other, "later"))
                    return self.seen
            """,
            rounds=2,
            specified_ids=["node-2", "node-3"],
        ),
    )
    assert got == [[], [], [1], [0]]


def test_a_lock_is_held_by_one_at_a_time(api: UserAPI) -> None:
    spans = outputs(
        api,
        One(
            """
            import time
            from manta.light import World
            def main():
                with World().lock("file"):
                    begin = time.time()
                    time.sleep(0.1)
                    return [begin, time.time()]
            """
        ),
    )
    spans.sort()
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


def test_a_retry_restores_and_contributes_once(api: UserAPI) -> None:
    got = outputs(
        api,
        One(
            """
            from manta.light import World
            def main():
                world = World()
                state = world.restore()
                total = world.all_reduce(1 if state is None else 1000)
                if world.rank == 1 and state is None:
                    world.checkpoint({"step": 7})
                    raise RuntimeError("once")
                return [total, state]
            """,
            retries=1,
        ),
    )
    assert sorted(got, key=str) == [[3, None], [3, None], [3, {"step": 7}]]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            """
            def main():
                if world.rank == 0:
                    return
                world.barrier()
            """,
            "finished without that call",
        ),
        (
            """
            def main():
                world.all_reduce(1) if world.rank else world.barrier()
            """,
            "must make the same calls",
        ),
        (
            """
            def main():
                world.all_reduce([1] * (world.rank + 1))
            """,
            "a list of 1, of rank 1 a list of 2",
        ),
        (
            """
            def main():
                if world.rank == 0:
                    world.receive_from_node("node-1", "t", timeout=5)
            """,
            "nothing is left there that could send one",
        ),
        (
            """
            def main():
                if world.rank == 0:
                    world.get_broadcast("never")
            """,
            "Nobody has broadcast 'never'",
        ),
        (
            """
            def main():
                world.send_to_node("node-9", "t", 1)
            """,
            "node-9",
        ),
        (
            """
            import time
            def main():
                if world.rank == 0:
                    world.get_broadcast("slow", timeout=0.3)
                time.sleep(1.5)
            """,
            "Waited 0.3 s in vain: nobody has broadcast 'slow' yet",
        ),
    ],
)
def test_a_wait_that_cannot_end_says_why(api: UserAPI, code: str, words: str) -> None:
    head = "from manta.light import World\nworld = World()\n"
    done = ended(api, One(head + textwrap.dedent(code)))
    assert done.status == "FAILED"
    told = [error.sentence for error in api.collect_errors(done)]
    assert any(words in sentence for sentence in told), told


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
    assert all("code.2 (" in text for text in told), told


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
    assert all("all_reduce waits for code.0 (" in text for text in told), told


@pytest.mark.parametrize("op", ["sum", "mean", "min", "max", "prod"])
def test_every_reduction_of_nests(api: UserAPI, op: str) -> None:
    code = f"""
        import numpy as np
        from manta.light import World
        def main():
            world = World()
            rank = world.rank + 1
            value = {{"layers": [{{"w": np.full((2, 2), rank, "f4")}}, (rank, np.int64(rank))]}}
            got = world.all_reduce(value, op={op!r})
            layer, (number, scalar) = got["layers"]
            return [layer["w"], number, int(scalar)]
        """
    expected = {"sum": 6, "mean": 2, "min": 1, "max": 3, "prod": 6}[op]
    for array, number, scalar in outputs(api, One(code)):
        assert array.dtype == "float32"
        assert array.tolist() == [[expected] * 2] * 2
        assert (number, scalar) == (expected, expected)


def test_who_gave_up_waiting_for_a_lock_leaves_its_queue(api: UserAPI) -> None:
    code = """
        import time
        from manta.light import World
        from manta.light.errors import Timeout
        def main():
            world, told = World(), None
            if world.rank == 0:
                with world.lock("a"):
                    world.barrier()
                    time.sleep(0.6)
            else:
                world.barrier()
                if world.rank == 1:
                    try:
                        with world.lock("a", timeout=0.2):
                            pass
                    except Timeout as error:
                        told = str(error)
            world.barrier()
            if world.rank != 1:
                with world.lock("a", timeout=5):
                    pass
            world.barrier()
            return told
        """
    got = outputs(api, One(code))
    assert got[1] == "Waited 0.2 s in vain: the lock 'a' is held by code.0 on node-1."


def test_the_latest_broadcast_counts_and_each_has_its_tag(api: UserAPI) -> None:
    code = """
        from manta.light import World
        def main():
            world = World()
            for number in range(3):
                world.broadcast(f"of {world.rank}", number)
            world.barrier()
            return [world.get_broadcast(f"of {rank}") for rank in range(world.size)]
        """
    assert outputs(api, One(code, rounds=2)) == [[2, 2, 2]] * 6


def test_a_wait_ends_when_the_swarm_is_stopped(api: UserAPI) -> None:
    code = """
        from manta.light import World
        def main():
            print("waiting")
            World().receive_from_node("node-1" if World().rank else "node-2", "never")
        """
    swarm = api.deploy_swarm(CLUSTER, One(code))
    while len(api.collect_logs(swarm)) < 3:
        time.sleep(0.02)
    began = time.monotonic()
    api.stop_swarm(swarm)
    assert api.wait_swarm(swarm, timeout=20).status == "STOPPED"
    assert time.monotonic() - began < 8


def test_gather_with_a_quorum_and_a_deadline(api: UserAPI) -> None:
    got = outputs(
        api,
        One(
            """
            import time
            from manta.light import World
            def main():
                world = World()
                if world.rank == 2:
                    time.sleep(2)
                found = world.gather(world.rank, quorum=0.6, deadline=0.7)
                return found
            """
        ),
    )
    assert got == [{0: 0, 1: 1}, None, None]


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
    with running(LocalCluster, 4) as cluster, client(cluster) as api:
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
        manager.ended.wait(10)
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


def test_in_a_network_only_neighbors_talk(api: UserAPI) -> None:
    code = """
        from manta.light import World
        from manta.light.errors import UnknownPeer
        def main():
            world = World()
            said = []
            for node in ("node-1", "node-2", "node-3"):
                try:
                    world.send_to_node(node, "t", world.rank)
                    said.append(node)
                except UnknownPeer as error:
                    assert "no neighbors" in str(error), error
            world.barrier()
            return said
        """
    swarm = One(code, network="line")
    swarm.add_network("line", [("node-1", "node-2"), ("node-2", "node-3")])
    assert outputs(api, swarm) == [
        ["node-1", "node-2"],
        ["node-1", "node-2", "node-3"],
        ["node-2", "node-3"],
    ]
