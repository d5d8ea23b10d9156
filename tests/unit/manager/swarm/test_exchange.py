"""What instances say to each other, case by case: the machine and what is read of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.manager.swarm.events import NodeLost, Released, Stopped, Woken
from manta.manager.swarm.letters import Most, Room
from manta.manager.swarm.phases import shares
from manta.manager.swarm.reads import exchange as reads
from manta.manager.swarm.reads.exchange import answer, topic_of
from manta.protocol.exchange import (
    Broadcasted,
    Checkpointed,
    ClaimsReturned,
    Contributed,
    LockReleased,
    LockWanted,
    ReadBroadcast,
    ReadCheckpoint,
    ReadContributions,
    ReadLock,
    ReadMessage,
    ReadPeers,
    ReadRoom,
    Receiving,
    Sent,
)
from manta.protocol.node import TaskEnded, TaskStarted, Timings
from manta.protocol.spec import ScheduleEntry
from manta.protocol.values import BlobRef

MOST = Most.of(200_000, 1 << 30, 1)


def read(b, request):
    return answer(b.machine, request, MOST)


def worker(b, index):
    return b.running("worker")[index]


def given_values(b, request):
    found = read(b, request)
    assert found.ready, found
    return [entry.value.data.decode() for entry in found.values]


# Broadcasts.


def test_the_latest_broadcast_of_the_iteration_is_read(bench, make):
    b = bench(make.task("worker"), nodes=3, max_iteration=2)
    one, other = worker(b, 0), worker(b, 1)
    waiting = read(b, ReadBroadcast(other, "model"))
    assert not waiting.ready
    assert not waiting.error
    assert "worker.0 on node-1" in waiting.sentence
    b.say(one, Broadcasted(one, "model", make.value(1)))
    b.say(one, Broadcasted(one, "model", make.value(2)))
    assert given_values(b, ReadBroadcast(other, "model")) == ["2"]
    b.say(other, Broadcasted(other, "model", make.value(3)))
    assert given_values(b, ReadBroadcast(one, "model")) == ["3"]
    b.finish("worker")
    assert not read(b, ReadBroadcast(worker(b, 0), "model")).ready, "another iteration"


def test_a_broadcast_that_nobody_is_left_to_send_is_an_error(bench, make):
    b = bench(make.task("worker"), make.task("after", "worker"), nodes=2)
    b.end(worker(b, 0))
    never = read(b, ReadBroadcast(worker(b, 1), "model"))
    assert never.error == "NothingSent"
    assert "'model'" in never.sentence


def test_a_task_that_comes_before_or_beside_may_still_broadcast(bench, make):
    b = bench(make.task("worker"), make.task("other"), nodes=1)
    waiting = read(b, ReadBroadcast(worker(b, 0), "model"))
    assert not waiting.error
    assert "other on node-1" in waiting.sentence


# Messages.


def test_messages_come_in_order_and_once(bench, make):
    b = bench(make.task("worker"), nodes=2)
    one, other = worker(b, 0), worker(b, 1)
    b.say(one, *(Sent(one, "id2", "t", make.value(n)) for n in range(3)))
    b.say(other, Receiving(other, "id1", "t"), Receiving(other, "id1", "t"))
    assert given_values(b, ReadMessage(other, "id1", "t", 0)) == ["0"]
    assert given_values(b, ReadMessage(other, "id1", "t", 0)) == ["0"], "asked again"
    assert given_values(b, ReadMessage(other, "id1", "t", 1)) == ["1"]
    b.say(other, Receiving(other, "id1", "t"), Receiving(other, "id1", "t"))
    assert given_values(b, ReadMessage(other, "id1", "t", 2)) == ["2"]
    waiting = read(b, ReadMessage(other, "id1", "t", 3))
    assert not waiting.ready
    assert "worker.0 on node-1" in waiting.sentence


def test_what_nobody_took_is_there_in_the_next_iteration(bench, make):
    b = bench(make.task("worker"), nodes=2, max_iteration=2)
    b.say(worker(b, 0), Sent(worker(b, 0), "id2", "t", make.value("late")))
    b.finish("worker")
    other = worker(b, 1)
    b.say(other, Receiving(other, "id1", "t"))
    assert given_values(b, ReadMessage(other, "id1", "t", 0)) == ["late"]


def test_a_retry_does_not_send_twice(bench, make):
    b = bench(make.task("worker", retries=1), nodes=2)
    one, other = worker(b, 0), worker(b, 1)
    b.say(one, Sent(one, "id2", "t", make.value("a0")), Sent(one, "id2", "t", make.value("b0")))
    b.say(other, Receiving(other, "id1", "t"))
    assert given_values(b, ReadMessage(other, "id1", "t", 0)) == ["a0"]
    b.end(one, "FAILED", "no")
    again = worker(b, 0)
    b.say(again, *(Sent(again, "id2", "t", make.value(text)) for text in ("a1", "b1", "c1")))
    b.say(other, *(Receiving(other, "id1", "t") for _ in range(3)))
    got = [given_values(b, ReadMessage(other, "id1", "t", n)) for n in range(3)]
    assert got == [["a0"], ["b1"], ["c1"]]
    assert not read(b, ReadMessage(other, "id1", "t", 3)).ready


def test_what_a_failed_attempt_had_taken_is_received_again(bench, make):
    b = bench(make.task("worker", retries=1), nodes=2)
    one, other = worker(b, 0), worker(b, 1)
    b.say(one, Sent(one, "id2", "t", make.value("a")), Sent(one, "id2", "t", make.value("b")))
    b.say(other, Receiving(other, "id1", "t"))
    b.end(other, "FAILED", "no")
    again = worker(b, 1)
    b.say(again, Receiving(again, "id1", "t"), Receiving(again, "id1", "t"))
    assert given_values(b, ReadMessage(again, "id1", "t", 0)) == ["a"]
    assert given_values(b, ReadMessage(again, "id1", "t", 1)) == ["b"]


def test_what_an_attempt_claimed_and_did_not_receive_goes_to_the_next_claim(bench, make):
    b = bench(make.task("worker"), nodes=2, max_iteration=2)
    one, other = worker(b, 0), worker(b, 1)
    b.say(one, *(Sent(one, "id2", "t", make.value(text)) for text in "abc"))
    b.say(other, *(Receiving(other, "id1", "t") for _ in range(4)))
    b.say(other, ClaimsReturned(other, "id1", "t", 1))
    b.finish("worker")
    b.say(worker(b, 0), Sent(worker(b, 0), "id2", "t", make.value("d")))
    again = worker(b, 1)
    b.say(again, *(Receiving(again, "id1", "t") for _ in range(3)))
    got = [given_values(b, ReadMessage(again, "id1", "t", n)) for n in range(3)]
    assert got == [["b"], ["c"], ["d"]]


def test_to_wait_for_a_node_that_runs_nothing_more_is_an_error(bench, make):
    b = bench(make.task("worker"), nodes=2)
    other = worker(b, 1)
    b.say(other, Receiving(other, "id1", "t"))
    assert not read(b, ReadMessage(other, "id1", "t", 0)).error
    b.end(worker(b, 0))
    never = read(b, ReadMessage(other, "id1", "t", 0))
    assert never.error == "PeerLost"
    assert "node-1" in never.sentence


def test_to_wait_for_oneself_is_an_error_at_once(bench, make):
    b = bench(make.task("worker"), nodes=2)
    one = worker(b, 0)
    b.say(one, Receiving(one, "id1", "t"))
    assert read(b, ReadMessage(one, "id1", "t", 0)).error == "PeerLost"


# Collectives.


def contribute(b, make, *indices, number=0, kind="gather", to=None):
    for index in indices:
        one = worker(b, index)
        b.say(one, Contributed(one, number, kind, make.value(index), to))


def test_a_collective_is_ready_when_all_have_answered(bench, make):
    b = bench(make.task("worker"), nodes=3)
    ask = ReadContributions(worker(b, 0), 0, "gather")
    contribute(b, make, 2, 0)
    waiting = read(b, ask)
    assert not waiting.ready
    assert waiting.sentence == "gather waits for worker.1 on node-2 (placed)"
    contribute(b, make, 1)
    assert given_values(b, ask) == ["0", "1", "2"]


def test_a_part_may_be_for_one_rank(bench, make):
    b = bench(make.task("worker"), nodes=2)
    one = worker(b, 0)
    b.say(one, Contributed(one, 0, "scatter", make.value("for 0"), 0))
    early = read(b, ReadContributions(worker(b, 1), 0, "scatter", ranks=(0,)))
    assert not early.ready, "its part is not there yet"
    b.say(
        one,
        Contributed(one, 0, "scatter", make.value("for 1"), 1),
    )
    assert not read(b, ReadContributions(worker(b, 0), 0, "scatter")).ready
    ask = ReadContributions(worker(b, 1), 0, "scatter", ranks=(0,))
    assert given_values(b, ask) == ["for 1"]


def test_the_first_contribution_counts_whichever_attempt_made_it(bench, make):
    b = bench(make.task("worker", retries=1), nodes=2)
    one = worker(b, 0)
    b.say(one, Contributed(one, 0, "gather", make.value("first")))
    b.end(one, "FAILED", "no")
    again = worker(b, 0)
    b.say(again, Contributed(again, 0, "gather", make.value("second")))
    contribute(b, make, 1)
    assert given_values(b, ReadContributions(worker(b, 1), 0, "gather")) == ["first", "1"]


def test_another_call_under_the_same_number_names_both(bench, make):
    b = bench(make.task("worker"), nodes=2)
    contribute(b, make, 1, kind="barrier")
    never = read(b, ReadContributions(worker(b, 0), 0, "all_reduce"))
    assert never.error == "CollectiveError"
    assert "worker.0 called all_reduce where worker.1 called barrier" in never.sentence


def test_other_options_of_a_call_are_told_to_all_who_wait_in_it_or_in_the_next(bench, make):
    b = bench(make.task("worker"), nodes=4)
    summed, mean = "all_reduce(op='sum')", "all_reduce(op='mean')"
    contribute(b, make, 1, 3, kind=summed, to=0)
    of_the_outcome = ReadContributions(worker(b, 1), 1, summed, ranks=(0,))
    waiting = read(b, of_the_outcome)
    assert not waiting.error
    assert waiting.sentence == "all_reduce waits for worker.0 on node-1 (placed)"
    actions = b.say(worker(b, 2), Contributed(worker(b, 2), 0, mean, make.value(2), 0))
    assert Woken(()) in actions, "who waits for the outcome has to hear of it, too"
    words = f"worker.1 called {summed} where worker.2 called {mean}: all instances of 'worker' must"
    for ask in (
        of_the_outcome,
        ReadContributions(worker(b, 2), 1, mean, ranks=(0,)),
    ):
        assert read(b, ask).error == "CollectiveError"
        assert read(b, ask).sentence.startswith(words)
    here = read(b, ReadContributions(worker(b, 0), 0, summed))
    assert here.sentence.startswith(f"worker.0 called {summed} where worker.2 called {mean}")
    assert not read(b, ReadContributions(worker(b, 0), 2, "barrier")).error, "it can go on"


def test_who_does_not_wait_in_a_call_is_told_in_the_next_that_others_made_another(bench, make):
    b = bench(make.task("worker"), nodes=3)
    contribute(b, make, 0, 1, kind="gather(root=2)", to=2)
    contribute(b, make, 2, kind="gather(root=1)", to=1)
    words = "worker.0 called gather(root=2) where worker.2 called gather(root=1)"
    for index in range(3):
        assert words in read(b, ReadContributions(worker(b, index), 1, "barrier")).sentence
    contribute(b, make, 0, 1, kind="all_gather", number=4)
    contribute(b, make, 2, kind="barrier", number=4)
    for index in range(3):
        assert read(b, ReadContributions(worker(b, index), 4, "barrier")).error
        assert not read(b, ReadContributions(worker(b, index), 5, "barrier")).error, "it was told"


def test_an_attempt_that_calls_something_else_than_the_one_before_is_told(bench, make):
    b = bench(make.task("worker", retries=1), nodes=1)
    contribute(b, make, 0, kind="all_gather")
    b.end(worker(b, 0), "FAILED", "no")
    found = read(b, ReadContributions(worker(b, 0), 0, "all_reduce(op='sum')"))
    assert "called all_reduce(op='sum') where worker.0 called all_gather" in found.sentence


def test_who_finishes_without_the_call_is_waited_for_in_vain(bench, make):
    b = bench(make.task("worker"), nodes=3)
    contribute(b, make, 0)
    b.end(worker(b, 2))
    never = read(b, ReadContributions(worker(b, 0), 0, "gather"))
    assert never.error == "PeerLost"
    assert "worker.2 on node-3 (it has finished without that call)" in never.sentence


def test_a_lost_node_is_named_or_left_out(bench, make):
    b = bench(make.task("worker", quorum=0.5), nodes=3)
    contribute(b, make, 0, 1)
    b.feed(NodeLost("id3", "its lease ended"))
    raising = read(b, ReadContributions(worker(b, 0), 0, "gather"))
    assert raising.error == "PeerLost"
    assert "node-3 was lost" in raising.sentence
    going_on = read(b, ReadContributions(worker(b, 0), 0, "gather", on_loss="continue"))
    assert going_on.ready
    assert going_on.missing == (2,)
    assert [entry.rank for entry in going_on.values] == [0, 1]


@pytest.mark.parametrize(
    ("kind", "lost", "ranks"),
    [
        ("scatter", 0, (0,)),
        ("all_reduce", 0, (0,)),
        ("reduce_scatter", 2, ()),
        ("all_gather", 2, ()),
        ("barrier", 2, ()),
    ],
)
@pytest.mark.parametrize("how", ["node", "process", "retried"])
def test_root_or_member_lost_before_its_part_is_named(bench, make, kind, lost, ranks, how):
    retries = 1 if how == "retried" else 0
    b = bench(make.task("worker", quorum=0.5, retries=retries), nodes=3)
    contribute(b, make, *({0, 1, 2} - {lost}), kind=kind)
    ask = ReadContributions(worker(b, 1), 0, kind, ranks=ranks)
    assert not read(b, ask).error
    if how == "node":
        b.feed(NodeLost(f"id{lost + 1}", "its lease ended"))
    else:
        b.end(worker(b, lost), "FAILED", "it was killed")
    found = read(b, ask)
    assert not found.ready
    if how == "retried":
        assert not found.error, "another attempt may still contribute"
        return
    assert found.error == "PeerLost"
    assert found.sentence.startswith(f"{kind} waits for worker.{lost} (")
    assert found.sentence.endswith(") in vain.")


def test_a_root_that_is_lost_after_its_part_is_not_missed(bench, make):
    b = bench(make.task("worker", quorum=0.5), nodes=3)
    contribute(b, make, 0, kind="scatter", to=1)
    b.feed(NodeLost("id1", "its lease ended"))
    ask = ReadContributions(worker(b, 1), 0, "scatter", ranks=(0,))
    assert given_values(b, ask) == ["0"]


def test_a_quorum_that_can_still_be_reached_is_waited_for(bench, make):
    b = bench(make.task("worker", quorum=0.25), nodes=4)
    contribute(b, make, 0)
    b.feed(NodeLost("id4", "its lease ended"))
    two = ReadContributions(worker(b, 0), 0, "gather", enough=2, on_loss="continue")
    waiting = read(b, two)
    assert not waiting.ready
    assert "worker.1 on node-2" in waiting.sentence
    b.feed(NodeLost("id3", "its lease ended"))
    b.feed(NodeLost("id2", "its lease ended"))
    found = read(b, two)
    assert found.ready, "nobody else can answer: the caller decides on what there is"
    assert (len(found.values), found.missing) == (1, (1, 2, 3))


def test_a_lock_whose_holder_is_lost_goes_to_the_next(bench, make):
    b = bench(make.task("worker", quorum=0.3), nodes=3)
    holder, second, third = (worker(b, index) for index in range(3))
    for one in (holder, second, third):
        b.say(one, LockWanted(one, "file"))
    b.feed(NodeLost("id1", "its lease ended"))
    assert read(b, ReadLock(second, "file")).ready
    b.feed(NodeLost("id2", "its lease ended"))
    assert read(b, ReadLock(third, "file")).ready


def test_enough_and_what_is_there(bench, make):
    b = bench(make.task("worker"), nodes=4)
    contribute(b, make, 0, 3)
    assert given_values(b, ReadContributions(worker(b, 0), 0, "gather", enough=2)) == ["0", "3"]
    assert not read(b, ReadContributions(worker(b, 0), 0, "gather", enough=3)).ready
    partial = ReadContributions(worker(b, 0), 0, "gather", enough=3, partial=True)
    assert given_values(b, partial) == ["0", "3"]


def test_much_comes_in_pages(bench, make):
    b = bench(make.task("worker"), nodes=40)
    for index in range(40):
        one = worker(b, index)
        b.say(one, Contributed(one, 0, "gather", make.value("x" * 60_000)))
    ask = ReadContributions(worker(b, 0), 0, "gather")
    got: list = []
    while True:
        page = read(b, ReadContributions(ask.instance, 0, "gather", after=len(got)))
        got += page.values
        if not page.more:
            break
        assert len(page.values) < 20
    assert [entry.rank for entry in got] == list(range(40))


def test_instances_that_run_one_by_one_cannot_meet(bench, make):
    entry = ScheduleEntry(("worker",), True)
    b = bench(make.task("worker"), schedule=((entry,),), nodes=2)
    never = read(b, ReadContributions(worker(b, 0), 0, "barrier"))
    assert never.error == "CollectiveError"
    assert "one after another" in never.sentence


# Locks, checkpoints, peers.


def test_a_lock_is_held_in_turn_and_given_back_by_the_end(bench, make):
    b = bench(make.task("worker"), nodes=3)
    instances = [worker(b, index) for index in (1, 0, 2)]
    for one in instances:
        b.say(one, LockWanted(one, "file"))
    first, second, third = instances
    assert read(b, ReadLock(first, "file")).ready
    waiting = read(b, ReadLock(second, "file"))
    assert not waiting.ready
    assert "held by worker.1 on node-2" in waiting.sentence
    b.say(first, LockReleased(first, "file"))
    assert read(b, ReadLock(second, "file")).ready
    b.end(second)
    assert read(b, ReadLock(third, "file")).ready


def test_a_later_attempt_restores_what_an_earlier_one_kept(bench, make):
    b = bench(make.task("worker", retries=1), nodes=2, max_iteration=2)
    one = worker(b, 0)
    assert read(b, ReadCheckpoint(one)).value is None
    b.say(one, Checkpointed(one, make.value(1)), Checkpointed(one, make.value(2)))
    b.end(one, "FAILED", "no")
    assert read(b, ReadCheckpoint(worker(b, 0))).value == make.value(2)
    assert read(b, ReadCheckpoint(worker(b, 1))).value is None
    b.finish("worker")
    assert read(b, ReadCheckpoint(worker(b, 0))).value is None, "another iteration"


def test_peers_and_their_shares_by_measured_speed(bench, make):
    b = bench(make.task("worker"), nodes=2, max_iteration=3)
    peers = read(b, ReadPeers(worker(b, 1))).peers
    assert [(p.rank, p.node_id, p.node_alias, p.share) for p in peers] == [
        (0, "id1", "node-1", 0.5),
        (1, "id2", "node-2", 0.5),
    ]
    for index, computing in ((0, 1.0), (1, 3.0)):
        one = worker(b, index)
        end = TaskEnded(one, "FINISHED", b.now, timings=Timings(computing=computing))
        b.say(one, TaskStarted(one, b.now), end)
    assert [p.share for p in read(b, ReadPeers(worker(b, 0))).peers] == [0.75, 0.25]
    assert b.replayed().data == b.machine.data


def test_an_instance_that_was_ended_waits_for_nothing(bench, make):
    b = bench(make.task("worker"), nodes=2)
    one = worker(b, 0)
    b.feed(Stopped())
    assert read(b, ReadBroadcast(one, "t")).error == "SwarmStopped"


@given(st.integers(1, 6), st.lists(st.none() | st.floats(0, 10), max_size=6))
def test_shares_add_up_to_one(size, took):
    found = shares(size, (1 / size,) * size, took)
    assert len(found) == size
    assert sum(found) == pytest.approx(1)
    assert all(share > 0 for share in found)


# What is kept, and for how long.


def test_blobs_are_released_with_their_iteration(bench, make):
    b = bench(make.task("worker"), nodes=2, max_iteration=2)
    one = worker(b, 0)
    blobs = [BlobRef(letter * 64, 1) for letter in "abcdef"]
    b.say(
        one,
        Broadcasted(one, "t", blobs[0]),
        Broadcasted(one, "t", blobs[1]),
        Contributed(one, 0, "gather", blobs[2]),
        Checkpointed(one, blobs[3]),
        Sent(one, "id2", "taken", blobs[4]),
        Sent(one, "id2", "left", blobs[5]),
    )
    other = worker(b, 1)
    b.say(other, Receiving(other, "id1", "taken"))
    b.actions.clear()
    b.finish("worker")
    (released,) = [action for action in b.actions if isinstance(action, Released)]
    assert released.blobs == tuple(blobs[:5])
    b.actions.clear()
    b.feed(Stopped())
    (released,) = [action for action in b.actions if isinstance(action, Released)]
    assert released.blobs == (blobs[5],)


def test_whoever_waits_is_woken(bench, make):
    b = bench(make.task("worker"), nodes=2)
    one = worker(b, 0)
    actions = b.say(one, Broadcasted(one, "t", make.value(1)))
    assert Woken(("broadcast", 0, "t")) in actions
    assert Woken() in b.end(one)


@pytest.mark.parametrize(
    ("entry", "request_"),
    [
        (lambda at, v: Broadcasted(at, "t", v), lambda at: ReadBroadcast(at, "t")),
        (lambda at, v: Sent(at, "id2", "t", v), lambda at: ReadMessage(at, "id1", "t", 0)),
        (lambda at, v: Receiving(at, "id2", "t"), lambda at: ReadRoom(at, "id1", 1)),
        (lambda at, v: Contributed(at, 3, "gather", v), lambda at: ReadContributions(at, 3, "x")),
        (lambda at, v: LockWanted(at, "l"), lambda at: ReadLock(at, "l")),
        (lambda at, v: LockReleased(at, "l"), lambda at: ReadLock(at, "l")),
    ],
)
def test_what_is_said_wakes_those_who_wait_for_it(bench, make, entry, request_):
    b = bench(make.task("worker"), nodes=2)
    one, other = worker(b, 0), worker(b, 1)
    assert Woken(topic_of(b.machine.data, request_(other))) in b.say(one, entry(one, make.value(1)))


def test_what_is_kept_for_the_iteration_is_bounded(bench, make, monkeypatch):
    monkeypatch.setattr(reads, "SAID", Room(5, 100))
    b = bench(make.task("worker"), nodes=2, max_iteration=2)
    one, blob = worker(b, 0), BlobRef("b" * 64, 1 << 40)
    for number in range(9):
        b.say(one, Broadcasted(one, "same", make.value("x" * number)), Checkpointed(one, blob))
    assert read(b, ReadRoom(one, "", 92)).ready
    assert read(b, ReadRoom(one, "", 93)).error == "ResourceExhaustionError"
    contribute(b, make, 0, 0, kind="gather")
    assert read(b, ReadRoom(one, "", 1)).letters
    contribute(b, make, 0, number=1)
    contribute(b, make, 0, number=2)
    never = read(b, ReadRoom(one, "", 0))
    assert never.error == "ResourceExhaustionError"
    assert never.sentence.startswith("5 broadcasts, contributions and checkpoints (0.0 MiB) are")
    assert b.replayed().data == b.machine.data
    b.finish("worker")
    assert read(b, ReadRoom(worker(b, 0), "", 0)).ready


def test_who_runs_ahead_of_the_others_in_collectives_waits_for_them(bench, make, monkeypatch):
    monkeypatch.setattr(reads, "AHEAD", 3)
    b = bench(make.task("worker"), nodes=3)
    for number in range(3):
        contribute(b, make, 0, number=number)
    ask = ReadRoom(worker(b, 0), "", 0)
    assert read(b, ask).ready
    contribute(b, make, 0, number=3)
    waiting = read(b, ask)
    assert not waiting.ready
    assert not waiting.error
    assert waiting.sentence == (
        "worker.0 is more than 3 collectives ahead of worker.1 on node-2, worker.2 on node-3"
    )
    b.end(worker(b, 2))
    one = worker(b, 1)
    actions = b.say(one, Contributed(one, 0, "gather", make.value(1)))
    assert Woken(topic_of(b.machine.data, ask)) in actions
    assert read(b, ask).ready
    assert read(b, ReadRoom(one, "", 0)).ready


class Talk:
    """Random talk between two instances that fail and are tried again."""

    def __init__(self, bench, make, steps):
        self.b = bench(make.task("worker", retries=1000), nodes=2)
        self.make = make
        self.done = [0, 0]
        for who, what in steps:
            one = worker(self.b, who)
            route = f"id{2 - who}"
            if what == "send":
                count = self.done[who]
                self.b.say(one, Sent(one, route, "t", make.value(f"{who}:{count}")))
                self.done[who] += 1
            elif what == "receive":
                self.b.say(one, Receiving(one, route, "t"))
            else:
                self.b.end(one, "FAILED", "no")
                self.done[who] = 0


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1]), st.sampled_from(["send", "receive", "fail"])),
        max_size=30,
    )
)
def test_however_often_attempts_fail_nothing_is_lost_or_comes_twice(bench, make, steps):
    talk = Talk(bench, make, steps)
    b = talk.b
    for who in (0, 1):
        one, other = worker(b, who), worker(b, 1 - who)
        b.end(one, "FAILED", "once more")
        b.end(other, "FAILED", "once more")
        one, other = worker(b, who), worker(b, 1 - who)
        sent = max(talk.done[who], 5)
        b.say(one, *(Sent(one, f"id{2 - who}", "t", make.value(f"{who}:{n}")) for n in range(sent)))
        b.say(other, *(Receiving(other, f"id{who + 1}", "t") for _ in range(40)))
        got: list[str] = []
        while (found := read(b, ReadMessage(other, f"id{who + 1}", "t", len(got)))).ready:
            got.append(found.values[0].value.data.decode())
        assert got[:sent] == [f"{who}:{n}" for n in range(sent)]
        assert len(got) == len(set(got))
    assert b.replayed().data == b.machine.data
