"""Plans for values that nobody reduces: each goes from its peer to those that are to have it.

Each byte crosses as few links as can be: one to each peer that wants it. What a peer sends of a
value of m bytes, with p peers:

| algorithm | bytes | messages one after the other |
|---|---|---|
| STAR | (p-1)m at its centre, which sends to all | 1 |
| BINOMIAL | up to m log2(p), most at the root | log2(p) |
| CHAIN | m | p-1, of chunks: it is pipelined |

BINOMIAL is the tree of R. Thakur, R. Rabenseifner and W. Gropp (Optimization of Collective
Communication Operations in MPICH, 2005), where each parent also passes on what it has before it
has all. CHAIN is the linear pipeline, whose time approaches that of m bytes on one link, the
optimum, as chunks get small beside m/p (J. L. Träff, A. Ripke, Optimal Broadcast for Fully
Connected Processor-Node Networks, 2008). `all_gather` spreads every value, so that with chains it
is the ring of Thakur et al.

`gather` and `scatter` send each value directly. A binomial tree would spare the root messages at
the cost of bytes, as values pass through others; but small values ride with announcements anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from manta.transports.collectives.calls import Call, Kind, Placement
from manta.transports.collectives.plans import (
    SHARE,
    VALUE,
    Buffer,
    Plan,
    Transfer,
    transfer_key,
    whole,
)
from manta.transports.collectives.table import DIRECT_PEERS, Algorithm, for_spreading, rides


def parent_of(algorithm: Algorithm, peer: int, source: int, count: int) -> int:
    """From whom a peer gets what `source` has; itself for the source."""
    relative = (peer - source) % count
    if relative == 0:
        return peer
    if algorithm is Algorithm.STAR:
        return source
    if algorithm is Algorithm.CHAIN:
        return (peer - 1) % count
    return (source + (relative & (relative - 1))) % count


def children_of(algorithm: Algorithm, peer: int, source: int, count: int) -> list[int]:
    """To whom it passes it on; first to those with most peers behind them."""
    relative = (peer - source) % count
    found: Iterable[int] = ()
    if algorithm is Algorithm.STAR:
        found = range(1, count) if not relative else ()
    elif algorithm is Algorithm.CHAIN:
        found = [relative + 1]
    else:  # those that are named by one bit more, below the lowest that is set
        bits = (1 << at for at in range((count - 1).bit_length()))
        found = (relative | bit for bit in bits if not relative & (2 * bit - 1))
    return [(source + other) % count for other in sorted(found, reverse=True) if other < count]


def does_ride(call: Call, placement: Placement, rank: int, size: int, to: int = -1) -> bool:
    """Whether a value of a member, or what of it is for another one, rides with the announcement.

    Those that ride are as small as needed for all that are announced at once.
    """
    if call.kind is Kind.SCATTER:
        together = len(placement.ranks[placement.peer_of[to]])
    elif call.kind is Kind.GATHER or len(placement.ranks) <= DIRECT_PEERS:
        together = len(placement.ranks[placement.peer_of[rank]])
    else:
        together = placement.size  # announcements of many peers go together
    return rides(size, together)


def values_for(
    call: Call, placement: Placement, rank: int, entries: Mapping[int, Sequence[int]]
) -> list[Buffer]:
    """What a member gets of the values that are known; `entries` are sizes by rank."""
    if call.kind is Kind.SCATTER:
        sizes = entries.get(call.root)
        return [] if sizes is None else [share_of(call.root, rank, sizes[rank])]
    if call.kind is Kind.ALL_GATHER or (call.kind is Kind.GATHER and rank == call.root):
        return [Buffer(VALUE, other, entries[other][0]) for other in sorted(entries)]
    return []


def share_of(root: int, rank: int, size: int) -> Buffer:
    return Buffer(SHARE, root, size, to=rank)


def plan_spreading(
    call: Call, placement: Placement, me: int, entries: Mapping[int, Sequence[int]]
) -> Plan:
    """What peer `me` does about the values that are known, `entries` being sizes by rank.

    Of more entries comes a plan with all that was in the one of fewer. What is small enough
    (`does_ride`) rode with the announcements and is not in it.
    """
    sends: list[Transfer] = []
    receives: list[Transfer] = []
    count = len(placement.ranks)

    def move(buffer: Buffer, source: int, to: int) -> None:
        span = whole(buffer)
        key = transfer_key(span, source, to)
        if me == source:
            sends.append(Transfer(key, to, span))
        elif me == to:
            receives.append(Transfer(key, source, span))

    for rank, sizes in sorted(entries.items()):
        source = placement.peer_of[rank]
        if call.kind is Kind.SCATTER:
            for other, size in enumerate(sizes):
                to = placement.peer_of[other]
                if to != source and not does_ride(call, placement, rank, size, other):
                    move(share_of(rank, other, size), source, to)
        elif not sizes or does_ride(call, placement, rank, sizes[0]):
            continue
        elif call.kind is Kind.GATHER:
            to = placement.peer_of[call.root]
            if to != source:
                move(Buffer(VALUE, rank, sizes[0]), source, to)
        else:
            value = Buffer(VALUE, rank, sizes[0])
            algorithm = for_spreading(sizes[0], count)
            if me != source:
                move(value, parent_of(algorithm, me, source, count), me)
            for to in children_of(algorithm, me, source, count):
                move(value, me, to)
    return Plan(tuple(sends), tuple(receives))
