"""More instances than places, which wait for each other: each node has two."""

from __future__ import annotations

import pytest

from manta.manager.swarm.reads.exchange import answer
from manta.manager.swarm.reads.meetings import queued_behind
from manta.protocol.exchange import (
    ReadContributions,
)
from manta.protocol.node import TaskStarted
from tests.unit.manager.swarm.test_exchange import MOST, contribute, worker


def begin(b, *indices):
    for index in indices:
        one = worker(b, index)
        b.say(one, TaskStarted(one, b.now))


def ask_with_nodes(b, request):
    return answer(b.machine, request, MOST, lambda: tuple(b.nodes))


@pytest.mark.parametrize("kind", ["barrier", "all_gather", "all_reduce", "reduce_scatter"])
def test_who_is_queued_behind_those_that_wait_for_it_is_told_at_once(bench, make, kind):
    b = bench(make.task("worker", replicas=5), nodes=2)
    begin(b, 0, 1, 2, 3)
    asked = ReadContributions(worker(b, 0), 0, kind)
    contribute(b, make, 0, 1, 3, kind=kind)
    assert not ask_with_nodes(b, asked).error, "worker.2 may yet end without that call"
    contribute(b, make, 2, kind=kind)
    never = ask_with_nodes(b, asked)
    assert never.error == "CollectiveError"
    assert never.sentence == (
        f"{kind} can never end: worker.4 is queued on node-1 behind worker.0, worker.2, which wait "
        "for them there (the node has 2 places for 3 of them); give 'worker' fewer replicas, or "
        "its nodes more places (max_concurrent_tasks)."
    )


def test_all_but_the_first_wait_for_the_outcome_of_an_all_reduce(bench, make):
    b = bench(make.task("worker", replicas=5), nodes=2)
    begin(b, 0, 1, 2, 3)
    contribute(b, make, 0, 1, 2, 3, kind="all_reduce", to=0)
    asked = ReadContributions(worker(b, 1), 1, "all_reduce", ranks=(0,))
    assert "worker.4 is queued on node-1" in ask_with_nodes(b, asked).sentence


@pytest.mark.parametrize("kind", ["gather", "scatter"])
def test_where_not_all_wait_for_all_a_place_comes_free(bench, make, kind):
    b = bench(make.task("worker", replicas=5), nodes=2)
    begin(b, 0, 1, 2, 3)
    contribute(b, make, 0, 1, 2, 3, kind=kind)
    assert not ask_with_nodes(b, ReadContributions(worker(b, 0), 0, kind)).error


def test_who_has_a_place_and_is_starting_is_waited_for(bench, make):
    b = bench(make.task("worker", replicas=4), nodes=2)
    begin(b, 0, 1, 3)
    contribute(b, make, 0, 1, 3, kind="barrier")
    assert not ask_with_nodes(b, ReadContributions(worker(b, 0), 0, "barrier")).error


def test_a_retry_that_has_contributed_before_is_not_missed(bench, make):
    b = bench(make.task("worker", replicas=4, retries=1), nodes=2)
    begin(b, 0, 1, 2, 3)
    contribute(b, make, 0, 1, 2, kind="barrier")
    b.end(worker(b, 1), "FAILED", "no")
    asked = ReadContributions(worker(b, 0), 0, "barrier")
    assert worker(b, 1).attempt == 1
    assert not ask_with_nodes(b, asked).error
    contribute(b, make, 3, kind="barrier")
    assert ask_with_nodes(b, asked).ready


def test_those_who_are_queued_are_named_to_users(bench, make):
    b = bench(make.task("worker", replicas=5), nodes=2)
    nodes = [b.nodes[0], make.view(2, assigned=1)]  # another swarm has a place there
    begin(b, 0, 1, 2)
    assert queued_behind(b.machine.data, lambda: nodes) == ""
    contribute(b, make, 0, kind="barrier")
    assert queued_behind(b.machine.data, lambda: nodes) == (
        "worker.4 is queued on node-1, whose 2 places are taken, and others of 'worker' wait for "
        "them (barrier); worker.3 is queued on node-2, whose 2 places are taken, and others of "
        "'worker' wait for them (barrier)."
    )
    b.end(worker(b, 2))
    begin(b, 3, 4)
    assert queued_behind(b.machine.data, lambda: nodes) == ""
