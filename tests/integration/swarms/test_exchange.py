"""What instances say to each other: messages, broadcasts, locks, and waits that end."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from manta import UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.swarms import One, ended, errors, outputs


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 3) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 3)
        yield api


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
            def main():
                world.receive_from_node("node-9", "t")
            """,
            "node-9",
        ),
        (
            """
            import time
            def main():
                if world.rank == 0:
                    world.get_broadcast("slow", timeout=3)
                time.sleep(6)
            """,
            "Waited 3 s in vain: nobody has broadcast 'slow' yet",
        ),
    ],
)
def test_a_wait_that_cannot_end_says_why(api: UserAPI, code: str, words: str) -> None:
    head = "from manta.light import World\nworld = World()\n"
    done = ended(api, One(head + textwrap.dedent(code)))
    assert done.status == "FAILED"
    told = [error.sentence for error in api.collect_errors(done)]
    assert any(words in sentence for sentence in told), told


def test_a_node_without_a_part_in_the_swarm_is_not_waited_for(api: UserAPI) -> None:
    code = """
        from manta.light import World
        def main():
            World().receive_from_node("node-3", "t")
        """
    told = errors(api, One(code, specified_ids=["node-1", "node-2"]))
    assert all("node-3" in sentence for sentence in told), told
    assert any("PeerLost: No message 't' has come from node-3" in sentence for sentence in told)


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
    assert api.wait_swarm(swarm, timeout=60).status == "STOPPED"
    assert time.monotonic() - began < 8


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
                    assert "not neighbors" in str(error), error
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
