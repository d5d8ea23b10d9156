"""Iterations: which tasks run when, and on which nodes."""

from __future__ import annotations

import pytest

from manta.manager.swarm.reads.queries import info
from manta.protocol.node import NextIteration, ResultWritten, StopRequested
from manta.protocol.spec import Edge
from manta.protocol.states import SwarmState


def fl(make):
    """The demo's four stages."""
    return (
        make.task("worker"),
        make.task("aggregator", "worker", method="any"),
        make.task("evaluator", "aggregator"),
        make.task("scheduler", "evaluator", method="any"),
    )


def test_the_graph_runs_once_in_order(bench, make):
    b = bench(*fl(make))
    assert b.state == SwarmState.ACTIVE
    assert sorted(b.running("worker")) == [0, 1, 2, 3]
    assert not b.running("aggregator")
    b.finish("worker")
    assert sorted(b.running("aggregator")) == [0]
    b.finish("aggregator")
    assert sorted(b.running("evaluator")) == [0, 1, 2, 3]
    b.finish("evaluator")
    b.finish("scheduler")
    assert b.state == SwarmState.COMPLETED
    assert b.reason == "ran 1 iteration"
    assert info(b.machine).ended_at == b.now


@pytest.mark.parametrize(
    ("maximum", "calls", "iterations"),
    [
        (None, [], 1),
        (3, [], 3),
        (None, [0, 1, 2], 4),
        (2, [0, 1, 2, 3, 4], 2),
        (9, [0, 1], 3),  # once a task schedules, the swarm goes on only by that
        (1, [0], 1),
    ],
)
def test_iterations(bench, make, maximum, calls, iterations):
    b = bench(make.task("w", method="any"), max_iteration=maximum)
    for iteration in range(20):
        if b.state.final:
            break
        (instance,) = b.running("w").values()
        assert instance.iteration == iteration
        entries = [NextIteration(instance)] if iteration in calls else []
        b.end(instance, entries=entries)
    assert b.state == SwarmState.COMPLETED
    assert info(b.machine).iteration == iterations - 1
    assert b.reason == f"ran {iterations} iteration{'s' if iterations > 1 else ''}"


def test_a_task_stops_the_swarm_after_its_iteration(bench, make):
    b = bench(make.task("a", method="any"), make.task("b", "a", method="any"), max_iteration=9)
    (instance,) = b.running("a").values()
    b.end(instance, entries=[StopRequested(instance), NextIteration(instance)])
    assert b.running("b")
    b.finish("b")
    assert b.state == SwarmState.COMPLETED
    assert b.reason == "a stopped the swarm in iteration 0"


@pytest.mark.parametrize("call", [NextIteration, StopRequested])
def test_what_a_failed_attempt_asked_for_is_not_done(bench, make, call):
    b = bench(make.task("w", method="any", retries=1), nodes=1)
    (instance,) = b.running("w").values()
    b.end(instance, "FAILED", "no", entries=[call(instance)])
    b.finish("w")
    assert b.reason == "ran 1 iteration"


def test_schedule_next_iter_names_nodes(bench, make):
    b = bench(make.task("w"), make.task("s", "w", method="any"))
    b.finish("w")
    (s,) = b.running("s").values()
    b.end(s, entries=[NextIteration(s, ("node-2", "id3"), "w")])
    assert sorted(map(b.node_of, b.running("w").values())) == ["id2", "id3"]
    b.finish("w")
    (s,) = b.running("s").values()
    b.end(s, entries=[NextIteration(s, ("node-4",))])  # without an alias: the roots
    assert [b.node_of(i) for i in b.running("w").values()] == ["id4"]
    b.finish("w")
    (s,) = b.running("s").values()
    b.end(s, entries=[NextIteration(s)])  # without nodes: as the graph says
    assert len(b.running("w")) == 4


def test_schedule_next_iter_with_a_wrong_alias_fails_with_a_sentence(bench, make):
    b = bench(make.task("worker"), make.task("s", "worker", method="any"))
    b.finish("worker")
    (s,) = b.running("s").values()
    b.say(s, NextIteration(s, (), "workr"))
    assert b.state == SwarmState.FAILED
    assert b.reason == (
        "s on node-1 called schedule_next_iter for 'workr' in iteration 0, "
        "which is not a task of this swarm; name one of worker, s."
    )


def test_schedule_next_iter_with_unknown_nodes_waits_and_fails(bench, make):
    b = bench(make.task("w", method="any"))
    (w,) = b.running("w").values()
    b.end(w, entries=[NextIteration(w, ("nobody",))])
    assert b.state == SwarmState.ACTIVE
    assert "'nobody' is not a node of this cluster" in b.reason
    b.tick()
    assert b.state == SwarmState.FAILED
    assert "waited 60 s" in b.reason


def test_condition_result_starts_with_the_first_result(bench, make):
    b = bench(
        make.task("w"),
        make.task("early", Edge("w", "RESULT"), method="any"),
        make.task("late", "w", method="any"),
    )
    first = b.running("w")[2]
    b.say(first, ResultWritten(first, "x", make.value(1)))
    assert b.running("early")
    assert not b.running("late")
    b.finish("w")
    assert b.running("late")


def test_condition_result_without_a_result_starts_at_the_end(bench, make):
    b = bench(make.task("w"), make.task("next", Edge("w", "RESULT"), method="any"))
    b.finish("w")
    assert b.running("next")


def test_fan_in_waits_for_all(bench, make):
    b = bench(
        make.task("a", method="any"),
        make.task("b", method="any"),
        make.task("c", "a", "b", method="any"),
    )
    nodes = {b.node_of(b.running(alias)[0]) for alias in "ab"}
    assert nodes == {"id1", "id2"}  # the second sees that the first is there
    b.finish("a")
    assert not b.running("c")
    b.finish("b")
    assert b.running("c")


def test_fixed_keeps_the_nodes_of_the_first(bench, make):
    b = bench(make.task("w", fixed=True), nodes=2, max_iteration=3)
    b.nodes.append(make.view(3))
    b.finish("w")
    assert [b.node_of(i) for i in b.running("w").values()] == ["id1", "id2"]
    b.nodes = b.nodes[1:]
    b.finish("w")
    assert "it is fixed, and id1 is gone" in b.reason


def test_all_takes_nodes_that_joined(bench, make):
    b = bench(make.task("w"), nodes=2, max_iteration=2)
    b.nodes.append(make.view(3))
    b.finish("w")
    assert len(b.running("w")) == 3


def test_tag_follows_the_result(bench, make):
    b = bench(make.task("w"), make.task("t", "w", method="tag-good"))
    for index, w in b.running("w").items():
        tag = "good" if index in (1, 3) else "bad"
        b.end(w, entries=[ResultWritten(w, tag, make.value(index))])
    assert [b.node_of(i) for i in b.running("t").values()] == ["id2", "id4"]


def test_tag_that_nobody_wrote_fails_at_once(bench, make):
    b = bench(make.task("w"), make.task("t", "w", method="tag-good"))
    b.finish("w")
    assert b.state == SwarmState.FAILED
    assert b.reason.startswith("Task 't' runs where the result 'good' was written")


def test_any_prefers_the_warm_node(bench, make):
    b = bench(make.task("a", method="any"), nodes=3, max_iteration=2)
    b.nodes[0] = make.view(1, assigned=1)
    assert b.node_of(b.running("a")[0]) == "id1"
    b.nodes = [make.view(2), make.view(1)]
    b.finish("a")
    assert b.node_of(b.running("a")[0]) == "id1"
