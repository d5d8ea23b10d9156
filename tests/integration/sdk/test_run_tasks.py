"""`manta.testing.run_tasks`: several instances of a task in this process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta import task
from manta.apis.errors import InvalidArgument
from manta.light import World
from manta.light.errors import CollectiveError, PeerLost, Timeout, UnknownPeer
from manta.light.runtime.loader import NothingToRun
from manta.testing import run_task, run_tasks


def outputs(function: Any, instances: int = 4, **arguments: Any) -> list[Any]:
    return [one.output for one in run_tasks(function, instances, **arguments)]


def test_collectives_are_those_of_nodes() -> None:
    def every(world):
        rank, size = world.rank, world.size
        return [
            world.all_reduce(rank),
            world.all_reduce([1.0 * rank, 2.0], op="mean"),
            world.all_gather(f"of {rank}"),
            world.gather(rank, root=1),
            world.scatter([10 * at for at in range(size)] if rank == 2 else None, root=2),
            world.reduce_scatter([at + rank for at in range(size)]),
            world.barrier(),
        ]

    for rank, got in enumerate(outputs(every)):
        gathered = [0, 1, 2, 3] if rank == 1 else None
        assert got[:3] == [6, [1.5, 2.0], ["of 0", "of 1", "of 2", "of 3"]]
        if rank == 1:
            assert got[3] == gathered
        else:
            assert got[3] is None
        assert got[4:] == [10 * rank, 4 * rank + 6, None]


def test_arrays_keep_what_they_are() -> None:
    def reduces(world):
        return world.all_reduce(np.full(3, world.rank, "float32"))

    for got in outputs(reduces, 3):
        assert got.dtype == "float32"
        assert got.tolist() == [3.0] * 3


def test_messages_broadcasts_and_peers() -> None:
    def talks(world):
        after = world.peers[(world.rank + 1) % world.size]
        before = world.peers[world.rank - 1]
        for at in range(3):
            world.send_to_node(after, "n", [world.rank, at])
        got = [world.receive_from_node(before, "n") for _ in range(3)]
        if world.rank == 0:
            world.broadcast("news", "all")
        return got, world.get_broadcast("news"), world.node_id, world.share

    for rank, (got, news, node, share) in enumerate(outputs(talks)):
        assert got == [[(rank - 1) % 4, at] for at in range(3)]
        assert (news, node, share) == ("all", f"node-{rank + 1}", 0.25)


def test_results_globals_and_outputs() -> None:
    @task
    def writes(world):
        world.results.add("v", world.rank)
        world.barrier()
        with world.lock("count"):
            world.globals["count"] = world.globals["count"] + 1
        return sum(world.results.select("v").values()), world.get_results("given")

    runs = run_tasks(writes, 3, globals={"count": 10}, results={"given": ["a"]})
    assert [one.output for one in runs] == [(3, ["a"])] * 3
    assert [one.results for one in runs] == [{"v": [rank]} for rank in range(3)]
    assert runs[0].globals == {"count": 13}


def test_classes_live_on_and_files_have_one_module(tmp_path: Path) -> None:
    file = tmp_path / "steps.py"
    file.write_text(
        "from manta.light import Task\nloaded = []\n"
        "class Worker(Task):\n"
        "    def setup(self): loaded.append(self.world.rank)\n"
        "    def execute(self):\n"
        "        self.world.barrier()\n        return sorted(loaded)\n"
    )
    assert outputs(file, 3) == [[0, 1, 2]] * 3
    file.write_text(
        "from manta.light import World\ndef main():\n    return World().all_gather(World().rank)\n"
    )
    assert outputs(file, 2) == [[0, 1]] * 2


def test_each_has_its_datasets(tmp_path: Path) -> None:
    def reads(local):
        return float(local.get_dataset("x").sum())

    each = [{"x": np.full(2, at)} for at in range(3)]
    assert outputs(reads, 3, datasets=each) == [0.0, 2.0, 4.0]
    assert outputs(reads, 2, datasets={"x": np.ones(3)}) == [3.0, 3.0]
    with pytest.raises(TypeError, match="a list of 2 dicts"):
        run_tasks(reads, 2, datasets=each)


def test_the_first_error_passes_through_and_the_others_hear_of_it() -> None:
    heard: list[str] = []

    class Fails:
        def run(self) -> None:
            world = World()
            if world.rank == 1:
                raise ZeroDivisionError("here")
            try:
                world.all_reduce(1)
            except PeerLost as error:
                heard.append(str(error))
                raise

    with pytest.raises(ZeroDivisionError, match="here"):
        run_tasks(Fails, 3)
    assert len(heard) == 2
    assert any("task.1, which has failed (ZeroDivisionError)" in one for one in heard)
    assert not [one for one in threading.enumerate() if one.name.startswith("task.")]


def test_who_goes_on_without_a_peer_is_told() -> None:
    def goes_on(world):
        if world.rank == 2:
            return None
        return world.all_reduce(1, on_peer_lost="continue"), world.left_out

    assert outputs(goes_on, 3)[:2] == [(2, {2: "has finished"})] * 2


def test_calls_that_do_not_match_name_both_sides() -> None:
    def differs(world):
        return world.barrier() if world.rank else world.all_gather(1)

    with pytest.raises(CollectiveError, match=r"task\.\d calls .* where task\.\d calls "):
        run_tasks(differs, 2)


def test_a_wait_in_vain_ends_and_names_who() -> None:
    def waits(world):
        if world.rank == 0:
            return world.receive_from_node("node-2", "never", timeout=0.05)
        return world.barrier(timeout=0.2)

    with pytest.raises(Timeout, match="no message 'never' has come from node-2"):
        run_tasks(waits, 2)

    def late(world):
        return (
            world.barrier(timeout=0.05)
            if world.rank
            else world.receive_from_node("node-2", "x", timeout=0.3)
        )

    with pytest.raises(Timeout, match=r"barrier waits for task\.0"):
        run_tasks(late, 2)

    def nobody(world):
        world.send_to_node("node-9", "x", 1)

    with pytest.raises(UnknownPeer, match="node-9"):
        run_tasks(nobody, 2)


def test_a_lock_is_held_by_one_and_let_go_of_at_the_end() -> None:
    inside: list[int] = []

    class Locks:
        def run(self) -> None:
            with World().lock("one"):
                inside.append(World().rank)
                assert len(inside) == 1
                inside.clear()

    run_tasks(Locks, 8)


def test_what_it_is_given_is_checked(tmp_path: Path) -> None:
    def nothing() -> None: ...

    for wrong in (0, -1, 1.5, 10**6):
        with pytest.raises(InvalidArgument, match="instances"):
            run_tasks(nothing, wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a class, a function that"):
        run_tasks(3)  # type: ignore[arg-type]
    file = tmp_path / "script.py"
    file.write_text("def main():\n    return 1\nmain()\n")
    assert run_task(file).output == 1
    with pytest.raises(NothingToRun, match="while it is imported"):
        run_tasks(file, 2)
