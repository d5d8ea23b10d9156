"""Plans of collectives: what is sent is awaited, once, and for no more bytes than it must be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports.collectives import planner
from manta.transports.collectives.calls import Call, Entry, Kind
from manta.transports.collectives.coverage import Coverage
from manta.transports.collectives.plans import Buffer
from manta.transports.collectives.reducing import blocks_of
from tests.support.collective_calls import (
    INLINE,
    brought,
    placed,
    prepared,
    small_sizes,
)
from tests.support.collectives import Simulation


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with small_sizes():
        yield


# Bytes.


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 16, 17, 33])
@pytest.mark.parametrize("kind", [Kind.ALL_REDUCE, Kind.REDUCE_SCATTER])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_large_reduction_costs_the_least_bytes(kind: Kind, count: int, ranks: int) -> None:
    """Those of Thakur, Rabenseifner and Gropp (2005), up to the rounding of blocks."""
    placement = placed([ranks] * count)
    call = Call(kind, "reduce", itemsize=4, local_first=True)
    size = 4 * 64 * count * ranks
    cuts = (size,) if kind is Kind.ALL_REDUCE else (size // count // ranks,) * count * ranks
    entries = {rank: Entry(call, cuts) for rank in range(count * ranks)}
    simulation = Simulation(placement, entries, {rank: bytes(size) for rank in entries}).run()
    halves = 2 if kind is Kind.ALL_REDUCE else 1
    for peer in range(count):
        assert simulation.sent_by(peer) == halves * size * (count - 1) // count


@pytest.mark.parametrize("count", [2, 3, 5, 16, 17, 33])
def test_small_values_cost_few_messages(count: int) -> None:
    placement = placed([1] * count)
    call = Call(Kind.ALL_REDUCE, "reduce")
    size = INLINE if count <= 16 else 16
    entries = {rank: Entry(call, (size,)) for rank in range(count)}
    simulation = Simulation(placement, entries, {rank: bytes(size) for rank in entries}).run()
    rounds = (count - 1).bit_length()
    for peer in range(count):
        assert simulation.sent_by(peer) == (count - 1) * size
        assert simulation.told[peer] == (count - 1 if count <= 16 else rounds + (peer > 0))


def test_what_machines_reduce_differently_one_reduces_for_all() -> None:
    placement = placed([1] * 4)
    call = Call(Kind.ALL_REDUCE, "reduce", reproducible=False)
    entries = {rank: Entry(call, (40,)) for rank in range(4)}
    values = {rank: bytes([rank]) * 40 for rank in entries}
    simulation = Simulation(placement, entries, values).run()
    plans = [planner.plan(call, placement, me, {0: (40,)}) for me in range(4)]
    targets = [one.target for drawn in plans for one in drawn.reductions]
    assert len({(span.start, span.stop) for span in targets}) == len(targets) > 0
    assert len({simulation.outcome(rank)[1][0] for rank in entries}) == 1


@pytest.mark.parametrize("count", [2, 3, 4, 7, 16, 33])
@pytest.mark.parametrize("size", [INLINE, 5 * INLINE, 100 * INLINE])
@pytest.mark.parametrize("kind", [Kind.ALL_GATHER, Kind.GATHER, Kind.SCATTER])
def test_a_value_crosses_no_link_more_than_it_must(kind: Kind, size: int, count: int) -> None:
    placement = placed([1] * count)
    call = Call(kind, "move", root=count // 2)
    entries = {
        rank: brought(kind, rank, call.root, size, "move", count)._replace(call=call)
        for rank in range(count)
    }
    values = {rank: bytes(sum(entry.sizes)) for rank, entry in entries.items()}
    simulation = Simulation(placement, entries, values, chunk=100 * INLINE).run()
    total = count * (count - 1) if kind is Kind.ALL_GATHER else count - 1
    assert sum(simulation.moved.values()) == total * size
    most = max(map(simulation.sent_by, range(count)))
    if kind is Kind.ALL_GATHER:
        assert most <= (count - 1) * size


# Plans.


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(Kind),
    peers=st.lists(st.integers(1, 5), min_size=1, max_size=33),
    items=st.sampled_from([0, 1, 5, 100, 3000]),
    itemsize=st.integers(1, 16),
    local_first=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_nobody_waits_for_what_nobody_sends(
    kind, peers, items, itemsize, local_first, seed
) -> None:
    placement = placed(peers, seed)
    root = seed % placement.size if kind.has_root else 0
    call = Call(kind, "call", root, itemsize, local_first=local_first)
    entries, _ = prepared(placement, call, items, seed)
    sizes = {rank: entry.sizes for rank, entry in entries.items()}
    plans = [planner.plan(call, placement, me, sizes) for me in range(len(peers))]
    sent = {one.key: (me, one.peer) for me, plan in enumerate(plans) for one in plan.sends}
    awaited = {one.key: (one.peer, me) for me, plan in enumerate(plans) for one in plan.receives}
    assert sent == awaited
    for plan in plans:
        written = [one.span for one in plan.receives]
        written += [one.target for one in plan.reductions]
        by_buffer: dict[Buffer, list[tuple[int, int]]] = {}
        for span in written:
            by_buffer.setdefault(span.buffer, []).append((span.start, span.stop))
        for spans in by_buffer.values():
            spans.sort()
            assert all(one[1] <= two[0] for one, two in pairwise(spans))
        if kind.reduces:
            assert all(one.span.start % itemsize == 0 for one in plan.sends)


@given(
    peers=st.integers(1, 33),
    size=st.integers(0, 5000),
    itemsize=st.integers(1, 16),
    lost=st.sets(st.integers(0, 32)),
)
def test_blocks_are_even_and_those_that_are_left_keep_theirs(peers, size, itemsize, lost) -> None:
    placement = placed([1] * peers)
    call = Call(Kind.ALL_REDUCE, "reduce", itemsize=itemsize)
    size -= size % itemsize
    lost = tuple(sorted(rank for rank in lost if rank < peers))
    if len(lost) == peers:
        return
    first = blocks_of(call, placement, (size,), ())
    blocks = blocks_of(call, placement, (size,), lost)
    for some in (first, blocks):
        assert [block.start for block in some] == [0, *[block.stop for block in some[:-1]]][
            : len(some)
        ]
        assert sum(block.stop - block.start for block in some) == size
        assert all(block.start % itemsize == 0 for block in some)
    assert {block for block in first if block.owner not in lost} <= set(blocks)
    assert not {block.owner for block in blocks} & set(lost)
    lengths = [block.stop - block.start for block in first]
    if len(first) == peers:
        assert max(lengths) - min(lengths) <= 2 * max(64, itemsize)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))), st.integers(0, 60))
def test_coverage_is_a_set_of_bytes(ranges, start) -> None:
    coverage, there = Coverage(), set()
    for low, high in ranges:
        coverage.add(low, high)
        there |= set(range(low, high))
    reach = start
    while reach in there:
        reach += 1
    assert coverage.reach(start) == reach
    missing = coverage.missing(start, 60)
    assert {at for low, high in missing for at in range(low, high)} == set(range(start, 60)) - there
    assert all(one[1] < two[0] for one, two in pairwise(missing))
