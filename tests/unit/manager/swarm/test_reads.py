"""What users read of a swarm."""

from __future__ import annotations

import pytest

from manta.manager.swarm.events import StateChanged, Stopped
from manta.manager.swarm.reads.queries import explain, page
from manta.protocol.node import MetricsLogged, ResultWritten
from manta.protocol.user import ResultItem


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


def test_state_changes_are_actions(bench, make):
    b = bench(make.task("w", method="any"))
    b.finish("w")
    changes = [a for a in b.actions if isinstance(a, StateChanged)]
    assert [c.state for c in changes] == ["ACTIVE", "COMPLETED"]


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
    (metric,) = b.items("metrics")
    assert metric.metrics == {"loss": 1.5}
    with pytest.raises(ValueError, match="store"):
        page(b.machine, "logs", 0)
    b.finish("w")
    assert page(b.machine, "results", 5).ended
    assert not page(b.machine, "results", 0, limit=1).ended
    assert page(b.machine, "results", 0, limit=1).swarm.status == "COMPLETED"


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
