"""A cluster of this machine from Python, and swarms that run by themselves."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manta
from manta import Swarm, Task, task
from manta.apis.errors import DatasetMissing, InvalidArgument, SwarmFailed, Unplaceable
from manta.cli.local.cluster import LocalCluster
from manta.light.runtime.processes import marked
from manta.testing import wait_until
from tests.support.children import Child


@task
def worker(world, local):
    world.results.add("sum", float(local.get_dataset("numbers").sum()))
    world.log_metrics({"rank": world.rank})
    print("at", world.rank)


@task(method="any")
def total(world):
    world.globals["total"] = sum(world.get_results("sum"))
    return "done"


@task
def failing():
    return 1 / 0


class Sums(Swarm):
    def execute(self) -> Task:
        worker.datasets = ("numbers",)
        return total(worker())


class Fails(Swarm):
    def execute(self) -> Task:
        return failing()


@pytest.fixture
def numbers(tmp_path: Path) -> dict[str, Any]:
    for at in range(3):
        np.save(tmp_path / f"{at}.npy", np.full(2, at))
    return {"numbers": tmp_path / "{i}.npy"}


def is_gone(cluster: LocalCluster) -> bool:
    return not cluster.folder.exists() and all(one.ended.is_set() for one in cluster.children)


def test_a_cluster_gives_an_api_and_is_gone_at_the_end(numbers: dict[str, Any]) -> None:
    cluster = manta.LocalCluster(nodes=3, datasets=numbers)
    with cluster as api:
        assert [node.alias for node in api.list_nodes("local")] == ["node-1", "node-2", "node-3"]
        deployed = api.deploy_swarm(Sums())
        assert api.wait_swarm(deployed, timeout=60).status == "COMPLETED"
        assert api.select_global(deployed, "total") == 6.0
    assert is_gone(cluster)


def test_an_asynchronous_one(numbers: dict[str, Any]) -> None:
    cluster = manta.LocalCluster(2, numbers)

    async def use() -> float:
        async with cluster as api:
            deployed = await api.deploy_swarm(Sums())
            assert (await api.wait_swarm(deployed, timeout=60)).status == "COMPLETED"
            found: float = await api.select_global(deployed, "total")
            return found

    assert asyncio.run(use()) == 2.0
    assert is_gone(cluster)


def test_it_is_gone_after_an_error_too() -> None:
    cluster = manta.LocalCluster()

    def use() -> None:
        with cluster as api:
            api.deploy_swarm(Fails())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert is_gone(cluster)


KILLED = """
import sys
from manta import LocalCluster
cluster = LocalCluster(1)
with cluster:
    print(cluster._caretaker.pid, cluster.folder, flush=True)
    sys.stdin.readline()
"""


def test_its_processes_end_where_its_caretaker_is_killed_with_it() -> None:
    program: Child[str]
    with Child([sys.executable, "-c", KILLED], stdin=-1, stdout=-1, text=True) as program:
        assert program.stdout is not None
        caretaker, folder = program.stdout.readline().split()
        mark = f"MANTA_HOME={folder}"
        assert marked(mark)
        os.kill(int(caretaker), signal.SIGKILL)
        program.kill()
    wait_until(lambda: not marked(mark), what=lambda: marked(mark))
    shutil.rmtree(folder)


def test_what_it_is_given_is_checked(tmp_path: Path) -> None:
    wrong: Any
    for wrong in (-1, "3", 1.5, 10**9):
        with pytest.raises(InvalidArgument, match="LocalCluster's nodes"):
            manta.LocalCluster(wrong)
    for wrong in (["a"], "a", {"a": 3}, {3: "a"}, {"a": np.zeros(3)}):
        with pytest.raises(InvalidArgument, match="dataset"):
            manta.LocalCluster(1, wrong)
    cluster = manta.LocalCluster(2, {"one": tmp_path / "{i}.npy"})
    np.save(tmp_path / "0.npy", np.zeros(1))
    with pytest.raises(DatasetMissing, match=r"of node-2 is not there: .*1\.npy"), cluster:
        pass
    assert is_gone(cluster)


def test_a_process_that_ends_at_the_start_is_told_and_nothing_stays() -> None:
    class Broken(LocalCluster):
        def command(self, log_name: str, arguments: list[str]) -> list[str]:
            return ["/bin/sh", "-c", "echo it broke; exit 3"]

    cluster = Broken(1)
    with pytest.raises(Exception, match=r"exit code 3[\s\S]*it broke"), cluster:
        pass
    assert is_gone(cluster)


def test_a_swarm_runs_by_itself_and_all_of_it_is_returned(
    numbers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = Sums().run(nodes=3, datasets=numbers)
    assert (outcome.status, outcome.iterations) == ("COMPLETED", 1)
    assert outcome.globals == {"total": 6.0}
    assert sorted(one.value for one in outcome.results("sum")) == [0.0, 2.0, 4.0]
    assert sorted(one.metrics["rank"] for one in outcome.metrics) == [0, 1, 2]
    assert [one.output for one in outcome.tasks if one.alias == "total"] == ["done"]
    shown = capsys.readouterr().out
    assert "Sums on 3 nodes" in shown
    assert "at 2" in shown


def test_a_swarm_that_fails_raises_with_what_came_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SwarmFailed, match=r"Fails' is FAILED: .*division by zero") as raised:
        Fails().run(progress=False)
    assert raised.value.outcome.errors[0].kind == "ZeroDivisionError"
    assert capsys.readouterr().out == ""


def test_a_swarm_that_cannot_be_placed_is_refused_before_it_runs() -> None:
    with pytest.raises(Unplaceable, match="numbers"):
        Sums().run(nodes=1, progress=False)


def test_within_a_running_loop_as_in_a_notebook(numbers: dict[str, Any]) -> None:
    async def cell() -> Any:
        return Sums().run(nodes=1, datasets=numbers, progress=False).globals

    assert asyncio.run(cell()) == {"total": 0.0}
