"""The life of one swarm, case by case."""

from __future__ import annotations

import math

import pytest

from manta.manager.cluster.lease import Leases
from manta.manager.swarm import journal
from manta.manager.swarm.events import (
    Created,
    EntriesReceived,
    GlobalSet,
    ManagerRestarted,
    NodeLost,
    Paused,
    Placed,
    Resumed,
    Started,
    StateChanged,
    Stopped,
    Ticked,
)
from manta.manager.swarm.reads.queries import explain, info, page, select_results
from manta.manager.swarm.reads.queries import tasks as tasks_of
from manta.protocol.node import (
    GlobalWritten,
    MetricsLogged,
    NextIteration,
    Progressed,
    ResultWritten,
    StopRequested,
    TaskEnded,
    TaskError,
    TaskStarted,
    Timings,
)
from manta.protocol.spec import Edge
from manta.protocol.states import AttemptState, SwarmState
from manta.protocol.user import ResultItem


def fl(make):
    """The demo's four stages."""
    return (
        make.task("worker"),
        make.task("aggregator", "worker", method="any"),
        make.task("evaluator", "aggregator"),
        make.task("scheduler", "evaluator", method="any"),
    )


def tasks(machine, iteration=None):
    return tasks_of(machine, iteration).tasks


def items(bench, feed):
    return page(bench.machine, feed, 0).items


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


def test_its_story_reads_well(bench, make):
    b = bench(make.task("worker"), make.task("aggregator", "worker", method="any"), nodes=2)
    b.finish("worker", "aggregator")
    assert b.sentences() == [
        "Swarm 'fl' is ACTIVE.",
        "Iteration 0 begins.",
        "worker is placed: on node-1, node-2.",
        "worker.0 started on node-1.",
        "worker.0 finished on node-1 in 0 s.",
        "worker.1 started on node-2.",
        "worker.1 finished on node-2 in 0 s.",
        "worker is done: all 2 answered in 0 s.",
        "aggregator is placed: on node-1.",
        "aggregator started on node-1.",
        "aggregator finished on node-1 in 0 s.",
        "Iteration 0 took 0 s.",
        "Swarm 'fl' is COMPLETED: ran 1 iteration",
    ]


def test_what_a_node_is_told(bench, make):
    b = bench(make.task("w", class_name="C", timeout=7.0, priority=3), seed=5, nodes=2)
    (one,), (two,) = (held.values() for held in b.told.values())
    assert (one.instance.index, one.size, one.class_name) == (0, 2, "C")
    assert (one.timeout, one.priority, one.swarm_name) == (7.0, 3, "fl")
    assert one.seed != two.seed
    assert one.task_id == "s.w.0.0.0"


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
        "which is no task of this swarm; name one of worker, s."
    )


def test_schedule_next_iter_with_unknown_nodes_waits_and_fails(bench, make):
    b = bench(make.task("w", method="any"))
    (w,) = b.running("w").values()
    b.end(w, entries=[NextIteration(w, ("nobody",))])
    assert b.state == SwarmState.ACTIVE
    assert "'nobody' is no node of this cluster" in b.reason
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


# Failures.


def test_a_failure_names_task_node_iteration_and_first_line(bench, make):
    b = bench(make.task("worker"), nodes=2)
    b.end(b.running("worker")[1], "FAILED", "ValueError: bad shape\nmore")
    assert b.state == SwarmState.FAILED
    assert b.reason == "worker.1 failed on node-2 in iteration 0: ValueError: bad shape."
    statuses = [t.status for t in tasks(b.machine)]
    assert statuses == [AttemptState.CANCELLED, AttemptState.FAILED]


