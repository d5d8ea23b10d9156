"""Functions and classes of a file run on nodes."""

from __future__ import annotations

import numpy as np
import pytest

from manta import Module, Swarm, Task, task
from manta.apis.errors import ModuleError
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.light import World
from manta.testing import run_task
from manta.testing.clusters import client, running

SIZE = 5
TABLE = np.ones(SIZE)


def filled(rank: int) -> np.ndarray:
    return np.full(SIZE, float(rank))


class Counting:
    def setup(self) -> None:
        self.rounds = 0

    def execute(self) -> None:
        self.rounds += 1
        World().results.add("rounds", self.rounds)


@task(maximum=2)
def worker(world, local):
    world.results.add("value", filled(world.rank))
    return local.get_resources().cpu_count > 0


@task(method="any")
def mean(world, results):
    values = world.get_results("value")
    results.save(float(np.mean(values)), tag="mean")
    return len(values), max(world.get_results("rounds"))


@task(method="any")
def failing():
    return filled(1)[SIZE]


class Works(Swarm):
    def __init__(self) -> None:
        super().__init__(max_iteration=2)
        self.counting = Task(Counting)

    def execute(self) -> Task:
        return mean([worker(), self.counting()])


class Fails(Swarm):
    def execute(self) -> Task:
        return failing()


def test_functions_and_classes_run_on_nodes_and_a_traceback_leads_to_their_lines() -> None:
    with running(LocalCluster, 2) as cluster, client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, Works())
        ended = api.wait_swarm(swarm, timeout=60)
        assert ended.status == "COMPLETED", ended.reason
        results = api.get_swarm_results(swarm)
        assert [one.value for one in results("mean")] == [0.5, 0.5]
        outputs = [one.output for one in api.get_tasks(swarm) if one.alias == "mean"]
        assert outputs[-1] in ((2, 2), [2, 2])

        failed = api.deploy_swarm(CLUSTER, Fails())
        assert api.wait_swarm(failed, timeout=60).status == "FAILED"
        (error,) = api.collect_errors(failed)
    with open(__file__) as file:
        line = file.read().splitlines().index("    return filled(1)[SIZE]") + 1
    assert f'File "test_functions.py", line {line}, in failing' in str(error.traceback)


def test_a_function_runs_in_this_process() -> None:
    done = run_task(mean, results={"value": [1.0, 3.0], "rounds": [1, 7]})
    assert done.output == (2, 7)
    assert done.results == {"mean": [2.0]}
    assert run_task(filled_by_default).output == 5


def filled_by_default(rank: int = 1) -> int:
    return len(filled(rank))


def test_a_function_that_could_not_travel_does_not_run_here_either() -> None:
    def sums() -> float:
        return float(TABLE.sum())

    with pytest.raises(ModuleError, match="'TABLE'"):
        run_task(sums)
    with pytest.raises(ModuleError, match="parameter 'rank'"):
        run_task(filled)


def test_its_modules_arguments_are_those_of_the_decorator() -> None:
    @task(name="named", version="1.0.0", datasets=["d"], retries=1)
    def of_its_own() -> None: ...

    assert isinstance(of_its_own.module, Module)
    assert (of_its_own.module.name, of_its_own.module.version) == ("named", "1.0.0")
    assert (of_its_own.datasets, of_its_own.retries) == (("d",), 1)
