"""Quorum and deadline: who is waited for, and how long."""

from __future__ import annotations

import pytest

from manta.manager.swarm.events import NodeLost, Paused, Resumed, Stopped
from manta.manager.swarm.quorum import patience, quorum_of
from manta.manager.swarm.reads.queries import select_results
from manta.protocol.node import ResultWritten, TaskEnded, TaskError
from manta.protocol.states import AttemptState, SwarmState


@pytest.mark.parametrize(
    ("fraction", "size", "need"),
    [
        (0.8, 4, 4), (0.75, 4, 3), (0.5, 3, 2), (0.01, 4, 1), (1.0, 7, 7), (0.6, 5, 3),
        (0.7, 10, 7), (0.55, 20, 11), (1e-12, 4, 1), (0.3, 10, 3), (0.81, 100, 81),
    ],
)  # fmt: skip
def test_a_quorum_is_counted_as_people_do(fraction, size, need):
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


def test_everybody_who_is_alive_is_waited_for_and_who_is_lost_is_named(bench, make):
    b = bench(make.task("w", quorum="alive"), make.task("a", "w", method="any"))
    b.end(b.running("w")[0])
    b.feed(NodeLost("id3", "no heartbeat for 20 s"))
    b.end(b.running("w")[1])
    assert not b.running("a")
    b.end(b.running("w")[3])
    assert b.running("a")
    assert b.sentences("quorum")[-1] == (
        "w is done: 3 of 4 answered in 0 s; left out: w.2 was interrupted on node-3 in "
        "iteration 0: node-3 was lost: no heartbeat for 20 s."
    )


def test_all_nodes_of_those_that_are_alive_may_be_lost_but_one(bench, make):
    b = bench(make.task("w", quorum="alive"))
    for node in ("id1", "id2", "id3"):
        b.feed(NodeLost(node, "gone"))
    assert b.state == SwarmState.ACTIVE
    b.end(b.running("w")[3])
    assert b.state == SwarmState.COMPLETED


def test_a_quorum_of_everybody_alive_fails_where_nobody_is(bench, make):
    b = bench(make.task("w", quorum="alive"))
    for node in ("id1", "id2", "id3", "id4"):
        b.feed(NodeLost(node, "gone"))
    assert b.state == SwarmState.FAILED
    assert b.reason.startswith("w has nobody left: w.0 was interrupted on node-1")


def test_whose_code_fails_is_alive_all_the_same(bench, make):
    b = bench(make.task("w", quorum="alive"))
    b.end(b.running("w")[1], "FAILED", "broken")
    assert b.state == SwarmState.FAILED
    assert b.reason == (
        'w.1 failed on node-2 in iteration 0: broken; the quorum "alive" leaves out those alone '
        "whose node is lost."
    )


def test_at_the_deadline_those_are_enough_that_have_answered(bench, make):
    b = bench(make.task("w", quorum="alive", deadline=5.0), make.task("a", "w", method="any"))
    b.end(b.running("w")[2])
    b.tick()
    assert b.running("a")


@pytest.mark.parametrize(
    ("took", "most"),
    [
        ([10.0], 21.0),
        ([10.0, 10.0, 10.0, 500.0], 21.0),  # one that took very long moves nothing
        ([1.0, 2.0, 3.0, 4.0, 5.0], 9.0),
        ([0.0, 0.0], 1.0),
    ],
)
def test_who_takes_much_longer_than_the_others_is_late(took, most):
    assert patience(took) == most


def test_a_deadline_that_follows_from_the_others_is_set_when_the_quorum_has_answered(bench, make):
    b = bench(
        make.task("w", quorum=0.5, deadline="auto"), make.task("a", "w", method="any"), nodes=5
    )
    late = b.running("w")[4]
    for index in (0, 1):
        b.now += 2
        b.end(b.running("w")[index])
    assert b.machine.next_deadline() is None
    b.end(b.running("w")[2])
    assert b.machine.next_deadline() == 1000 + 2 * 4 + 1  # of 2, 4 and 4 seconds
    b.end(b.running("w")[3])
    assert b.machine.next_deadline() == 1000 + 2 * 4 + 1
    b.tick()
    assert b.now == 1009
    assert b.running("a")
    assert errors_of(b, [late]) == [
        "w.4 on node-5 was ended: 4 of 5 had answered at its deadline of 9 s, by what the others "
        "took, enough for its quorum of 0.5."
    ]


def test_a_pause_makes_nobody_late(bench, make):
    b = bench(make.task("w", quorum=0.5, deadline="auto"))
    b.now += 1
    b.end(b.running("w")[0])
    b.feed(Paused("ann"))
    b.now += 1000
    b.feed(Resumed("ann"))
    b.end(b.running("w")[1])
    due = b.machine.next_deadline()
    assert due is not None
    assert due > b.now
