"""What waits come to, by a roster alone: as a node tells its tasks that has nobody to ask."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.spec import NetworkSpec
from manta.roster import networks, waits


def one(rank: int, node: int, state: str = "RUNNING", **more) -> RosterInstance:
    return RosterInstance(rank, f"n{node}", f"node-{node}", 0, state, **more)


def roster(*tasks: RosterTask, **more: NetworkSpec) -> Roster:
    return Roster("", 2, {task.alias: task for task in tasks}, more)


def task(alias: str, *instances: RosterInstance, phase: str = "RUNNING", **more) -> RosterTask:
    more.setdefault("size", len(instances))
    return RosterTask(alias, phase, instances=instances, **more)


READER = Instance("s", "reader", 0, 2, 0)


def test_who_may_still_send_is_named() -> None:
    seen = roster(
        task("reader", one(0, 1), followed_by=("after",)),
        task("worker", one(0, 2), one(1, 3, "FINISHED"), one(2, 3, given_up="it was lost")),
        task("after", phase="WAITING", size=0, followed_by=("later",)),
        task("later", phase="WAITING", size=0),
        task("beside", phase="WAITING", size=0),
        task("turns", one(0, 2, "FINISHED"), size=3, has_queued=True),
    )
    assert waits.broadcast(seen, READER, "x") == (
        "",
        "nobody has broadcast 'x' yet; worker.0 on node-2, beside (not placed yet), turns (whose "
        "turn has not come) still may",
    )
    assert waits.letter(seen, READER, "n2", "x").sentence.startswith(
        "no message 'x' has come from node-2: worker.0 on node-2, beside"
    )


PHASES = ("WAITING", "PLACING", "RUNNING", "DONE")
STATES = ("PLACED", "RUNNING", "FINISHED", "FAILED")
tasks = st.tuples(
    st.sampled_from(PHASES),
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(STATES), st.sampled_from(["", "lost"]))),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(tasks, min_size=1, max_size=3), st.integers(1, 2), st.sampled_from([None, "n2"]))
def test_whether_anybody_may_still_send_is_what_the_sentence_says(
    drawn: list[tuple[Any, ...]], iteration: int, source: str | None
) -> None:
    aliases = ["reader", "b", "c"][: len(drawn)]
    made = [
        task(
            alias,
            *(one(rank, *what[:2], given_up=what[2]) for rank, what in enumerate(placed)),
            phase=phase,
            has_queued=queued,
            sequential=sequential,
            followed_by=("c",) if follows and "c" in aliases and alias != "c" else (),
        )
        for alias, (phase, placed, queued, sequential, follows) in zip(aliases, drawn, strict=True)
    ]
    seen, at = roster(*made), replace(READER, iteration=iteration)
    there = [(task_, one) for task_ in made for one in task_.instances]
    if source is None:
        outlook = waits.broadcast(seen, at, "x")
    else:
        outlook = waits.letter(seen, at, source, "x")
        there = [placed for placed in there if placed[1].node_id == source]
    assert waits.may_still_send(seen, at, there) is (outlook.error == "")


def test_when_nobody_is_left_a_wait_is_in_vain() -> None:
    seen = roster(task("reader", one(0, 1)), task("worker", one(0, 2, "FINISHED")))
    assert waits.broadcast(seen, READER, "x").error == "NothingSent"
    lost = waits.letter(seen, READER, "n2", "x")
    assert lost.error == "PeerLost"
    assert lost.sentence.startswith("No message 'x' has come from node-2, and nothing is left")
    assert " from n9, " in waits.letter(seen, READER, "n9", "x").sentence
    # Another attempt of the reader's own instance may; the reader of an iteration that is over
    # waits for nobody.
    again = roster(task("reader", replace(one(0, 1), attempt=1)))
    assert not waits.broadcast(again, READER, "x").error
    assert waits.broadcast(again, replace(READER, iteration=1), "x").error == "NothingSent"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"sequential": True}, "run one after another"),
        ({"windowed": True, "size": 9}, "The 9 instances of 'worker' are more than run"),
        ({"network": "edges"}, "The edges of the network 'edges' do not join all instances"),
        ({"network": "ring"}, ""),
    ],
)
def test_what_cannot_meet_is_said(changed: dict, said: str) -> None:
    both = task("worker", one(0, 1), one(1, 2))
    seen = roster(
        replace(both, **changed),
        edges=NetworkSpec("edges", "edges", (("node-1", "node-3"),)),
        ring=NetworkSpec("ring", "ring"),
    )
    found = waits.cannot_meet(seen, "worker")
    assert found.count(said) == 1 if said else found == ""


def test_members_are_told_by_their_standing() -> None:
    seen = task("worker", one(0, 1), one(1, 2, "FINISHED"), one(2, 3, given_up="node-3 was lost"))
    seen = replace(seen, size=4)
    assert waits.lost(seen, range(4)) == [1, 2]
    assert waits.in_vain(seen, "barrier()", [1, 2]) == (
        "PeerLost",
        "barrier waits for worker.1 on node-2 (it has finished without that call), worker.2 "
        "(node-3 was lost) in vain.",
    )
    assert waits.missing(seen, "all_reduce(op='sum')", [0, 3]) == (
        "",
        "all_reduce waits for worker.0 on node-1 (running), worker.3 (not placed yet)",
    )


def test_those_queued_behind_others_that_wait_for_them_are_named() -> None:
    seen = task("worker", *(one(rank, 1, "PLACED" if rank > 1 else "RUNNING") for rank in range(4)))
    assert "worker.2, worker.3 are queued on node-1 behind worker.0, worker.1" in waits.deadlock(
        seen, "barrier()", {0, 1}, lambda _: 2
    )
    for come, kind, places in (
        ({0}, "barrier()", 2),  # one has still to come, and may end
        ({0, 1}, "gather(root=0)", 2),
        ({0, 1}, "barrier()", 3),
        ({0, 1}, "barrier()", None),
        ({0, 1, 2, 3}, "barrier()", 2),
    ):
        found = waits.deadlock(seen, kind, come, dict.fromkeys(seen.instances, places).get)
        assert found == ""


def test_neighbors_are_those_of_the_network() -> None:
    workers = task("worker", *(one(rank, rank) for rank in range(4)), network="ring")
    seen = roster(workers, task("free", one(0, 9)), ring=NetworkSpec("ring", "ring"))
    spec, all_ = seen.networks["ring"], networks.members(seen, "ring")
    assert networks.neighbors(spec, workers.instances[0], all_) == {"n3", "n0", "n1"}
    assert networks.members(seen, None) == [one(0, 9)]