@pytest.mark.parametrize("state", ["FAILED", "TIMEOUT"])
@pytest.mark.parametrize("method", ["all", "any"])
def test_retries(bench, make, state, method):
    b = bench(make.task("w", method=method, maximum=1, retries=2, timeout=5.0), nodes=2)
    nodes = []
    for _ in range(3):
        (instance,) = b.running("w").values()
        nodes.append(b.node_of(instance))
        b.end(instance, state, "no")
    assert b.state == SwarmState.FAILED
    assert "(try 3 of 3)" in b.reason
    # "all" must run there; others go elsewhere while there is an elsewhere
    assert nodes == (["id1"] * 3 if method == "all" else ["id1", "id2", "id1"])
    assert [t.instance.attempt for t in tasks(b.machine)] == [0, 1, 2]
    assert len(b.sentences("retried")) == 2


def test_a_retry_that_succeeds(bench, make):
    b = bench(make.task("w", retries=1))
    w = b.running("w")[0]
    b.end(w, "FAILED", "no", entries=[ResultWritten(w, "r", make.value("bad"))])
    again = b.running("w")[0]
    b.end(again, entries=[ResultWritten(again, "r", make.value("good"))])
    assert [(i.attempt, i.counts) for i in items(b, "results")] == [(0, False), (1, True)]
    entries = select_results(b.machine, "r", 0).entries
    assert [(e.index, e.value) for e in entries] == [(0, make.value("good"))]


@pytest.mark.parametrize("state", ["INTERRUPTED", "REFUSED", "CANCELLED", "RUNNING", "gibberish"])
def test_the_platforms_faults_cost_no_retry_and_are_bounded(bench, make, state):
    b = bench(make.task("w", method="any"), nodes=1)
    pauses = []
    for _ in range(6):
        if not b.running("w"):
            before = b.now
            b.tick()
            pauses.append(b.now - before)
        (instance,) = b.running("w").values()
        b.end(instance, state, "the runtime died")
    assert pauses == [1, 2, 4, 8]
    assert b.state == SwarmState.FAILED
    assert "the runtime died" in b.reason


def test_interrupted_all_goes_back_to_its_node(bench, make):
    b = bench(make.task("w"))
    b.end(b.running("w")[2], "INTERRUPTED")
    assert b.node_of(b.running("w")[2]) == "id3"
    assert b.running("w")[2].attempt == 1


def test_a_silent_attempt_is_given_up_in_the_end(bench, make):
    b = bench(make.task("w", method="any", timeout=10.0))
    (w,) = b.running("w").values()
    assert b.machine.next_deadline() is None  # it may queue as long as it must
    b.say(w, TaskStarted(w, b.now))
    assert b.machine.next_deadline() == b.now + 2 * 10 + journal.BACKSTOP
    b.tick()
    assert b.state == SwarmState.FAILED
    assert b.reason == "w ran longer than its timeout of 10 s on node-1 in iteration 0."


# Nodes that go.


def test_all_fails_naming_the_lost_node(bench, make):
    b = bench(make.task("worker"))
    b.feed(NodeLost("id2", "no sign of life for 20 s"))
    assert b.state == SwarmState.FAILED
    assert b.reason == (
        "worker.1 was interrupted on node-2 in iteration 0: "
        "node-2 was lost: no sign of life for 20 s."
    )
    assert b.sentences("lost") == ["node-2 was lost with worker.1: no sign of life for 20 s."]


def test_all_with_a_quorum_goes_on(bench, make):
    b = bench(make.task("w", quorum=0.7), make.task("a", "w", method="any"))
    b.feed(NodeLost("id2", "gone"))
    assert b.state == SwarmState.ACTIVE
    b.finish("w")
    assert b.running("a")
    assert any("left out: w.1 was interrupted on node-2" in s for s in b.sentences("quorum"))


@pytest.mark.parametrize("method", ["any", "random", "best_resources"])
def test_others_are_placed_again(bench, make, method):
    b = bench(make.task("w", method=method, maximum=2))
    lost = b.node_of(b.running("w")[0])
    other = b.node_of(b.running("w")[1])
    b.nodes = [v for v in b.nodes if v.id != lost]
    b.feed(NodeLost(lost, "gone"))
    assert b.node_of(b.running("w")[0]) not in (lost, other)
    assert b.running("w")[0].attempt == 1
    b.finish("w")
    assert b.state == SwarmState.COMPLETED


