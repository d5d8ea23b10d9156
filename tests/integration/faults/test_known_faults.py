"""Faults that platforms of this kind were seen to have. Each is a promise here, and a test."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta import Module, Results, Swarm, Task, UserAPI
from manta.apis.errors import NotFound, RequestRefused, Unplaceable
from manta.apis.overviews import SwarmOverview
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes

NODES = {"node-1", "node-2"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    data = tmp_path_factory.mktemp("data")
    for node in range(2):
        (data / str(node) / "deeper").mkdir(parents=True)
        (data / str(node) / "a.txt").write_text(f"node {node}\n")
        np.save(data / str(node) / "deeper" / "b.npy", np.arange(node + 1))
    with running(LocalCluster, 2, pictures=f"{data}/{{i}}") as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        wait_for_nodes(api, 2)
        yield api


class One(Swarm):
    """One task, made of source text."""

    def __init__(self, code: str, *, rounds: int | None = None, **task: Any) -> None:
        super().__init__(max_iteration=rounds)
        datasets = task.pop("datasets", None)
        module = Module(textwrap.dedent(code), name="code", datasets=datasets)
        self.only = Task(module, **task)


def ended(api: UserAPI, swarm: Swarm) -> SwarmOverview:
    return api.wait_swarm(api.deploy_swarm(CLUSTER, swarm), timeout=60)


def outputs(api: UserAPI, swarm: SwarmOverview) -> list[Any]:
    assert swarm.status == "COMPLETED", swarm.reason
    return [task.output for task in api.get_tasks(swarm)]


def test_a_dataset_that_no_node_has_does_not_wait_in_silence(api: UserAPI) -> None:
    with pytest.raises(Unplaceable) as refused:
        api.deploy_swarm(CLUSTER, One("def main():\n    pass\n", datasets=["picturs"]))
    assert "'picturs'" in str(refused.value)
    assert "'pictures'" in str(refused.value), "it says what there is"


def test_any_without_a_maximum_runs_once(api: UserAPI) -> None:
    swarm = ended(api, One("def main():\n    return 1\n", method="any"))
    assert outputs(api, swarm) == [1]


@pytest.mark.parametrize("nodes", ["None", "['node-1']"])
def test_a_wrong_alias_in_schedule_next_iter_does_not_leave_the_swarm_active(
    api: UserAPI, nodes: str
) -> None:
    swarm = ended(
        api,
        One(
            f"""
            from manta.light import World
            def main():
                World().schedule_next_iter({nodes}, task_to_schedule_alias="wrker")
            """,
            rounds=3,
        ),
    )
    assert swarm.status == "FAILED"
    assert "'wrker'" in swarm.reason
    assert "code" in swarm.reason, "it says which aliases there are"


def test_a_failed_task_does_not_pass_for_success(api: UserAPI) -> None:
    swarm = ended(
        api,
        One(
            """
            from manta.light import World
            def main():
                World().results.add("half", 1)
                raise ValueError("the second half is missing")
            """
        ),
    )
    assert swarm.status == "FAILED"
    assert "the second half is missing" in swarm.reason
    assert {task.status for task in api.get_tasks(swarm)} <= {"FAILED", "CANCELLED"}
    errors = api.collect_errors(swarm)
    assert any("ValueError" in error.traceback for error in errors)


def test_a_swarm_that_is_through_is_completed(api: UserAPI) -> None:
    swarm = ended(api, One("def main():\n    pass\n", rounds=2))
    assert swarm.status == "COMPLETED"
    assert swarm.reason


def test_a_finished_swarm_stays_what_it_is(api: UserAPI) -> None:
    swarm = ended(api, One("def main():\n    pass\n"))
    for change in (api.start_swarm, api.pause_swarm, api.resume_swarm):
        with pytest.raises(RequestRefused) as refused:
            change(swarm)
        assert "COMPLETED" in str(refused.value)
    with pytest.raises(RequestRefused):
        api.stop_swarm(swarm)
    again = api.get_swarm(swarm)
    assert (again.status, again.reason, again.ended_at) == (
        "COMPLETED",
        swarm.reason,
        swarm.ended_at,
    )


def test_no_results_are_made_up_for_iterations_that_had_none(api: UserAPI) -> None:
    swarm = ended(
        api,
        One(
            """
            from manta.light import World
            def main():
                world = World()
                if world.iteration >= 3:
                    world.results.add("late", world.iteration)
            """,
            rounds=5,
            specified_ids=["node-1"],
        ),
    )
    results = api.get_swarm_results(swarm)
    assert sorted(result.iteration for result in results) == [3, 4]
    assert [result.value for result in results(3)] == [3]
    with pytest.raises(NotFound, match="iteration 0"):
        results(0)


def test_every_stream_ends_with_its_swarm(api: UserAPI) -> None:
    code = """
        import time
        from manta.light import World
        def main():
            world = World()
            print("line")
            world.log_metrics({"loss": 1.0})
            world.results.add("r", 1)
            time.sleep(0.3)
        """
    swarm = api.deploy_swarm(CLUSTER, One(code, rounds=2))
    streams: dict[str, Callable[[SwarmOverview], Iterator[Any]]] = {
        "results": api.stream_results,
        "metrics": api.stream_metrics,
        "logs": api.stream_logs,
        "events": api.stream_events,
    }
    counts: dict[str, int] = {}

    def read(name: str) -> None:
        counts[name] = sum(1 for _ in streams[name](swarm))

    readers = [threading.Thread(target=read, args=(name,)) for name in streams]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert not any(reader.is_alive() for reader in readers)
    assert counts["results"] == counts["metrics"] == counts["logs"] == 4
    assert counts["events"] > 4
    assert sum(1 for _ in api.stream_results(swarm)) == 4, "also when it is opened afterwards"


def test_a_task_learns_its_node(api: UserAPI) -> None:
    swarm = ended(
        api,
        One("from manta.light import World\ndef main():\n    return World().node_id\n"),
    )
    assert set(outputs(api, swarm)) == {node.id for node in api.list_nodes(CLUSTER)}


def test_a_dataset_may_be_a_folder(api: UserAPI) -> None:
    swarm = ended(
        api,
        One(
            """
            from manta.light import Local
            def main():
                local = Local()
                folder = local.get_dataset("pictures")
                return [
                    local.list_dir("pictures"),
                    local.read_file_lines("pictures", "a.txt"),
                    local.get_dataset("pictures", "deeper/b.npy").tolist(),
                    (folder / "a.txt").read_text(),
                ]
            """,
            datasets=["pictures"],
        ),
    )
    assert sorted(outputs(api, swarm)) == [
        [["a.txt", "deeper"], ["node 0"], [0], "node 0\n"],
        [["a.txt", "deeper"], ["node 1"], [0, 1], "node 1\n"],
    ]


def test_a_result_may_be_larger_than_a_message(api: UserAPI) -> None:
    swarm = ended(
        api,
        One(
            """
            import numpy as np
            from manta.light import World
            def main():
                world = World()
                world.results.add("large", np.arange(3_000_000) + world.rank)
            """
        ),
    )
    assert swarm.status == "COMPLETED", swarm.reason
    found = api.select_results(swarm, "large")
    assert len(found) == 2
    assert sorted(int(result.value[-1]) for result in found) == [2_999_999, 3_000_000]
    assert all(result.value.nbytes > 4 * 1024 * 1024 for result in found)


def test_no_results_do_not_read_as_success(api: UserAPI, tmp_path: Path) -> None:
    swarm = ended(api, One("def main():\n    pass\n"))
    with pytest.raises(NotFound, match="no results"):
        api.select_results(swarm, "accuracy")
    with pytest.raises(NotFound, match="no results at all"):
        api.get_swarm_results(swarm, "accuracy")
    everything = api.get_swarm_results(swarm)
    assert isinstance(everything, Results)
    assert len(everything) == 0
