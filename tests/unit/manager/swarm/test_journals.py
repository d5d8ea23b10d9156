"""Entries of journals: applied once, in order, of live attempts only."""

from __future__ import annotations

import math

from manta.manager.swarm.events import EntriesReceived
from manta.protocol.node import GlobalWritten, Progressed, TaskEnded, TaskStarted, Timings


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
    (seen,) = b.tasks(0)
    assert (seen.placed_at, seen.started_at, seen.ended_at) == (1000, 1000, 1010)
    assert seen.timings == Timings(1, 2, 3, 4, 5)
    assert b.tasks(-1) == b.tasks(1) == ()


def test_progress_is_thinned(bench, make):
    b = bench(make.task("w", method="any"))
    (w,) = b.running("w").values()
    for step in range(1001):
        b.say(w, Progressed(w, step / 1000, f"step {step}", b.now))
    assert 15 <= len(b.sentences("progress")) <= 21
    assert b.tasks()[0].progress == 1.0
    b.wait_for(2)
    b.say(w, Progressed(w, math.pi / 3.1, "", b.now))
    assert b.sentences("progress")[-1] == "w on node-1 is at 101%."