def test_replicas_are_bound_to_no_node(bench, make):
    b = bench(make.task("w", replicas=4), nodes=2)
    assert [b.node_of(i) for i in b.running("w").values()] == ["id1", "id2", "id1", "id2"]
    b.nodes = b.nodes[:1]
    b.feed(NodeLost("id2", "gone"))
    assert [b.node_of(i) for i in b.running("w").values()] == ["id1"] * 4


def test_no_node_left_waits_then_fails_then_stays_failed(bench, make):
    b = bench(make.task("w", method="any"), nodes=1)
    old, b.nodes = b.nodes, []
    b.feed(NodeLost("id1", "gone"))
    assert "no node is connected" in b.reason
    b.tick()
    assert b.state == SwarmState.FAILED
    b.nodes = old
    b.nodes_changed()
    assert b.state == SwarmState.FAILED


def test_a_node_that_comes_in_time_takes_it(bench, make):
    b = bench(make.task("w", method="any"), nodes=1)
    old, b.nodes = b.nodes, []
    b.feed(NodeLost("id1", "gone"))
    b.wait_for(59)
    b.nodes = old
    b.nodes_changed()
    assert b.reason == ""
    assert b.running("w")
    b.wait_for(10)
    b.feed(Ticked())
    assert b.state == SwarmState.ACTIVE


def test_wait_waits_however_long(bench, make):
    b = bench(make.task("w", datasets=("none",)), wait=True)
    assert b.machine.next_deadline() is None
    assert "no node that it may run on has the dataset 'none'" in b.reason
    b.nodes = [make.view(9, datasets=("none",))]
    b.nodes_changed()
    assert b.running("w")
    assert b.reason == ""


def test_late_results_are_kept_and_never_applied(bench, make):
    """R19"""
    b = bench(make.task("w", method="any"), nodes=2)
    (old,) = b.running("w").values()
    b.say(old, ResultWritten(old, "r", make.value("early")))
    b.feed(NodeLost("id1", "gone"))
    (new,) = b.running("w").values()
    assert (new.attempt, b.node_of(new)) == (1, "id2")
    b.end(
        old,
        node="id1",
        entries=[
            ResultWritten(old, "r", make.value("late")),
            GlobalWritten(old, "g", make.value("late")),
            NextIteration(old),
            StopRequested(old),
        ],
    )
    assert b.running("w") == {0: new}
    assert b.machine.global_value("g") == (None, 0)
    b.end(new, entries=[ResultWritten(new, "r", make.value("good"))])
    assert b.reason == "ran 1 iteration"
    assert [(i.attempt, i.counts) for i in items(b, "results")] == [
        (0, False),
        (0, False),
        (1, True),
    ]
    statuses = [t.status for t in tasks(b.machine)]
    assert statuses == [AttemptState.SUPERSEDED, AttemptState.FINISHED]


def test_lost_while_it_waits_for_another_try(bench, make):
    b = bench(make.task("w"), nodes=2)
    b.end(b.running("w")[1], "REFUSED", "full")
    b.end(b.running("w")[1], "REFUSED", "full")
    assert list(b.running("w")) == [0]
    b.feed(NodeLost("id2", "gone"))
    assert b.state == SwarmState.FAILED
    assert "node-2" in b.reason


# Quorum and deadline.


@pytest.mark.parametrize(
    ("fraction", "size", "need"),
    [(0.8, 4, 4), (0.75, 4, 3), (0.5, 3, 2), (0.01, 4, 1), (1.0, 7, 7), (0.6, 5, 3), (0.7, 10, 7)],
)
def test_quorum_counts(fraction, size, need):
    from manta.manager.swarm.completion import quorum_of

    assert quorum_of(fraction, size) == need


