"""Replicas beyond what nodes are given at a time: handed out as places come free."""

from __future__ import annotations

from manta.manager.placement.place import WINDOW
from manta.manager.placement.plan import check
from manta.manager.placement.validity import MAX_REPLICAS, flaws
from manta.manager.swarm.events import NodeLost, Paused, Resumed, encode
from manta.manager.swarm.reads.exchange import answer as exchanged
from manta.manager.swarm.reads.queries import explain
from manta.protocol.exchange import Exchanged, PeerInstances, ReadContributions, ReadPeers
from manta.protocol.spec import ScheduleEntry
from manta.protocol.states import SwarmState
from tests.unit.manager.swarm.test_exchange import MOST


def many(bench, make, replicas=10, nodes=2, window=2, **changes):
    return bench(make.task("w", replicas=replicas, **changes), nodes=nodes, window=window)


def held(b):
    return {node: sorted(i.index for i in held) for node, held in b.told.items() if held}


def test_nodes_hold_no_more_than_the_window_and_all_run_once(bench, make):
    b = many(bench, make)
    seen: list[int] = []
    while b.state is SwarmState.ACTIVE:
        running = b.running("w")
        assert len(running) == min(4, 10 - len(seen))
        assert all(len(held) <= 2 for held in b.told.values())
        index, instance = next(iter(running.items()))
        assert b.told[b.node_of(instance)][instance].size == 10
        seen.append(index)
        b.end(instance)
    assert sorted(seen) == list(range(10))
    assert b.state is SwarmState.COMPLETED
    assert "all 10 answered" in " ".join(b.sentences("finished"))


def test_the_next_goes_to_the_node_that_has_a_free_place(bench, make):
    b = many(bench, make)
    assert held(b) == {"id1": [0, 2], "id2": [1, 3]}
    b.end(b.running("w")[1])
    assert held(b) == {"id1": [0, 2], "id2": [3, 4]}
    b.end(b.running("w")[3])
    b.end(b.running("w")[4])
    assert held(b) == {"id1": [0, 2], "id2": [5, 6]}, "a slow node is not waited for"


def test_a_replay_hands_out_the_same(bench, make):
    b = many(bench, make, retries=1)
    b.end(b.running("w")[2], "FAILED", "no")
    for _ in range(3):
        b.end(next(iter(b.running("w").values())))
    assert b.replayed().data == b.machine.data


def test_a_retry_keeps_its_place_in_the_window(bench, make):
    b = many(bench, make, retries=1)
    b.end(b.running("w")[0], "FAILED", "no")
    assert sorted(b.running("w")) == [0, 1, 2, 3]
    assert b.running("w")[0].attempt == 1


def test_after_the_loss_of_a_node_the_others_take_all(bench, make):
    b = many(bench, make)
    b.nodes.pop(1)
    b.feed(NodeLost("id2", "its lease ended"))
    assert held(b) == {"id1": [0, 1, 2, 3]}
    while running := b.running("w"):
        b.end(next(iter(running.values())))
    assert b.state is SwarmState.COMPLETED


def test_while_paused_none_is_handed_out(bench, make):
    b = many(bench, make)
    b.feed(Paused())
    b.end(b.running("w")[0])
    b.end(b.running("w")[1])
    assert sorted(b.running("w")) == [2, 3]
    b.feed(Resumed())
    assert sorted(b.running("w")) == [2, 3, 4, 5]


def test_a_quorum_is_of_all_and_says_how_many_had_no_turn(bench, make):
    b = many(bench, make, quorum=0.5)
    for _ in range(5):
        assert b.state is SwarmState.ACTIVE
        b.end(next(iter(b.running("w").values())))
    assert b.state is SwarmState.COMPLETED
    (sentence,) = b.sentences("quorum")[-1:]
    assert "5 of 10 answered" in sentence
    assert "1 whose turn had not come" in sentence


def test_one_that_fails_for_good_ends_the_swarm(bench, make):
    b = many(bench, make)
    b.end(b.running("w")[0], "FAILED", "no")
    assert b.state is SwarmState.FAILED
    assert not b.running("w")


def test_sequential_ones_run_one_by_one(bench, make):
    entry = ScheduleEntry(("w",), sequential=True)
    b = bench(make.task("w", replicas=7), schedule=((entry,),), nodes=2, window=1)
    for index in range(7):
        (instance,) = b.running("w").values()
        assert (instance.index, b.node_of(instance)) == (index, f"id{index % 2 + 1}")
        b.end(instance)
    assert b.state is SwarmState.COMPLETED


def test_explain_names_what_runs_and_counts_what_waits(bench, make):
    b = many(bench, make)
    b.end(b.running("w")[0])
    plan = explain(b.machine, b.nodes)
    assert [at.index for at in plan.placements] == [1, 2, 3, 4]
    assert plan.waiting == {"w": 5}


def test_a_check_places_a_window(make):
    plan = check(make.spec(make.task("w", replicas=100_000)), [make.view(1), make.view(2)])
    assert len(plan.placements) == 2 * WINDOW
    assert plan.waiting == {"w": 100_000 - 2 * WINDOW}


def test_they_cannot_meet_in_a_collective(bench, make):
    b = many(bench, make)
    read = ReadContributions(b.running("w")[0], 0, "barrier")
    told = exchanged(b.machine, read, MOST)
    assert isinstance(told, Exchanged)
    assert "10 instances of 'w' are more than run at the same time" in told.sentence


def test_peers_are_those_that_run(bench, make):
    b = many(bench, make)
    b.end(b.running("w")[0])
    told = exchanged(b.machine, ReadPeers(b.running("w")[4]), MOST)
    assert isinstance(told, PeerInstances)
    assert [peer.rank for peer in told.peers] == [1, 2, 3, 4]


def test_an_event_of_old_has_no_line(bench, make):
    """Records of all replicas placed at once are replayed as they were."""
    b = bench(make.task("w", replicas=9), nodes=2, window=100)
    assert len(b.running("w")) == 9
    assert all(b"waiting" not in encode(record.event, record.at) for record in b.records[-1:])
    assert b.replayed().data == b.machine.data


def test_a_million_is_the_limit(make):
    assert not flaws(make.spec(make.task("w", replicas=MAX_REPLICAS)))
    assert f"1 to {MAX_REPLICAS}" in flaws(make.spec(make.task("w", replicas=MAX_REPLICAS + 1)))[0]
