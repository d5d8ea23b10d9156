"""Who decides on the end of an iteration and of the swarm, and who does not."""

from __future__ import annotations

import pytest

from manta.actors import Refused
from manta.manager.swarm.completion import quorum_of
from manta.manager.swarm.events import Paused, Resumed
from manta.manager.swarm.reads.exchange import check_next
from manta.protocol.node import NextIteration, StopRequested, TaskEnded

ASKS = [lambda at: StopRequested(at), lambda at: NextIteration(at, alias="nosuch")]


@pytest.mark.parametrize(
    ("fraction", "size", "need"),
    [(0.55, 20, 11), (0.5, 3, 2), (1e-12, 4, 1), (0.3, 10, 3), (1.0, 7, 7), (0.81, 100, 81)],
)
def test_a_quorum_is_counted_as_people_do(fraction, size, need):
    assert quorum_of(fraction, size) == need


def test_a_straggler_that_was_cut_has_stopped_and_scheduled_nothing(bench, make):
    for ask in (StopRequested, NextIteration):
        b = bench(make.task("w", quorum=0.5), nodes=2, max_iteration=3)
        first, second = b.running("w").values()
        b.say(second, ask(second))
        b.end(first)
        assert (b.state, b.machine.data.iteration) == ("ACTIVE", 1)
        assert not b.machine.data.self_scheduled


@pytest.mark.parametrize("ask", ASKS)
def test_an_attempt_that_has_ended_asks_for_nothing_more(bench, make, ask):
    b = bench(make.task("w"), nodes=2, max_iteration=3)
    first, second = b.running("w").values()
    node = b.node_of(first)
    b.end(first)
    b.say(first, ask(first), node=node)
    assert b.state == "ACTIVE"
    b.end(second)
    assert (b.state, b.machine.data.iteration) == ("ACTIVE", 1)
    assert not b.machine.data.self_scheduled


def test_an_attempt_that_was_given_up_asks_for_nothing_more(bench, make):
    b = bench(make.task("w", method="any", retries=1), nodes=2, max_iteration=3)
    first = b.running("w")[0]
    node = b.node_of(first)
    b.say(first, StopRequested(first), NextIteration(first), TaskEnded(first, "FAILED", b.now))
    b.say(first, StopRequested(first), node=node)
    b.finish("w")
    assert (b.state, b.machine.data.iteration) == ("ACTIVE", 1)
    assert not b.machine.data.self_scheduled


def placed(b, alias: str) -> list[str]:
    run = b.machine.data.run_of(alias)
    return [instance.last.node_id for instance in run.instances]


def test_the_nodes_that_several_instances_name_all_take_part(bench, make):
    b = bench(make.task("w"), nodes=4)
    for number, at in enumerate(list(b.running("w").values())):
        calls = [NextIteration(at, ("id1", f"id{number}"))] if number in (1, 3) else []
        calls += [NextIteration(at)] if number == 2 else []
        b.end(at, entries=calls)
    assert placed(b, "w") == ["id1", "id3"]


def test_nodes_are_named_for_the_named_task_alone(bench, make):
    b = bench(make.task("first"), make.task("late", "first"), nodes=3)
    b.finish("first")
    for number, at in enumerate(list(b.running("late").values())):
        b.end(at, entries=[NextIteration(at, ("id2",), "late")] if not number else [])
    assert placed(b, "first") == ["id1", "id2", "id3"]
    b.finish("first")
    assert placed(b, "late") == ["id2"]
    # For that iteration alone.
    for at in list(b.running("late").values()):
        b.end(at, entries=[NextIteration(at)])
    b.finish("first")
    assert placed(b, "late") == ["id1", "id2", "id3"]


def test_what_a_task_still_asked_for_when_it_was_done_is_placed_no_more(bench, make):
    b = bench(make.task("w", method="any", maximum=2, quorum=0.5), nodes=2, max_iteration=2)
    first, second = b.running("w").values()
    all_nodes, b.nodes = b.nodes, []
    b.end(second, "INTERRUPTED")
    assert b.machine.outstanding()  # there is no node
    b.end(first)
    assert b.machine.data.iteration == 1
    asked = [ask.replace for ask in b.machine.data.asks.values()]
    assert asked == [()]  # for the task of the new iteration, and nothing of the old one
    b.nodes = all_nodes
    b.nodes_changed()
    assert len(b.running("w")) == 2
    b.end(b.running("w")[0])
    assert b.state == "COMPLETED"


def test_a_paused_swarm_ends_when_it_is_resumed(bench, make):
    b = bench(make.task("w"), nodes=1)
    b.feed(Paused())
    b.finish("w")
    assert b.state == "PAUSED"
    b.feed(Resumed())
    assert b.state == "COMPLETED"


def test_the_next_iteration_is_asked_for_with_tasks_that_there_are(bench, make):
    b = bench(make.task("w"), make.task("late", "w"))
    check_next(b.machine, None)
    check_next(b.machine, "late")
    with pytest.raises(
        Refused, match=r"'worker', which is no task .*: late, w|one of late, w"
    ) as no:
        check_next(b.machine, "worker")
    assert no.value.code == "unknown-task"