def test_quorum_without_deadline_cuts_at_once(bench, make):
    b = bench(make.task("w", quorum=0.5), make.task("a", "w", method="any"))
    b.end(b.running("w")[0])
    straggler = b.running("w")[3]
    b.say(straggler, ResultWritten(straggler, "r", make.value(3)))
    b.end(b.running("w")[2])
    assert not b.running("w")
    assert b.running("a")
    assert not select_results(b.machine, "r", 0).entries
    assert b.sentences("quorum")[-1] == (
        "w is done: 2 of 4 answered in 0 s; left out: w.1 on node-2 had not answered in time; "
        "w.3 on node-4 had not answered in time."
    )


def test_quorum_with_deadline_waits_for_it(bench, make):
    b = bench(make.task("w", quorum=0.5, deadline=5.0), make.task("a", "w", method="any"))
    b.end(b.running("w")[0])
    b.end(b.running("w")[1])
    b.end(b.running("w")[2])
    assert not b.running("a")
    b.tick()
    assert b.running("a")
    assert b.now == 1005


def errors_of(b, instances):
    return [attempt_at(b, instance).error.sentence for instance in instances]


def attempt_at(b, at):
    return b.machine.data.runs[at.iteration][at.alias].instances[at.index].attempts[at.attempt]


def test_who_is_left_out_is_told_why(bench, make):
    b = bench(make.task("w", quorum=0.5), make.task("a", "w", method="any"))
    late = [b.running("w")[index] for index in (2, 3)]
    b.end(b.running("w")[0])
    b.end(b.running("w")[1])
    why = "was ended: 2 of 4 had answered, enough for its quorum of 0.5."
    assert errors_of(b, late) == [f"w.2 on node-3 {why}", f"w.3 on node-4 {why}"]
    told = TaskError("Cancelled", "the node's own words", last_lines=("last",))
    b.say(late[0], TaskEnded(late[0], AttemptState.CANCELLED, b.now, error=told), node="id3")
    failed = TaskError("ValueError", "it had failed by itself")
    b.say(late[1], TaskEnded(late[1], AttemptState.FAILED, b.now, error=failed), node="id4")
    assert errors_of(b, late) == [f"w.2 on node-3 {why}", "it had failed by itself"]
    assert attempt_at(b, late[0]).error.last_lines == ("last",)


def test_who_is_cut_at_the_deadline_is_told_so(bench, make):
    b = bench(make.task("w", quorum=0.75, deadline=5.0), make.task("a", "w", method="any"))
    late = [b.running("w")[3]]
    for index in range(3):
        b.end(b.running("w")[index])
    b.tick()
    assert errors_of(b, late) == [
        "w.3 on node-4 was ended: 3 of 4 had answered at its deadline of 5 s, enough for its "
        "quorum of 0.75."
    ]


def test_who_runs_when_the_swarm_ends_is_told_why(bench, make):
    b = bench(make.task("w"))
    running = b.running("w")
    b.feed(Stopped("ann"))
    assert errors_of(b, [running[0]]) == ["w.0 on node-1 was ended: the swarm was stopped by ann."]
    b = bench(make.task("w"))
    running = b.running("w")
    b.end(running[0], "FAILED", "broken")
    assert errors_of(b, [running[1]])[0].startswith(
        "w.1 on node-2 was ended: the swarm failed: w.0 failed on node-1"
    )


def test_quorum_with_deadline_ends_when_all_answered(bench, make):
    b = bench(make.task("w", quorum=0.5, deadline=5.0))
    b.finish("w")
    assert b.state == SwarmState.COMPLETED


def test_quorum_missed_at_the_deadline(bench, make):
    b = bench(make.task("w", quorum=0.5, deadline=5.0))
    b.end(b.running("w")[0])
    b.tick()
    assert b.state == SwarmState.FAILED
    assert b.reason == (
        "w had 1 of 4 answers at its deadline of 5 s and needs 2; "
        "missing: w.1 on node-2, w.2 on node-3, w.3 on node-4."
    )


