"""Collectives on whole sets of peers: what members get, whoever is lost meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from manta.transports.collectives.calls import Call, Kind, OnLost
from manta.transports.collectives.collective import Collective
from tests.support.collective_calls import (
    GOES_ON,
    expected,
    placed,
    prepared,
    reduced,
    reduction,
    small_sizes,
)
from tests.support.collectives import Simulation
from tests.support.effort import tries


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with small_sizes():
        yield


@settings(max_examples=tries(60), deadline=None)
@given(
    kind=st.sampled_from(Kind),
    peers=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    items=st.sampled_from([0, 1, 2, 7, 30, 100, 400]),
    itemsize=st.integers(1, 16),
    chunk=st.sampled_from([1, 17, 200, 10_000]),
    local_first=st.booleans(),
    goes_on=st.booleans(),
    noted=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_all_get_what_was_promised(
    kind, peers, items, itemsize, chunk, local_first, goes_on, noted, seed
) -> None:
    placement = placed(peers, seed)
    root = seed % placement.size if kind.has_root else 0
    on_lost: OnLost = "continue" if goes_on and kind in GOES_ON else "raise"
    call = Call(kind, f"{kind.value}()", root, itemsize, on_lost, local_first, noted)
    entries, values = prepared(placement, call, items, seed)
    chunk = max(chunk, items * itemsize // 30)
    simulation = Simulation(placement, entries, values, seed, chunk).run()
    total = reduced(placement, call, entries, values)
    for rank in range(placement.size):
        outcome, found = simulation.outcome(rank)
        assert found == expected(placement, call, entries, values, rank, total)
        assert outcome.ranks == tuple(range(placement.size))
        assert outcome.lost == {}
        assert outcome.weight == 1
    assert all(peer.is_closed for peer in simulation.peers.values())


@settings(max_examples=tries(10), deadline=None)
@given(
    kind=st.sampled_from(Kind),
    peers=st.lists(st.integers(1, 3), min_size=9, max_size=33),
    items=st.sampled_from([0, 1, 8, 200, 500]),
    itemsize=st.sampled_from([1, 2, 3, 4, 8]),
    local_first=st.booleans(),
    goes_on=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_many_peers_do_too(kind, peers, items, itemsize, local_first, goes_on, seed) -> None:
    placement = placed(peers, seed)
    root = seed % placement.size if kind.has_root else 0
    on_lost: OnLost = "continue" if goes_on and kind in GOES_ON else "raise"
    call = Call(kind, f"{kind.value}()", root, itemsize, on_lost, local_first)
    entries, values = prepared(placement, call, items, seed)
    simulation = Simulation(placement, entries, values, seed, max(50, items * itemsize // 3)).run()
    total = reduced(placement, call, entries, values)
    for rank in range(placement.size):
        _, found = simulation.outcome(rank)
        assert found == expected(placement, call, entries, values, rank, total)
    assert all(peer.is_closed for peer in simulation.peers.values())


SOME_LOST = {
    "kind": st.sampled_from(GOES_ON),
    "peers": st.one_of(
        st.lists(st.integers(1, 3), min_size=2, max_size=6),
        st.lists(st.integers(1, 2), min_size=17, max_size=19),
    ),
    "items": st.sampled_from([0, 1, 30, 100, 400]),
    "itemsize": st.sampled_from([1, 3, 4]),
    "losses": st.lists(
        st.tuples(st.integers(0, 18), st.integers(0, 500), st.booleans()), min_size=1, max_size=3
    ),
    "local_first": st.booleans(),
    "noted": st.booleans(),
    "seed": st.integers(0, 100_000),
}


def lose(simulation: Simulation, losses: list[tuple[int, int, bool]]) -> set[int]:
    """Each of `losses` is a peer, after how many events it happens, and whether the peer dies, or
    just its last member never calls; the first peer stays. Returns the ranks that may be lost."""
    ranks: set[int] = set()
    for peer, steps, dies in losses:
        peer = peer % len(simulation.peers)
        simulation.run(steps)
        if not peer:
            continue
        there = simulation.placement.ranks[peer]
        ranks.update(there if dies else there[-1:])
        if not dies:
            simulation.miss(there[-1])
        elif peer not in simulation.dead:
            simulation.kill(peer)
    simulation.run()
    return ranks


def nothing_came_twice(simulation: Simulation) -> None:
    """But to those that were given what came of the call in place of what they had of it."""
    came: dict[tuple, list[tuple[int, int]]] = {}
    for span, _, to in simulation.carried:
        buffer = span.buffer._replace(start=0, stop=0)
        came.setdefault((buffer, to), []).append((span.start, span.stop))
    for (_, to), spans in came.items():
        machine = simulation.peers[to].machine
        took_over = not isinstance(machine, Collective) or machine._course.source is not None
        spans.sort()
        assert took_over or all(one[1] <= other[0] for one, other in pairwise(spans))


@settings(max_examples=tries(100), deadline=None)
@given(**SOME_LOST)
@example(  # the notes of a round that was given up came first
    kind=Kind.ALL_REDUCE,
    peers=[3, 1],
    items=100,
    itemsize=1,
    losses=[(15, 17, True), (7, 54, False), (6, 181, False), (6, 209, False)],
    local_first=True,
    noted=True,
    seed=737,
)
def test_those_that_are_left_go_on(
    kind, peers, items, itemsize, losses, local_first, noted, seed
) -> None:
    placement = placed(peers, seed)
    call = Call(kind, f"{kind.value}()", 0, itemsize, "continue", local_first, noted)
    entries, values = prepared(placement, call, items, seed)
    simulation = Simulation(placement, entries, values, seed, max(20, items * itemsize // 4))
    may_be_lost = lose(simulation, losses)
    agreed = set()
    for at, peer in simulation.peers.items():
        if at in simulation.dead:
            continue
        assert not peer.failed
        assert peer.is_closed or may_be_lost.issuperset(placement.ranks[at])
        for rank in placement.ranks[at]:
            if rank not in peer.delivered:
                assert rank in may_be_lost
                continue
            outcome, found = simulation.outcome(rank)
            if kind is Kind.GATHER and rank != call.root:
                continue
            agreed.add((outcome.ranks, tuple(outcome.lost)))
            assert set(outcome.ranks) | set(outcome.lost) == set(range(placement.size))
            assert set(outcome.lost) <= may_be_lost
            assert outcome.weight == len(outcome.ranks) / placement.size
            if kind is Kind.ALL_REDUCE:
                assert found == [reduction(placement, call, values, outcome.lost)]
                if noted and items:
                    assert covers(outcome.notes, items * itemsize)
            elif kind is not Kind.BARRIER:
                assert found == [values[one] for one in outcome.ranks]
    assert len(agreed) == 1
    nothing_came_twice(simulation)


@settings(max_examples=tries(80), deadline=None)
@given(
    peers=st.lists(st.integers(1, 3), min_size=1, max_size=6),
    items=st.sampled_from([0, 1, 100, 400]),
    enough=st.tuples(st.integers(1, 18), st.integers(0, 18)),
    steps=st.integers(0, 100),
    missing=st.sets(st.integers(0, 17), max_size=4),
    loss=st.integers(0, 5),
    seed=st.integers(0, 10_000),
)
@example(  # of three members of one peer, one does not call
    peers=[1, 3], items=0, enough=(3, 0), steps=0, missing={0}, loss=2, seed=1
)
def test_a_gather_takes_what_is_enough(peers, items, enough, steps, missing, loss, seed) -> None:
    placement = placed(peers, seed)
    count = placement.size
    call = Call(Kind.GATHER, "gather()", seed % count)
    entries, values = prepared(placement, call, items, seed)
    simulation = Simulation(placement, entries, values, seed, max(20, items // 4))
    root = placement.peer_of[call.root]
    machine = simulation.peers[root].machine
    silent = {rank % count for rank in missing} - {call.root}
    simulation.called |= silent
    quorum, later = min(enough[0], count), min(enough[1], count)
    simulation.perform(root, machine.suffice(quorum))
    simulation.run(steps)
    if loss < len(peers) and loss != root:
        simulation.kill(loss)
    simulation.run()
    if call.root not in simulation.peers[root].delivered and not machine.has_failed:
        assert count - len(silent) < quorum or loss < len(peers)
        simulation.perform(root, machine.suffice(later))
        simulation.run()
    if call.root in simulation.peers[root].delivered:
        outcome, found = simulation.outcome(call.root)
        assert found == [values[rank] for rank in outcome.ranks]
        assert len(outcome.ranks) >= min(quorum, later)
        assert set(outcome.lost.values()) <= {"it was late", "its node was lost"}
        simulation.called -= silent
        for rank in silent:
            simulation.call(rank)
        simulation.run()
        for at, peer in simulation.peers.items():
            if at not in simulation.dead:
                assert peer.is_closed
                assert peer.delivered.keys() == set(placement.ranks[at])
    elif machine.has_failed:
        assert simulation.dead


def covers(notes: tuple[bytes, ...], size: int) -> bool:
    """Do notes of all parts of an outcome come along, each once?"""
    spans = sorted(tuple(map(int, note.decode().split("-"))) for note in notes)
    return spans[0][0] == 0 and [one[1] for one in spans] == [*[two[0] for two in spans[1:]], size]


@settings(max_examples=tries(50), deadline=None)
@given(
    kind=st.sampled_from([Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.BARRIER]),
    peers=st.one_of(
        st.lists(st.integers(1, 3), min_size=2, max_size=6),
        st.lists(st.integers(1, 2), min_size=17, max_size=19),
    ),
    items=st.sampled_from([0, 1, 30, 400]),
    have=st.sets(st.integers(0, 18), min_size=1, max_size=18),
    goes_on=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_who_begins_a_call_anew_gets_what_came_of_it_before(
    kind, peers, items, have, goes_on, seed
) -> None:
    """Some peers have that, and all others know nothing and give something else."""
    placement = placed(peers, seed)
    call = Call(kind, f"{kind.value}()", 0, 4, "continue" if goes_on else "raise")
    entries, values = prepared(placement, call, items, seed)
    before = Simulation(placement, entries, values, seed, max(20, items)).run()
    again = Simulation(placement, *prepared(placement, call, items, seed + 1), seed, 1 + items)
    for at, peer in again.peers.items():
        peer.machine = Collective(placement, at, directly=True)
    holders = {at % len(peers) for at in have}
    for at in holders:
        holder = before.peers[at].machine.holder(placement, at)
        assert holder is not None
        again.peers[at].machine = holder
        again.peers[at].memory = before.peers[at].memory
        again.called.update(placement.ranks[at])
    again.run()
    for rank in range(placement.size):
        if placement.peer_of[rank] not in holders:
            assert again.outcome(rank) == before.outcome(rank)
    assert all(peer.machine.is_closed for peer in again.peers.values())


@settings(max_examples=tries(100), deadline=None)
@given(**SOME_LOST, anything=st.sampled_from(Kind), root=st.integers(0, 20))
@example(  # a peer of the ring that has its part already passes others on
    kind=Kind.ALL_REDUCE,
    peers=[1] * 8 + [2] * 6 + [1] * 4,
    items=1,
    itemsize=4,
    losses=[(10, 137, True)],
    local_first=True,
    noted=False,
    seed=0,
    anything=Kind.REDUCE_SCATTER,
    root=0,
)
@example(  # who has all gives it to those that have some of it
    kind=Kind.ALL_REDUCE,
    peers=[1] * 5,
    items=100,
    itemsize=3,
    losses=[(1, 85, True)],
    local_first=False,
    noted=False,
    seed=1,
    anything=Kind.ALL_GATHER,
    root=0,
)
@example(  # the peer of the lost member passes the value on
    kind=Kind.BARRIER,
    peers=[1, 2, 1],
    items=400,
    itemsize=3,
    losses=[(1, 0, False)],
    local_first=False,
    noted=False,
    seed=0,
    anything=Kind.ALL_GATHER,
    root=2,
)
def test_a_loss_is_told_to_all_that_wait_in_vain(
    kind, peers, items, itemsize, losses, local_first, noted, seed, anything, root
) -> None:
    placement = placed(peers, seed)
    kind = anything
    root = root % placement.size if kind.has_root else 0
    call = Call(kind, f"{kind.value}()", root, itemsize, "raise", local_first, noted)
    entries, values = prepared(placement, call, items, seed)
    simulation = Simulation(placement, entries, values, seed, max(20, items * itemsize // 4))
    may_be_lost = lose(simulation, losses)
    total = reduced(placement, call, entries, values)
    names = [placement.named([rank]) for rank in may_be_lost]
    for at, peer in simulation.peers.items():
        if at in simulation.dead:
            continue
        for rank in placement.ranks[at]:
            if rank in peer.failed:
                error, sentence = peer.failed[rank]
                assert error == "PeerLost"
                assert sentence.startswith(f"{kind.value} waits for")
                assert sentence.endswith("in vain.")
                assert any(name in sentence for name in names)
            elif rank in peer.delivered:
                _, found = simulation.outcome(rank)
                assert found == expected(placement, call, entries, values, rank, total)
            else:
                assert rank in may_be_lost
    nothing_came_twice(simulation)
