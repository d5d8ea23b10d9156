"""Values beyond what a node's memory should hold, on a real manager and real nodes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from manta import UserAPI
from manta.apis.swarm import Swarm
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, wait_for_nodes
from tests.support.memory import MIB, MOST, Growth, little_memory, megabytes
from tests.support.swarms import One, ended, outputs


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with little_memory(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 2)
        yield api


CODE = """
    import numpy as np
    from manta.light import Local, World
    def main():
        world, local = World(), Local()
        rank, other = world.rank, f"node-{2 - world.rank}"
        model = world.globals["model"]
        value = {"w": model["w"] + rank + 1, "iteration": world.iteration}
        world.results.add("trained", value)
        world.send_to_node(other, "model", value)
        got = world.receive_from_node(other, "model", timeout=60)
        assert got["iteration"] == world.iteration
        if rank == 0:
            world.broadcast("all", value)
        heard = world.get_broadcast("all", timeout=60)
        total = world.all_reduce(value["w"])
        world.barrier()
        trained = world.get_results("trained")
        kept = local.get_state("sum", default={"w": np.zeros_like(total)})
        local.set_state("sum", {"w": kept["w"] + total})
        world.checkpoint(value)
        assert world.restore()["w"][-1] == value["w"][-1]
        if rank == 0:
            world.set("model", {"w": total})
        world.barrier()
        return [float(x) for x in (got["w"][0], heard["w"][0], total[-1], kept["w"][0])] + [
            len(trained), world.get("model")["w"]
        ]
"""


def test_every_way_of_a_value_over_two_rounds(api: UserAPI) -> None:
    """12 MB each, where a node's memory holds 8."""
    swarm: Swarm = One(CODE, rounds=2)
    swarm.set_global("model", {"w": np.ones(1_500_000)})
    done = ended(api, swarm)
    told = [error.sentence for error in api.collect_errors(done)]
    assert done.status == "COMPLETED", (done.reason, told)
    first, second, third, fourth = (task.output for task in api.get_tasks(done))
    assert first[:5] == [3.0, 2.0, 5.0, 0.0, 2]
    assert second[:5] == [2.0, 2.0, 5.0, 0.0, 2]
    assert third[:5] == [7.0, 6.0, 13.0, 5.0, 2]
    assert fourth[:5] == [6.0, 6.0, 13.0, 5.0, 2]
    np.testing.assert_array_equal(fourth[5], np.full(1_500_000, 13.0))
    found = api.select_results(done, "trained")
    assert sorted(float(result.value["w"][0]) for result in found) == [2.0, 3.0, 6.0, 7.0]
    np.testing.assert_array_equal(api.select_global(done, "model")["w"], np.full(1_500_000, 13.0))


def test_a_reader_of_more_than_the_memory_holds(api: UserAPI) -> None:
    """Many values that are each small enough, and are all in use at once."""
    got = outputs(
        api,
        One(
            """
            import numpy as np
            from manta.light import World
            def main():
                world = World()
                for number in range(10):
                    world.results.add(f"part {number}", np.full(120_000, world.rank + number))
                world.barrier()
                parts = [world.get_results(f"part {number}") for number in range(10)]
                return sum(float(part[-1]) for pair in parts for part in pair)
            """
        ),
    )
    assert got == [100.0, 100.0]


@megabytes(96, 6_200, moved=23)
def test_a_nodes_memory_does_not_grow_with_the_value(
    api: UserAPI, cluster: LocalCluster, megabytes: int
) -> None:
    code = f"""
        import numpy as np
        from manta.light import World
        def main():
            world = World()
            if world.rank == 0:
                world.set("model", np.ones({megabytes} << 20, "u1"))
            world.barrier(timeout=900)
            return int(world.get("model")[::4096].sum())
        """
    growth = Growth([child.process.pid for child in cluster.children[1:3]], MOST)
    done = api.wait_swarm(api.deploy_swarm(CLUSTER, One(code)), timeout=1000)
    assert done.status == "COMPLETED", (done.reason, api.collect_errors(done))
    assert [task.output for task in api.get_tasks(done)] == [megabytes * 256] * 2
    growth.check(48 * MIB)