def test_deadline_without_quorum_asks_for_all(bench, make):
    b = bench(make.task("w", deadline=5.0))
    b.end(b.running("w")[0])
    b.tick()
    assert b.state == SwarmState.FAILED
    assert "needs 4" in b.reason


def test_quorum_that_can_no_longer_hold(bench, make):
    b = bench(make.task("w", quorum=0.75))
    b.end(b.running("w")[0], "FAILED", "one")
    assert b.state == SwarmState.ACTIVE
    b.end(b.running("w")[1], "FAILED", "two")
    assert b.state == SwarmState.FAILED
    assert b.reason.startswith("w needs 3 of 4 (quorum 0.75) and only 2 can still answer; w.0 fai")


def test_patience_over_for_one_instance_leaves_the_quorum(bench, make):
    b = bench(make.task("w", method="random", quorum=0.5), nodes=2)
    survivor, lost = b.running("w").values()
    b.nodes = []
    b.feed(NodeLost(b.node_of(lost), "gone"))
    b.tick()
    assert b.state == SwarmState.ACTIVE
    b.end(survivor)
    assert b.state == SwarmState.COMPLETED


# What users do.


def test_stop_ends_everything(bench, make):
    b = bench(make.task("w"))
    b.feed(Stopped("ada"))
    assert b.state == SwarmState.STOPPED
    assert b.reason == "stopped by ada"
    assert not any(b.told.values())


def test_stop_before_start(bench, make):
    b = bench(make.task("w"), start=False)
    assert b.state == SwarmState.PENDING
    b.feed(Stopped())
    b.feed(Started())
    assert b.state == SwarmState.STOPPED


@pytest.mark.parametrize("final", ["COMPLETED", "STOPPED", "FAILED"])
def test_a_final_state_never_flips(bench, make, final):
    b = bench(make.task("w", method="any"))
    (w,) = b.running("w").values()
    if final == "STOPPED":
        b.feed(Stopped())
    else:
        b.end(w, "FINISHED" if final == "COMPLETED" else "FAILED")
    assert b.state == final
    revision = b.machine.revision
    events = (
        Stopped(), Started(), Paused(), Resumed(), Ticked(), NodeLost("id1", "x"),
        GlobalSet("g", make.value(1)), Placed(1, ()), ManagerRestarted(),
    )  # fmt: skip
    for event in events:
        assert b.feed(event) == []
    b.nodes_changed()
    assert b.machine.revision == revision
    b.end(w, node="id1")
    assert b.state == final
    assert b.machine.applied("id1") > 0  # the node may forget what it told
    assert page(b.machine, "events", 0).ended


def test_pause_lets_run_and_places_nothing(bench, make):
    b = bench(make.task("w"), make.task("a", "w", method="any"), max_iteration=2)
    b.feed(Paused("ada"))
    assert b.reason == "paused by ada"
    b.finish("w")
    assert not b.running("a")
    b.feed(Resumed())
    assert b.state == SwarmState.ACTIVE
    b.feed(Paused())
    b.finish("a")
    assert info(b.machine).iteration == 0
    b.feed(Resumed())
    assert info(b.machine).iteration == 1
    assert b.running("w")


def test_paused_failures_are_retried_after_the_resume(bench, make):
    b = bench(make.task("w", retries=1), make.task("v", method="any"))
    b.feed(Paused())
    b.end(b.running("w")[0], "FAILED", "no")
    b.end(b.running("v")[0], "INTERRUPTED")
    assert sorted(b.running("w")) == [1, 2, 3]
    b.feed(Resumed())
    assert b.running("w")[0].attempt == 1
    assert b.running("v")[0].attempt == 1


def test_a_pause_stops_the_clocks(bench, make):
    b = bench(make.task("w", quorum=0.5, deadline=5.0))
    b.wait_for(3)
    b.feed(Paused())
    assert b.machine.next_deadline() is None
    b.wait_for(100)
    b.feed(Resumed())
    assert b.machine.next_deadline() == b.now + 2


