"""Plans for `all_reduce` and `reduce_scatter`.

The order of a reduction is that of the ranks. Where the ranks of a peer are reduced first
(`Call.local_first`), it is theirs, and then that of the peers by their lowest rank. Only RING has
an order of its own: block b begins at peer b + 1 and goes round up to peer b. In each case it
depends on the placement alone, and each byte is reduced at one peer, or alike at all: all members
get the same bits, in each run.

With p peers, a value of m bytes and k parts at each peer (1 if its ranks are reduced first, or if
it has one; else a part for each rank), a peer sends:

| algorithm | bytes | messages one after the other | source |
|---|---|---|---|
| EXCHANGE | k(p-1)m | 1 | all-gather, then each reduces all |
| DIRECT | (k+1)m(p-1)/p; reduce_scatter km(p-1)/p | 2; 1 | Rabenseifner's two halves |
| RING | 2m(p-1)/p | 2(p-1) | Patarasuk and Yuan |

A ring does half of that for reduce_scatter. With k = 1 the latter two send the least bytes that
an all-reduce can: 2m(p-1)/p (R. Thakur, R. Rabenseifner, W. Gropp, Optimization of Collective
Communication Operations in MPICH, 2005; P. Patarasuk, X. Yuan, Bandwidth Optimal All-reduce
Algorithms for Clusters of Workstations, 2009). Rabenseifner's halves are done directly and not by
halving and doubling: each peer sends each other one its part of that one's block, and that one
reduces the parts in the promised order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from manta.transports.collectives.calls import Call, Kind, Placement
from manta.transports.collectives.plans import (
    OUTCOME,
    PARTIAL,
    RING,
    VALUE,
    Buffer,
    Plan,
    Reduction,
    Span,
    Transfer,
    transfer_key,
    whole,
)
from manta.transports.collectives.table import Algorithm

_LINE = 64  # bytes of a line of the cache, within which no block should end


class Block(NamedTuple):
    """A range of the value, which its owner, a peer, reduces."""

    start: int
    stop: int
    owner: int


def alive_peers(placement: Placement, lost: Sequence[int]) -> list[int]:
    """Those that have members left."""
    return [at for at, ranks in enumerate(placement.ranks) if not set(ranks) <= set(lost)]


def blocks_of(
    call: Call, placement: Placement, sizes: Sequence[int], lost: Sequence[int]
) -> list[Block]:
    """Who reduces what of a value, `sizes` being those of an entry.

    Each peer has an even block. That of a lost peer is cut into a cell for each peer, and a cell
    of a lost peer goes to the next one: so those that are left keep what they had.
    """
    if call.kind is Kind.REDUCE_SCATTER:
        ends = pairwise(accumulate(sizes, initial=0))
        each = [Block(start, stop, placement.peer_of[at]) for at, (start, stop) in enumerate(ends)]
        return [block for block in each if block.start < block.stop]
    count, alive = len(placement.ranks), set(alive_peers(placement, lost))
    found = []
    for at, (start, stop) in enumerate(_even(0, sizes[0], count, call.itemsize)):
        if at in alive:
            found.append(Block(start, stop, at))
            continue
        for cell, (low, high) in enumerate(_even(start, stop, count, call.itemsize)):
            owner = next(peer % count for peer in range(cell, 2 * count) if peer % count in alive)
            found.append(Block(low, high, owner))
    return [block for block in found if block.start < block.stop]


def _even(start: int, stop: int, count: int, itemsize: int) -> Iterator[tuple[int, int]]:
    grain = itemsize if _LINE % itemsize else _LINE
    if stop - start < count * grain:
        grain = itemsize
    items = (stop - start) // grain
    cuts = [start + items * at // count * grain for at in range(count)]
    return pairwise([*cuts, stop])


def outcome_of(size: int, lost: tuple[int, ...]) -> Buffer:
    return Buffer(OUTCOME, 0, size, lost=lost)


def parts_of(
    call: Call, placement: Placement, size: int, lost: tuple[int, ...]
) -> list[tuple[Buffer, int]]:
    """What is reduced, in this order, each with the peer that has it."""
    peers = alive_peers(placement, lost)
    if not call.local_first or len(peers) == 1:
        ranks = [rank for rank in range(placement.size) if rank not in lost]
        return [(Buffer(VALUE, rank, size), placement.peer_of[rank]) for rank in ranks]
    found = []
    for peer in peers:
        ranks = [rank for rank in placement.ranks[peer] if rank not in lost]
        away = tuple(rank for rank in placement.ranks[peer] if rank in lost)
        if len(ranks) == 1:
            found.append((Buffer(VALUE, ranks[0], size), peer))
        else:
            found.append((Buffer(PARTIAL, peer, size, lost=away), peer))
    return found


def _partial(placement: Placement, buffer: Buffer) -> Reduction:
    ranks = [rank for rank in placement.ranks[buffer.at] if rank not in buffer.lost]
    values = [whole(Buffer(VALUE, rank, buffer.stop)) for rank in ranks]
    return Reduction(whole(buffer), tuple(values))


def plan_reduction(
    algorithm: Algorithm,
    call: Call,
    placement: Placement,
    me: int,
    sizes: Sequence[int],
    lost: tuple[int, ...] = (),
) -> Plan:
    """What peer `me` does. `sizes` are those of an entry, which are the same for all."""
    size = sum(sizes)
    if not size:
        return Plan()
    blocks = blocks_of(call, placement, sizes, lost)
    parts = parts_of(call, placement, size, lost)
    if algorithm is Algorithm.EXCHANGE:
        return _exchange(call, placement, me, blocks, parts, lost)
    if algorithm is Algorithm.RING:
        return _ring(call, placement, me, blocks, parts)
    return _direct(call, placement, me, blocks, parts, lost)


def wanted_outcomes(
    call: Call, placement: Placement, me: int, sizes: Sequence[int], lost: tuple[int, ...] = ()
) -> list[Buffer]:
    """The buffers that hold what the members on this peer get."""
    outcome = outcome_of(sum(sizes), lost)
    if call.kind is Kind.ALL_REDUCE:
        return [outcome]
    ends = list(accumulate(sizes, initial=0))
    return [outcome.part(ends[rank], ends[rank + 1]) for rank in placement.ranks[me]]


def _outcome_span(call: Call, block: Block, size: int, lost: tuple[int, ...]) -> Span:
    outcome = outcome_of(size, lost)
    if call.kind is Kind.REDUCE_SCATTER:
        outcome = outcome.part(block.start, block.stop)
    return Span(outcome, block.start, block.stop)


def _exchange(
    call: Call,
    placement: Placement,
    me: int,
    blocks: list[Block],
    parts: list[tuple[Buffer, int]],
    lost: tuple[int, ...],
) -> Plan:
    """The values rode with the announcements."""
    size = parts[0][0].stop
    reductions = [_partial(placement, part) for part, _ in parts if part.role == PARTIAL]
    if call.kind is Kind.ALL_REDUCE:
        wanted = [Block(0, size, me)]
    else:
        wanted = [block for block in blocks if block.owner == me]
    for block in wanted:
        sources = tuple(Span(part, block.start, block.stop) for part, _ in parts)
        reductions.append(Reduction(_outcome_span(call, block, size, lost), sources))
    return Plan(reductions=tuple(reductions))


def _direct(
    call: Call,
    placement: Placement,
    me: int,
    blocks: list[Block],
    parts: list[tuple[Buffer, int]],
    lost: tuple[int, ...],
) -> Plan:
    sends, receives, reductions = [], [], []
    size = parts[0][0].stop
    for part, peer in parts:
        if peer == me and part.role == PARTIAL:
            reductions.append(_partial(placement, part))
    count = len(placement.ranks)
    # To the next peer first, so that not all begin with the same one.
    for block in sorted(blocks, key=lambda block: ((block.owner - me - 1) % count, block.start)):
        sources = []
        for part, peer in parts:
            span = Span(part, block.start, block.stop)
            if block.owner == me != peer:
                span = span._replace(buffer=part.part(block.start, block.stop))
                receives.append(Transfer(transfer_key(span, peer, me), peer, span))
            elif peer == me != block.owner:
                key = transfer_key(span, me, block.owner)
                sends.append(Transfer(key, block.owner, span))
            sources.append(span)
        target = _outcome_span(call, block, size, lost)
        if block.owner == me:
            reductions.append(Reduction(target, tuple(sources)))
        if call.kind is Kind.ALL_REDUCE:
            if block.owner == me:
                others = [peer for peer in alive_peers(placement, lost) if peer != me]
                others.sort(key=lambda peer: (peer - me) % count)
                sends += [Transfer(transfer_key(target, me, to), to, target) for to in others]
            else:
                key = transfer_key(target, block.owner, me)
                receives.append(Transfer(key, block.owner, target))
    return Plan(tuple(sends), tuple(receives), tuple(reductions))


def _ring(
    call: Call, placement: Placement, me: int, blocks: list[Block], parts: list[tuple[Buffer, int]]
) -> Plan:
    """`call.local_first` gives one part for each peer."""
    sends, receives, reductions = [], [], []
    count, size = len(placement.ranks), parts[0][0].stop
    before, after = (me - 1) % count, (me + 1) % count
    own = parts[me][0]
    if own.role == PARTIAL:
        reductions.append(_partial(placement, own))
    for block in blocks:
        mine = Span(own, block.start, block.stop)
        first = (block.owner + 1) % count
        done = _outcome_span(call, block, size, ())
        if me == first:
            result = mine
        else:
            arrives = parts[before][0].part(block.start, block.stop)
            if before != first:
                arrives = Buffer(RING, block.owner, block.stop, block.start, before)
            sent = whole(arrives)
            receives.append(Transfer(transfer_key(sent, before, me), before, sent))
            result = whole(Buffer(RING, block.owner, block.stop, block.start, me))
            if me == block.owner:
                result = done
            reductions.append(Reduction(result, (sent, mine)))
        if me != block.owner:
            sends.append(Transfer(transfer_key(result, me, after), after, result))
        if call.kind is Kind.ALL_REDUCE:
            if me != block.owner:
                receives.append(Transfer(transfer_key(done, before, me), before, done))
            if after != block.owner:
                sends.append(Transfer(transfer_key(done, me, after), after, done))
    return Plan(tuple(sends), tuple(receives), tuple(reductions))
