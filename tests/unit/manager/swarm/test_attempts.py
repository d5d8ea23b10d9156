"""Attempts: how they end, and what is tried again."""

from __future__ import annotations

from typing import Any

import pytest

from manta.manager.swarm import journal
from manta.manager.swarm.events import Stopped
from manta.manager.swarm.reads.queries import page, select_results
from manta.protocol.node import ResultWritten, TaskStarted
from manta.protocol.states import AttemptState, SwarmState


def test_what_a_node_is_told(bench, make):
    b = bench(make.task("w", class_name="C", timeout=7.0, priority=3), seed=5, nodes=2)
    (one,), (two,) = (held.values() for held in b.told.values())
    assert (one.instance.index, one.size, one.class_name) == (0, 2, "C")
    assert (one.timeout, one.priority, one.swarm_name) == (7.0, 3, "fl")
    assert one.seed != two.seed
    assert one.task_id == "s.w.0.0.0"


def test_a_failure_names_task_node_iteration_and_first_line(bench, make):
    b = bench(make.task("worker"), nodes=2)
    b.end(b.running("worker")[1], "FAILED", "ValueError: bad shape\nmore")
    assert b.state == SwarmState.FAILED
    assert b.reason == "worker.1 failed on node-2 in iteration 0: ValueError: bad shape."
    statuses = [t.status for t in b.tasks()]
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
    assert "(attempt 3 of 3)" in b.reason
    # "all" must run there; others go elsewhere while there is an elsewhere
    assert nodes == (["id1"] * 3 if method == "all" else ["id1", "id2", "id1"])
    assert [t.instance.attempt for t in b.tasks()] == [0, 1, 2]
    assert len(b.sentences("retried")) == 2


def test_a_retry_that_succeeds(bench, make):
    b = bench(make.task("w", retries=1))
    w = b.running("w")[0]
    b.end(w, "FAILED", "no", entries=[ResultWritten(w, "r", make.value("bad"))])
    again = b.running("w")[0]
    b.end(again, entries=[ResultWritten(again, "r", make.value("good"))])
    assert [(i.attempt, i.counts) for i in b.items("results")] == [(0, False), (1, True)]
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


def test_results_settle_as_their_attempts_end_well(bench, make):
    b = bench(make.task("w", retries=1), nodes=2)
    one, two = b.running("w").values()

    def settled(after=0):
        shown: Any = page(b.machine, "results", after, settled=True)
        return [(i.index, i.attempt) for i in shown.items], shown.cursor, shown.ended

    b.say(one, ResultWritten(one, "r", make.value(1)))
    b.say(two, ResultWritten(two, "r", make.value(2)))
    assert settled() == ([], 0, False), "what runs may fail"
    b.end(two)
    assert settled() == ([(1, 0)], 1, False)
    b.end(one, "FAILED", "no")
    assert settled(1) == ([], 1, False)
    again = b.running("w")[0]
    b.end(again, entries=[ResultWritten(again, "r", make.value(3))])
    assert settled(1) == ([(0, 1)], 2, True)
    assert b.replayed().data == b.machine.data


def test_what_a_stopped_swarm_had_written_settles_with_its_end(bench, make):
    b = bench(make.task("w"), nodes=1)
    (w,) = b.running("w").values()
    b.say(w, ResultWritten(w, "r", make.value(1)))
    b.feed(Stopped())
    shown: Any = page(b.machine, "results", 0, settled=True)
    assert ([item.counts for item in shown.items], shown.ended) == ([True], True)
