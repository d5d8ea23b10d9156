"""Swarms whose tasks run by a schedule, and tasks whose instances run one after another."""

from __future__ import annotations

import pytest

from manta.manager.placement.plan import check
from manta.manager.placement.validity import flaws
from manta.manager.swarm.events import NodeLost, Paused, Resumed
from manta.manager.swarm.reads.queries import explain, info
from manta.protocol.node import NextIteration, StopRequested
from manta.protocol.spec import ScheduleEntry
from manta.protocol.states import SwarmState

WORKERS = ScheduleEntry(("worker",))
AGGREGATOR = ScheduleEntry(("aggregator",))


def by_schedule(bench, make, *iterations, **changes):
    tasks = make.task("worker"), make.task("aggregator", method="any")
    return bench(*tasks, schedule=iterations, **changes)


def test_entries_run_in_order_and_the_swarm_ends_with_the_last(bench, make):
    b = by_schedule(bench, make, (WORKERS, AGGREGATOR), (WORKERS, AGGREGATOR))
    assert info(b.machine).max_iteration == 2
    for iteration in range(2):
        assert sorted(b.running("worker")) == [0, 1, 2, 3]
        assert not b.running("aggregator")
        b.finish("worker")
        assert {i.iteration for i in b.running("aggregator").values()} == {iteration}
        b.finish("aggregator")
    assert b.state == SwarmState.COMPLETED
    assert b.reason == "ran 2 iterations"


def test_a_task_runs_only_in_the_iterations_that_name_it(bench, make):
    b = by_schedule(bench, make, (WORKERS,), (AGGREGATOR,), (WORKERS, AGGREGATOR))
    b.finish("worker")
    assert not b.running("worker")
    explain(b.machine, b.nodes)
    b.finish("aggregator")
    b.finish("worker")
    b.finish("aggregator")
    assert b.state == SwarmState.COMPLETED
    assert b.replayed().data == b.machine.data


def test_tasks_of_one_entry_run_side_by_side(bench, make):
    both = ScheduleEntry(("worker", "other"))
    tasks = make.task("worker"), make.task("other"), make.task("last", method="any")
    b = bench(*tasks, schedule=((both, ScheduleEntry(("last",))),), nodes=2)
    assert b.running("worker")
    assert b.running("other")
    b.finish("worker")
    assert not b.running("last")
    b.finish("other")
    assert b.running("last")


def test_max_iteration_is_a_ceiling_on_a_schedule(bench, make):
    b = by_schedule(bench, make, *[(WORKERS,)] * 5, max_iteration=2)
    assert info(b.machine).max_iteration == 2
    b.finish("worker")
    b.finish("worker")
    assert b.state == SwarmState.COMPLETED


def test_nodes_named_for_the_next_iteration_are_taken_from_the_schedule_s_next_roots(bench, make):
    b = by_schedule(bench, make, (WORKERS,), (AGGREGATOR,), (WORKERS,))
    for instance in b.running("worker").values():
        b.end(instance, entries=[NextIteration(instance, ("node-3",))])
    (aggregator,) = b.running("aggregator").values()
    assert b.node_of(aggregator) == "id3"
    b.finish("aggregator")
    assert sorted(b.running("worker")) == [0, 1, 2, 3], "the schedule goes on without a call"


def test_a_task_stops_a_scheduled_swarm(bench, make):
    b = by_schedule(bench, make, *[(WORKERS,)] * 5)
    for instance in b.running("worker").values():
        b.end(instance, entries=[StopRequested(instance)])
    assert b.state == SwarmState.COMPLETED
    assert info(b.machine).iteration == 0


def sequential(bench, make, nodes=3, **task):
    entry = ScheduleEntry(("worker",), sequential=True)
    return bench(make.task("worker", **task), schedule=((entry,),), nodes=nodes)


def test_sequential_instances_run_one_after_another(bench, make):
    b = sequential(bench, make)
    for index in range(3):
        (instance,) = b.running("worker").values()
        assert instance.index == index
        assert b.told[f"id{index + 1}"][instance].size == 3
        b.end(instance)
    assert b.state == SwarmState.COMPLETED
    assert b.replayed().data == b.machine.data


def test_a_sequential_instance_that_is_tried_again_keeps_its_turn(bench, make):
    b = sequential(bench, make, retries=1)
    b.end(b.running("worker")[0], "FAILED", "no")
    assert [(i.index, i.attempt) for i in b.running("worker").values()] == [(0, 1)]
    b.end(b.running("worker")[0])
    assert list(b.running("worker")) == [1]


def test_a_sequential_instance_that_fails_fails_the_swarm(bench, make):
    b = sequential(bench, make)
    b.end(b.running("worker")[0], "FAILED", "no")
    assert b.state == SwarmState.FAILED


def test_a_quorum_goes_on_without_the_sequential_instance_that_failed(bench, make):
    b = sequential(bench, make, quorum=0.6)
    b.end(b.running("worker")[0], "FAILED", "no")
    b.end(b.running("worker")[1])
    b.end(b.running("worker")[2])
    assert b.state == SwarmState.COMPLETED


def test_a_node_that_is_lost_before_its_turn_fails_all_naming_it(bench, make):
    b = sequential(bench, make)
    b.feed(NodeLost("id2", "its lease ended"))
    assert b.state == SwarmState.ACTIVE
    b.end(b.running("worker")[0])
    assert b.state == SwarmState.FAILED
    assert "node-2" in b.reason


def test_a_replica_whose_node_is_lost_before_its_turn_runs_elsewhere(bench, make):
    b = sequential(bench, make, replicas=3)
    b.feed(NodeLost("id2", "its lease ended"))
    b.nodes.pop(1)
    b.end(b.running("worker")[0])
    (second,) = b.running("worker").values()
    assert second.index == 1
    assert b.node_of(second) in ("id1", "id3")


def test_while_paused_nobody_s_turn_comes(bench, make):
    b = sequential(bench, make)
    b.feed(Paused())
    b.end(b.running("worker")[0])
    assert not b.running("worker")
    b.feed(Resumed())
    assert list(b.running("worker")) == [1]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (((ScheduleEntry(("wrker",)),),), "'wrker', which is no task"),
        (((ScheduleEntry(()),),), "an entry without a task"),
        (((WORKERS, WORKERS),), "runs a task twice"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(make, schedule, words):
    (flaw,) = flaws(make.spec(make.task("worker"), schedule=schedule))
    assert words in flaw


def test_edges_and_a_schedule_are_refused(make):
    spec = make.spec(make.task("worker"), make.task("b", "worker"), schedule=((WORKERS,),))
    assert any("not in both" in flaw for flaw in flaws(spec))


def test_a_scheduled_swarm_can_be_checked(make):
    spec = make.spec(make.task("worker"), make.task("b"), schedule=((WORKERS,),))
    plan = check(spec, [make.view(1), make.view(2)])
    assert not plan.problems
    assert len(plan.placements) == 4
