"""Results as users ask for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis import errors
from manta.cli.local.cluster import CLUSTER
from tests.integration.sdk.conftest import Rounds, Stage


def test_results(stage: Stage, finished: str) -> None:
    results = stage.api.get_swarm_results(finished)
    assert results.iterations == [0, 1, 2]
    assert set(results.tags) == {"sum", "large", "late"}
    assert sorted(results("sum", 2).values()) == [2.0, 5.0]
    assert results("late").iterations == [2]
    assert results("sum", 0, "node-2").values() == [3.0]
    large = results("large", 1).by_node()
    assert sorted(int(array[0]) for array in large.values()) == [0, 1]
    array = results("large")[0].value
    array += 1  # may be written to
    assert stage.api.list_result_tags(finished) == results.tags
    assert len(stage.api.select_results(finished, "late")) == 2
    assert len(stage.api.get_swarm_results(finished, "sum", wait=True)) == 6
    assert [result.tag for result in stage.api.stream_results(finished, "late")] == ["late"] * 2
    for ask in (stage.api.get_swarm_results, stage.api.select_results):
        with pytest.raises(errors.NotFound, match="'gone'"):
            ask(finished, "gone")


def test_delete_results(stage: Stage) -> None:
    api = stage.api
    swarm = stage.run(Rounds())
    stream = api.stream_results(swarm)
    assert next(stream).iteration == 0
    assert api.delete_results(swarm, "large") == 6
    assert api.list_result_tags(swarm) == ["sum", "late"]
    assert api.delete_results(swarm, iteration=1) == 2
    assert api.delete_results(swarm, "late", iteration=0) == 0
    assert {(r.tag, r.iteration) for r in stream} <= {
        ("sum", 0),
        ("sum", 1),
        ("sum", 2),
        ("large", 0),
        ("large", 1),
        ("large", 2),
        ("late", 2),
    }  # what it had received before may still come, nothing is told twice
    found = api.get_swarm_results(swarm)
    assert [(r.tag, r.iteration) for r in found("sum")] == [("sum", 0)] * 2 + [("sum", 2)] * 2
    for ask in (api.delete_results, api.select_results, api.get_swarm_results):
        with pytest.raises(errors.NotFound, match="no results of tag 'large'"):
            ask(swarm, "large")
    with pytest.raises(errors.InvalidArgument, match="iteration"):
        api.delete_results(swarm, iteration=-1)
    with pytest.raises(errors.InvalidArgument, match="tag"):
        api.delete_results(swarm, "")
    with pytest.raises(errors.NotFound, match="'nosuch'"):
        api.delete_results("nosuch")
    assert api.delete_results(swarm) == 6
    assert api.delete_results(swarm) == 0
    assert not api.get_swarm_results(swarm, wait=True)
    assert list(api.stream_results(swarm)) == []
    deleted = [event.sentence for event in api.stream_events(swarm) if event.kind == "deleted"]
    assert len(deleted) == 3
    assert deleted[0].startswith("6 results of tag 'large' were deleted by ")
    assert api.get_swarm(swarm).status == "COMPLETED"


def test_each_form_in_which_results_are_asked_for(
    own: UserAPI, finished: str, tmp_path: Path
) -> None:
    results = own.get_swarm_results(finished)
    first, second = results.node_ids
    assert {first, second} == {"node-1", "node-2"}
    assert sorted(results(1).values(), key=str) == sorted(
        [*results("sum", 1).values(), *results("large", 1).values()], key=str
    )
    assert {result.iteration for result in results(1)} == {1}
    assert results([0, 2]).iterations == [0, 2]
    assert results(range(2)).iterations == [0, 1]
    assert {result.node_id for result in results(first)} == {first}
    assert {result.tag for result in results("sum")} == {"sum"}
    assert len(results("sum")(second)([1, 2])) == 2
    assert results("sum", 0).by_node() == {"node-1": 0.0, "node-2": 3.0}
    # A tag that came late begins there: nothing is made up for the iterations before.
    late = results("late")
    assert [(result.iteration, result.value) for result in late] == [(2, "only now")] * 2
    for nothing in (0, 1):
        with pytest.raises(errors.NotFound, match=f"iteration {nothing}: there are iteration 2"):
            late(nothing)
    with pytest.raises(
        errors.NotFound, match=r"'gone': there are the tags .*late.* and the nodes node-"
    ):
        results("gone")
    frame = results("sum").to_pandas()
    assert list(frame["value"]) == results("sum").values()
    assert list(frame["iteration"]) == [0, 0, 1, 1, 2, 2]
    results.to_parquet(tmp_path / "all.parquet")
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(tmp_path / "all.parquet")
    assert len(table) == len(results) == 14
    assert sorted(table[table.tag == "late"].text) == ["only now"] * 2
    results("large").to_npz(tmp_path / "large.npz")
    with np.load(tmp_path / "large.npz") as arrays:
        assert len(arrays.files) == 6
        assert arrays["1/large/node-2/worker.1"].shape == (50_000,)


SLOW = """
import time
from manta.light import World

def main():
    World().results.add("half", World().iteration)
    time.sleep(0.3)
"""


def test_results_stream_while_the_swarm_runs_and_end_with_it(stage: Stage) -> None:
    class Slow(Swarm):
        def __init__(self) -> None:
            super().__init__(max_iteration=3)
            self.task = Task(Module(SLOW, name="slow"), method="any")

    deployed = stage.api.deploy_swarm(CLUSTER, Slow())
    seen = []
    for result in stage.api.stream_results(deployed):
        seen.append((result.value, stage.api.get_swarm(deployed).status))
    assert [value for value, _ in seen] == [0, 1, 2]
    assert seen[0][1] == "ACTIVE"
    assert stage.api.get_swarm(deployed).status == "COMPLETED"
    again = stage.api.deploy_swarm(CLUSTER, Slow())
    assert len(stage.api.get_swarm_results(again)) < 3
    assert stage.api.get_swarm_results(again, wait=True).values() == [0, 1, 2]
    assert stage.api.get_swarm(again)["status"] == "COMPLETED"
