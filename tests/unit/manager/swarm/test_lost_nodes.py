"""Nodes that are lost, or that do not come."""

from __future__ import annotations

import pytest

from manta.manager.swarm.events import NodeLost, Ticked
from manta.protocol.node import (
    GlobalWritten,
    NextIteration,
    ResultWritten,
    StopRequested,
    TaskEnded,
    TaskStarted,
)
from manta.protocol.states import AttemptState, SwarmState


def test_all_fails_naming_the_lost_node(bench, make):
    b = bench(make.task("worker"))
    b.feed(NodeLost("id2", "no sign of life for 20 s"))
    assert b.state == SwarmState.FAILED
    assert b.reason == (
        "worker.1 was interrupted on node-2 in iteration 0: "
        "node-2 was lost: no sign of life for 20 s; an `all` task needs each of its nodes "
        'unless it has a quorum (quorum="alive" for those that are left, or quorum=0.8, with '
        "deadline= to wait for the others until then); other methods are placed again elsewhere, "
        "and retries= is for what fails in its code."
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
    assert [(i.attempt, i.counts) for i in b.items("results")] == [
        (0, False),
        (0, False),
        (1, True),
    ]
    statuses = [t.status for t in b.tasks()]
    assert statuses == [AttemptState.SUPERSEDED, AttemptState.FINISHED]


def test_lost_while_it_waits_for_another_try(bench, make):
    b = bench(make.task("w"), nodes=2)
    b.end(b.running("w")[1], "REFUSED", "full")
    b.end(b.running("w")[1], "REFUSED", "full")
    assert list(b.running("w")) == [0]
    b.feed(NodeLost("id2", "gone"))
    assert b.state == SwarmState.FAILED
    assert "node-2" in b.reason


def test_what_finished_stands_though_its_node_forgets_that_it_did(bench, make):
    b = bench(make.task("w"), make.task("after", "w"), nodes=1)
    at = b.running("w")[0]
    node, output = b.node_of(at), make.value("out")
    ended = TaskEnded(at, AttemptState.FINISHED, b.now, output)
    b.say(at, TaskStarted(at, b.now), ResultWritten(at, "r", make.value("good")), ended)
    told = b.tasks()[0]
    assert told.output == output
    b.say(at, TaskEnded(at, AttemptState.INTERRUPTED, b.now), node=node)
    assert b.tasks()[0] == told
    assert [item.counts for item in b.items("results")] == [True]


def test_an_attempt_is_known_to_have_begun_after_a_restart_of_the_manager(bench, make):
    b = bench(make.task("w"), nodes=1)
    [assignment] = b.machine.desired()["id1"]
    assert not assignment.begun
    at = b.running("w")[0]
    b.say(at, TaskStarted(at, b.now))
    [assignment] = b.replayed().desired()["id1"]
    assert assignment.begun