def test_paused_in_mid_placement_asks_again(bench, make):
    b = bench(make.task("w", method="any"), nodes=0)
    b.feed(Paused())
    b.nodes = [make.view(1)]
    b.nodes_changed()
    assert not b.running("w")
    b.feed(Resumed())
    assert b.running("w")


def test_globals_last_writer_wins(bench, make):
    b = bench(make.task("w"), globals={"g": make.value(0)})
    assert b.machine.global_value("g") == (make.value(0), 1)
    one, two = b.running("w")[0], b.running("w")[1]
    b.say(two, GlobalWritten(two, "g", make.value(2)))
    b.say(one, GlobalWritten(one, "g", make.value(1)))
    assert b.machine.global_value("g") == (make.value(1), 3)
    b.feed(GlobalSet("h", make.value("user")))
    assert b.machine.global_tags() == ("g", "h")


# Journals.


def test_repeats_and_gaps_are_ignored(bench, make):
    b = bench(make.task("w", method="any"), start=True)
    (w,) = b.running("w").values()
    entries = (TaskStarted(w, b.now), GlobalWritten(w, "g", make.value(1)))
    b.feed(EntriesReceived("id1", 2, entries))
    assert b.machine.applied("id1") == 0
    b.feed(EntriesReceived("id1", 1, entries))
    b.feed(EntriesReceived("id1", 1, entries))
    b.feed(EntriesReceived("id1", 2, (entries[1], GlobalWritten(w, "g", make.value(2)))))
    assert b.machine.applied("id1") == 3
    assert b.machine.global_value("g")[1] == 2
    assert len(b.sentences("started")) == 1


def test_a_repeat_is_acknowledged_and_not_stored(bench, make):
    b = bench(make.task("w", method="any"))
    (w,) = b.running("w").values()
    b.say(w, TaskStarted(w, b.now))
    stored = len(b.records)
    (ack,) = b.feed(EntriesReceived("id1", 1, (TaskStarted(w, b.now),)))
    assert ack.upto == 1
    assert len(b.records) == stored


def test_a_node_cannot_speak_for_another(bench, make):
    b = bench(make.task("w"), nodes=2)
    w = b.running("w")[0]
    stranger = make.instance("s", "nobody", 0, 0)
    b.end(w, node="id2")
    b.end(stranger, node="id2")
    for broken in [("s", "w", -1, 0, 0), ("s", "w", 0, -1, 0), ("s", "w", 0, 0, -1),
                   ("x", "w", 1, 0, 0), ("s", "w", 9, 0, 0), ("s", "w", 0, 9, 0)]:  # fmt: skip
        b.end(make.instance(*broken), node="id2")
    assert sorted(b.running("w")) == [0, 1]
    assert len(b.sentences("ignored")) == 2 * 8


def test_clocks_of_nodes_are_believed_within_reason(bench, make):
    b = bench(make.task("w", method="any"))
    (w,) = b.running("w").values()
    b.wait_for(10)
    end = TaskEnded(w, "FINISHED", at=5000.0, timings=Timings(1, 2, 3, 4, 5))
    b.say(w, TaskStarted(w, at=2.0), end)
    (seen,) = tasks(b.machine, 0)
    assert (seen.placed_at, seen.started_at, seen.ended_at) == (1000, 1000, 1010)
    assert seen.timings == Timings(1, 2, 3, 4, 5)
    assert tasks(b.machine, -1) == tasks(b.machine, 1) == ()


# Methods that look back.


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


# Restarts.


def test_after_a_restart_no_deadline_ends_at_once(bench, make):
    b = bench(make.task("w", quorum=0.5, deadline=5.0))
    b.wait_for(1000)
    b.feed(ManagerRestarted())
    assert b.machine.next_deadline() == b.now + 20


