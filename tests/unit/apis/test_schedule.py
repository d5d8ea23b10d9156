from __future__ import annotations

from typing import Any

import pytest

from manta import Module, Swarm, Task
from manta.apis.compile.spec import compile_swarm
from manta.apis.errors import GraphError, InvalidSwarm
from manta.apis.swarm import schedule_of
from manta.protocol.spec import ScheduleEntry

CODE = "def main():\n    pass\n"


def module(name: str) -> Module:
    return Module(CODE, name=name)


class Rounds(Swarm):
    def __init__(self, schedule: Any, **changes: Any) -> None:
        super().__init__(**changes)
        self.worker = Task(module("worker"))
        self.aggregator = Task(module("aggregator"), method="any")
        self.schedule = schedule


PARALLEL, SEQUENTIAL = ("worker", "parallel"), ("aggregator", "sequential")


def compiled(swarm: Swarm) -> Any:
    return compile_swarm(swarm).spec


def test_a_repeat_of_the_first_entry_starts_the_next_iteration() -> None:
    spec = compiled(Rounds([PARALLEL, SEQUENTIAL] * 10))
    once = ScheduleEntry(("worker",)), ScheduleEntry(("aggregator",), True)
    assert spec.schedule == (once,) * 10
    assert all(task.after == () for task in spec.tasks)
    assert [task.alias for task in spec.tasks] == ["worker", "aggregator"]


def test_iterations_may_differ() -> None:
    spec = compiled(Rounds([PARALLEL, PARALLEL, SEQUENTIAL, PARALLEL]))
    assert [len(entries) for entries in spec.schedule] == [1, 2, 1]


def test_a_name_twice_in_one_iteration_is_a_second_task() -> None:
    spec = compiled(Rounds([PARALLEL, SEQUENTIAL, ("aggregator", "parallel")] * 2))
    assert [task.alias for task in spec.tasks] == ["worker", "aggregator", "aggregator_1"]
    assert spec.tasks[1].module == spec.tasks[2].module
    assert [entry.aliases for entry in spec.schedule[1]] == [
        ("worker",),
        ("aggregator",),
        ("aggregator_1",),
    ]


def test_a_name_may_stand_for_several_tasks_side_by_side() -> None:
    class Sided(Swarm):
        schedule = [("loaders", "parallel"), ("last", "parallel")]

        def __init__(self) -> None:
            self.loaders = [Task(module("loader")) for _ in range(3)]
            self.last = Task(module("last"))

    spec = compiled(Sided())
    assert spec.schedule == (
        (ScheduleEntry(("loader", "loader_1", "loader_2")), ScheduleEntry(("last",))),
    )


def test_it_is_shown() -> None:
    shown = str(Rounds([PARALLEL, SEQUENTIAL] * 10))
    assert "10 times: worker, then aggregator one by one" in shown
    assert "iteration 1: worker" in str(Rounds([PARALLEL, SEQUENTIAL, PARALLEL]))


def test_max_iteration_goes_along() -> None:
    assert compiled(Rounds([PARALLEL, SEQUENTIAL] * 3, max_iteration=2)).max_iteration == 2


def test_without_a_schedule_there_is_none() -> None:
    class Plain(Swarm):
        def __init__(self) -> None:
            self.worker = Task(module("worker"))

    assert schedule_of(Plain()) is None
    assert compiled(Plain()).schedule == ()


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ([], "is empty"),
        ("worker", "'worker': give a list"),
        ([PARALLEL, "aggregator"], "Entry 1"),
        ([PARALLEL, ("aggregator",)], "give (name, mode)"),
        ([PARALLEL, ("agregator", "parallel")], "there are: worker, aggregator"),
        ([PARALLEL, ("aggregator", "serial")], 'give "parallel" or "sequential"'),
        ([PARALLEL, (3, "parallel")], "no attribute"),
        ([PARALLEL], "is in no entry"),
    ],
)
def test_a_schedule_that_cannot_be_says_where(schedule: Any, words: str) -> None:
    with pytest.raises(InvalidSwarm) as refused:
        compile_swarm(Rounds(schedule))
    assert words in str(refused.value)
    assert "Rounds" in str(refused.value)


def test_a_schedule_and_execute_are_refused() -> None:
    class Both(Rounds):
        def execute(self) -> Task:
            return self.aggregator(self.worker())

    with pytest.raises(InvalidSwarm, match="execute"):
        compile_swarm(Both([PARALLEL, SEQUENTIAL]))


def test_a_schedule_and_calls_are_refused() -> None:
    swarm = Rounds([PARALLEL, SEQUENTIAL])
    swarm.aggregator(swarm.worker)
    with pytest.raises(InvalidSwarm, match="not in both"):
        compile_swarm(swarm)


def test_an_alias_used_twice_is_refused() -> None:
    swarm = Rounds([PARALLEL, SEQUENTIAL])
    swarm.worker = Task(module("worker"), alias="a")
    swarm.aggregator = Task(module("aggregator"), alias="a")
    with pytest.raises(GraphError, match="'a'"):
        compile_swarm(swarm)
