"""What users do with a swarm."""

from __future__ import annotations

import pytest

from manta.manager.swarm.events import (
    Created,
    GlobalSet,
    ManagerRestarted,
    NodeLost,
    Paused,
    Placed,
    Resumed,
    Started,
    Stopped,
    Ticked,
)
from manta.manager.swarm.reads.queries import info, page
from manta.protocol.node import GlobalWritten
from manta.protocol.states import SwarmState


def test_created_twice_is_once(bench, make):
    b = bench(make.task("w"))
    b.feed(Created(make.spec(make.task("x"))))
    assert list(b.machine.graph.tasks) == ["w"]


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
