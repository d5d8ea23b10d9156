"""Calls, values and what should come of them, for tests of collectives."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

import pytest

from manta.transports.collectives import course, planner, table
from manta.transports.collectives.calls import Call, Entry, Kind, Placement
from manta.transports.collectives.plans import PARTIAL
from manta.transports.collectives.reducing import blocks_of, parts_of
from manta.transports.collectives.table import Algorithm
from tests.support.collectives import folded

INLINE = 64


@contextmanager
def small_sizes() -> Iterator[None]:
    """Sizes at which tests are quick, in the proportions of the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "INLINE", INLINE)
        patch.setattr(table, "EXCHANGED", 16 * INLINE)
        patch.setattr(table, "TOGETHER", 4 * INLINE)
        patch.setattr(table, "PIPELINE", 4 * INLINE)
        patch.setattr(course, "REDUCED", 2 * INLINE)
        is_small = [row.algorithm is Algorithm.EXCHANGE for row in table.REDUCING]
        rows = zip(table.REDUCING, is_small, strict=True)
        scaled = [row._replace(size=INLINE) if small else row for row, small in rows]
        patch.setattr(table, "REDUCING", tuple(scaled))
        yield


def placed(ranks_by_peer: list[int], seed: int = 0) -> Placement:
    nodes = [f"node-{peer}" for peer, count in enumerate(ranks_by_peer) for _ in range(count)]
    random.Random(seed).shuffle(nodes)
    return Placement.of("train", nodes)


def prepared(
    placement: Placement, call: Call, items: int, seed: int
) -> tuple[dict[int, Entry], dict[int, bytes]]:
    """Entries, and random values: of `items` where sizes must agree, else of up to so many."""
    generator = random.Random(seed)
    ranks = range(placement.size)
    one = tuple(generator.randint(0, items) * call.itemsize for _ in ranks)
    entries = {}
    for rank in ranks:
        sizes: tuple[int, ...] = (generator.randint(0, items) * call.itemsize,)
        if call.kind is Kind.ALL_REDUCE:
            sizes = (items * call.itemsize,)
        elif call.kind is Kind.REDUCE_SCATTER or (call.kind is Kind.SCATTER and rank == call.root):
            sizes = one
        elif call.kind in (Kind.BARRIER, Kind.SCATTER):
            sizes = ()
        entries[rank] = Entry(call, sizes)
    return entries, {rank: generator.randbytes(sum(entries[rank].sizes)) for rank in ranks}


def reduction(placement: Placement, call: Call, values: dict[int, bytes], lost=()) -> bytes:
    """In the promised order."""
    size = len(values[0])
    parts = []
    for buffer, _ in parts_of(call, placement, size, tuple(lost)):
        if buffer.role == PARTIAL:
            ranks = [rank for rank in placement.ranks[buffer.at] if rank not in lost]
            assert ranks == sorted(ranks)
            parts.append(folded(call.itemsize, [values[rank] for rank in ranks], final=False))
        else:
            parts.append(values[buffer.at])
    return folded(call.itemsize, parts, final=True)


def expected(
    placement: Placement,
    call: Call,
    entries: dict[int, Entry],
    values: dict[int, bytes],
    rank: int,
    total: bytes,
) -> list[bytes]:
    """What a rank gets; `total` is the reduction of all values."""
    if call.kind is Kind.ALL_REDUCE:
        return [total]
    sizes = entries[call.root].sizes
    ends = list(accumulate(sizes, initial=0))
    if call.kind is Kind.REDUCE_SCATTER:
        return [total[ends[rank] : ends[rank + 1]]]
    if call.kind is Kind.SCATTER:
        return [values[call.root][ends[rank] : ends[rank + 1]]]
    if call.kind is Kind.ALL_GATHER or (call.kind is Kind.GATHER and rank == call.root):
        return [values[other] for other in sorted(values)]
    return []


def reduced(
    placement: Placement, call: Call, entries: dict[int, Entry], values: dict[int, bytes]
) -> bytes:
    """In the order that was promised for these peers."""
    if not call.kind.reduces:
        return b""
    algorithm = planner.algorithm_of(call, placement, entries[0].sizes)
    if algorithm is Algorithm.RING:
        return around(placement, call, entries, values)
    return reduction(placement, call, values)


def around(
    placement: Placement, call: Call, entries: dict[int, Entry], values: dict[int, bytes]
) -> bytes:
    """In the order of a ring, block by block."""
    count = len(placement.ranks)
    parts = []
    for ranks in placement.ranks:
        some = [values[rank] for rank in ranks]
        parts.append(folded(call.itemsize, some, final=False) if len(some) > 1 else some[0])
    outcome = b""
    for block in blocks_of(call, placement, entries[0].sizes, ()):
        order = [(block.owner + 1 + at) % count for at in range(count)]
        total, *rest = [parts[peer][block.start : block.stop] for peer in order]
        for at, part in enumerate(rest):
            total = folded(call.itemsize, [total, part], final=at == len(rest) - 1)
        outcome += total
    return outcome


def brought(kind: Kind, rank: int, root: int, size: int, words: str, count: int) -> Entry:
    sizes: tuple[int, ...] = (size,)
    if kind is Kind.REDUCE_SCATTER or (kind is Kind.SCATTER and rank == root):
        sizes = (size,) * count
    elif kind in (Kind.BARRIER, Kind.SCATTER):
        sizes = ()
    return Entry(Call(kind, words, root), sizes)


GOES_ON = (Kind.ALL_REDUCE, Kind.ALL_GATHER, Kind.GATHER, Kind.BARRIER)
