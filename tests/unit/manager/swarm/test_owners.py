"""What a swarm's machine makes of nodes whose owners have to be asked, or deny."""

from __future__ import annotations

import math

import pytest

from manta.manager.swarm.reads.held_up import asked
from manta.protocol.node import DENIED, TaskEnded, TaskError, TaskHeld, TaskStarted
from manta.protocol.states import AttemptState, SwarmState


def held(bench, make, **changes):
    b = bench(make.task("only", **changes), nodes=2)
    for instance in b.running("only").values():
        b.say(instance, TaskHeld(instance, b.now - 7200))
    return b


def test_what_waits_for_an_owner_is_told_with_its_node_and_since_when(bench, make):
    b = held(bench, make)
    assert b.sentences("held") == [
        "only.0 waits for the owner of node-1.",
        "only.1 waits for the owner of node-2.",
    ]
    assert [one.status for one in b.tasks()] == [AttemptState.PLACED] * 2  # it does not run
    found = asked(b.machine.data, b.now - 10_000)
    assert [(one.node, one.who, one.count, one.since) for one in found] == [
        ("node-1", "only.0", 1, 2800.0),
        ("node-2", "only.1", 1, 2800.0),
    ]
    assert asked(b.replayed().data, b.now - 10_000) == found


def test_it_waits_no_longer_once_it_has_begun(bench, make):
    b = held(bench, make)
    first, second = b.running("only").values()
    b.say(first, TaskStarted(first, b.now))
    assert [one.who for one in asked(b.machine.data, 0.0)] == ["only.1"]
    b.say(first, TaskHeld(first, b.now))  # told late
    assert [one.who for one in asked(b.machine.data, 0.0)] == ["only.1"]
    b.end(second)
    assert asked(b.machine.data, 0.0) == ()


@pytest.mark.parametrize("at", [math.nan, -math.inf, math.inf, -1e300])
def test_times_that_cannot_be_are_limited_to_what_can(bench, make, at):
    b = bench(make.task("only"), nodes=2)
    first, second = b.running("only").values()
    b.say(first, TaskHeld(first, at))
    [found] = asked(b.machine.data, 0.0)
    assert b.now - 1e9 < found.since <= b.now
    b.say(second, TaskStarted(second, at))
    assert 0.0 <= b.machine.data.live[second].started_at <= b.now


def test_told_again_it_is_one_event(bench, make):
    b = held(bench, make)
    instance = b.running("only")[0]
    b.say(instance, TaskHeld(instance, b.now))
    assert len(b.sentences("held")) == 2


def deny(b, index=0):
    instance = b.running("only")[index]
    error = TaskError(DENIED, f'{instance} was denied by its node\'s owner: rule "x".')
    b.say(instance, TaskEnded(instance, "REFUSED", b.now, error=error))


def test_what_an_owner_denies_is_not_asked_for_again_on_the_same_node(bench, make):
    b = held(bench, make, retries=3)
    deny(b)
    assert b.state is SwarmState.FAILED
    assert b.reason.startswith("only.0 was refused by node-1 in iteration 0")
    assert 'denied by its node\'s owner: rule "x"' in b.reason


def test_what_is_bound_to_no_node_goes_to_another(bench, make):
    b = bench(make.task("only", method="any"), nodes=2)
    first = b.node_of(b.running("only")[0])
    deny(b)
    assert b.state is SwarmState.ACTIVE
    assert b.node_of(b.running("only")[0]) != first


def test_with_a_quorum_it_goes_on_without_them(bench, make):
    b = held(bench, make, quorum=0.5)
    deny(b)
    assert not b.state.final
    b.end(b.running("only")[1])
    assert b.state is SwarmState.COMPLETED


@pytest.mark.parametrize("kind", ["Refused", "NodeStopping"])
def test_other_refusals_are_tried_again(bench, make, kind):
    b = held(bench, make)
    instance = b.running("only")[0]
    b.say(instance, TaskEnded(instance, "REFUSED", b.now, error=TaskError(kind, "No room.")))
    assert b.state is SwarmState.ACTIVE