def test_after_a_restart_the_lease_is_over_before_an_attempt_counts_as_silent(bench, make):
    """Seed 76 of the simulation: a crashed node's task was told to have timed out."""
    b = bench(make.task("w", method="any", timeout=5.0))
    (w,) = b.running("w").values()
    b.say(w, TaskStarted(w, b.now))
    b.wait_for(1000)
    b.feed(ManagerRestarted())
    assert b.machine.next_deadline() > b.now + Leases().mercy + Leases().grace


def test_a_restart_in_a_pause_on_another_clock_costs_nothing(bench, make):
    """Seed 392 of the simulation: the pause was taken out twice."""
    b = bench(make.task("w", quorum=0.5, deadline=5.0))
    b.feed(Paused())
    b.wait_for(600)
    b.feed(ManagerRestarted())
    b.wait_for(30)
    b.feed(Resumed())
    assert b.machine.next_deadline() == b.now + 5


def test_time_never_runs_backwards(bench, make):
    b = bench(make.task("w", method="any"))
    b.now -= 600
    b.finish("w")
    (seen,) = tasks(b.machine)
    assert seen.ended_at == seen.placed_at == 1000


# Feeds.


def test_pages(bench, make):
    b = bench(make.task("w", method="any"))
    (w,) = b.running("w").values()
    for number in range(5):
        b.say(w, ResultWritten(w, "ab"[number % 2], make.value(number)))
    b.say(w, MetricsLogged(w, {"loss": 1.5}, 3, b.now))
    first = page(b.machine, "results", 0, limit=2, tag="b")
    assert [i.value for i in first.items if isinstance(i, ResultItem)] == [
        make.value(1),
        make.value(3),
    ]
    assert not first.ended
    rest = page(b.machine, "results", first.cursor, tag="b")
    assert rest.items == ()
    assert rest.cursor == 5
    (metric,) = items(b, "metrics")
    assert metric.metrics == {"loss": 1.5}
    with pytest.raises(ValueError, match="store"):
        page(b.machine, "logs", 0)
    b.finish("w")
    assert page(b.machine, "results", 5).ended
    assert not page(b.machine, "results", 0, limit=1).ended
    assert page(b.machine, "results", 0, limit=1).swarm.status == "COMPLETED"


def test_progress_is_thinned(bench, make):
    b = bench(make.task("w", method="any"))
    (w,) = b.running("w").values()
    for step in range(1001):
        b.say(w, Progressed(w, step / 1000, f"step {step}", b.now))
    assert 15 <= len(b.sentences("progress")) <= 21
    assert tasks(b.machine)[0].progress == 1.0
    b.wait_for(2)
    b.say(w, Progressed(w, math.pi / 3.1, "", b.now))
    assert b.sentences("progress")[-1] == "w on node-1 is at 101%."


def test_explain(bench, make):
    b = bench(make.task("w"), make.task("a", "w", method="any", datasets=("none",)), nodes=2)
    plan = explain(b.machine, b.nodes)
    assert [(p.task, p.node_alias) for p in plan.placements] == [("w", "node-1"), ("w", "node-2")]
    assert plan.problems == ("Task 'a' waits for w (0 of 2 have answered).",)
    assert {(v.task, v.rule) for v in plan.verdicts} == {("a", "datasets")}
    b.finish("w")
    plan = explain(b.machine, b.nodes)
    assert plan.problems == (b.reason,)
    b.feed(Stopped())
    assert explain(b.machine, b.nodes).problems == ("Swarm 'fl' is STOPPED: stopped by a user",)


def test_explain_before_the_start(bench, make):
    b = bench(make.task("w"), start=False, nodes=0)
    assert "no node is connected" in explain(b.machine, b.nodes).problems[0]


def test_state_changes_are_actions(bench, make):
    b = bench(make.task("w", method="any"))
    b.finish("w")
    changes = [a for a in b.actions if isinstance(a, StateChanged)]
    assert [c.state for c in changes] == ["ACTIVE", "COMPLETED"]


def test_created_twice_is_once(bench, make):
    b = bench(make.task("w"))
    b.feed(Created(make.spec(make.task("x"))))
    assert list(b.machine.graph.tasks) == ["w"]
