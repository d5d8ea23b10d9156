"""Collectives: what all instances of a task work out together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from manta import UserAPI
from manta.cli.local.cluster import LocalCluster
from manta.light.collectives.mapped import KEPT
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.swarms import One, outputs


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


@pytest.mark.parametrize("lives_on", [False, True])
def test_what_an_instance_was_given_stays_as_it_is_in_later_iterations(
    api: UserAPI, lives_on: bool
) -> None:
    """An object that lives on has it mapped yet; of a process that is gone it is used again."""
    got = outputs(
        api,
        One(
            f"""
            import numpy as np
            from manta.light import World
            class Worker:
                def __init__(self):
                    self.totals = []
                def {"execute" if lives_on else "run"}(self):
                    world = World()
                    mine = np.full(300_000, world.rank + 10.0 * world.iteration)
                    self.totals.append(world.all_reduce(mine))
                    return [sorted(set(one.tolist())) for one in self.totals]
            """,
            rounds=4,
        ),
    )
    sums = [[3.0 + 30.0 * iteration] for iteration in range(4)]
    for number, output in enumerate(got):
        iteration = number // 3
        assert output == (sums[: iteration + 1] if lives_on else [sums[iteration]])


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


def test_other_options_of_a_call_are_told_to_all_instances_which_then_go_on(api: UserAPI) -> None:
    code = """
        import numpy as np
        from manta.light import World
        from manta.light.errors import CollectiveError
        def main():
            world, told = World(), []
            odd = world.rank == 2
            for call in (
                lambda: world.all_reduce(1.0, op="mean" if odd else "sum"),
                lambda: world.all_reduce(np.ones(2, "f4"), dtype="float64" if odd else None),
                lambda: world.all_reduce(1.0, on_peer_lost="continue" if odd else "raise"),
                lambda: world.reduce_scatter(np.ones(3), op="max" if odd else "sum"),
                lambda: world.reduce_scatter([np.ones(1), np.ones(1 + odd), np.ones(1)]),
            ):
                try:
                    told.append(call())
                except CollectiveError as error:
                    told.append(str(error))
            world.gather(1, root=1 if odd else 2)  # nobody waits
            try:
                world.barrier()
            except CollectiveError as error:
                told.append(str(error))
            return [*told, world.all_reduce(1, timeout=20)]
        """
    same = "all instances of 'code' must make the same calls in the same order."
    sides = [
        ("all_reduce(op='sum')", "all_reduce(op='mean')"),
        ("all_reduce(op='sum')", "all_reduce(op='sum', dtype='float64')"),
        ("all_reduce(op='sum')", "all_reduce(op='sum', on_peer_lost='continue')"),
        ("reduce_scatter(op='sum')", "reduce_scatter(op='max')"),
        ("gather(root=2)", "gather(root=1)"),
    ]
    for *told, after in outputs(api, One(code, timeout=30)):
        assert after == 3
        part = told.pop(4)
        assert part.startswith("value[1] of rank 0 is an array of shape (1,)")
        assert "of rank 2 an array of shape (2,)" in part
        for sentence, called in zip(told, sides, strict=True):
            assert sentence.endswith(same)
            assert all(side in sentence for side in called), sentence
            assert "code.2" in sentence


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


def test_reductions_keep_kinds_and_dtypes_and_overflows_are_told_to_all(api: UserAPI) -> None:
    code = """
        import numpy as np
        from manta.light import World
        def main():
            world = World()
            scalar = world.all_reduce(np.float32(2.5), op="mean")
            zero = world.all_reduce(np.array(1, "i4"))
            big = np.array([1_000_000_000], "i4")
            try:
                world.all_reduce(big)
            except Exception as error:
                told = [type(error).__name__, str(error)]
            wide = world.all_reduce(big, dtype=np.int64)
            part = world.reduce_scatter(np.full(3, 100, "u1"), dtype="float")
            try:
                world.all_reduce(big, dtype="int65")
            except ValueError as error:
                wrong = str(error)
            return [scalar, zero, told, wide, part, wrong]
        """
    for scalar, zero, told, wide, part, wrong in outputs(api, One(code)):
        assert type(scalar) is np.float32
        assert isinstance(zero, np.ndarray)
        assert (zero.shape, zero.dtype, int(zero)) == ((), "int32", 3)
        assert told == [
            "CollectiveError",
            "value has the sum 3000000000, which int32 can't hold: "
            'give dtype="int64" or "float64".',
        ]
        assert (wide.dtype, wide.tolist()) == ("int64", [3_000_000_000])
        assert (part.dtype, part.tolist()) == ("float64", [300.0])
        assert wrong.startswith("dtype is 'int65': give one of float64")


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


def test_a_task_keeps_few_regions_mapped_whatever_sizes_it_reduces(api: UserAPI) -> None:
    code = """
        import numpy as np
        from pathlib import Path
        from manta.light import World
        def mapped():
            lines = Path("/proc/self/maps").read_text().splitlines()
            found = [line for line in lines if "/memfd:manta-block" in line]
            return len(found), sum(" rw-s " in line for line in found)
        def main():
            world = World()
            kept = []
            for power in range(16):
                value = np.ones(30_000 * 3**power // 2**power, "f4")
                total = world.all_reduce(value)
                assert (total == world.size).all()
                kept.append(total)
            every, rooms = mapped()
            del kept, total
            return every - rooms, rooms, mapped()
        """
    for blocks, rooms, after in outputs(api, One(code)):
        assert blocks == 16
        assert 0 < rooms <= KEPT
        assert after == (rooms, rooms)
