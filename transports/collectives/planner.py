"""The plan of one peer for one collective: a table chooses the algorithm, which draws the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from manta.transports.collectives.calls import Call, Entry, Kind, Placement
from manta.transports.collectives.plans import SHARE, VALUE, Buffer, Plan
from manta.transports.collectives.reducing import plan_reduction, wanted_outcomes
from manta.transports.collectives.spreading import does_ride, plan_spreading, share_of, values_for
from manta.transports.collectives.table import Algorithm, for_reduction


def algorithm_of(call: Call, placement: Placement, sizes: Sequence[int]) -> Algorithm:
    """Of a call that reduces."""
    ring = call.local_first and call.on_lost == "raise"
    peers = len(placement.ranks)
    exchange = call.reproducible
    return for_reduction(sum(sizes), peers, placement.size, exchange=exchange, ring=ring)


def plan(call: Call, placement: Placement, me: int, entries: Mapping[int, Sequence[int]]) -> Plan:
    """What peer `me` does, given `Entry.sizes` by rank as far as they are known.

    A call that reduces needs one of them, as they are all alike; of the others each further one
    only adds to the plan.
    """
    if call.kind is Kind.BARRIER or not entries:
        return Plan()
    if call.kind.reduces:
        return _plan_reduction(call, placement, me, tuple(next(iter(entries.values()))))
    return plan_spreading(call, placement, me, entries)


@lru_cache(maxsize=8)
def _plan_reduction(call: Call, placement: Placement, me: int, sizes: tuple[int, ...]) -> Plan:
    """Who calls in a loop needs it drawn once: it follows from these alone."""
    return plan_reduction(algorithm_of(call, placement, sizes), call, placement, me, sizes)


def wanted(
    call: Call, placement: Placement, me: int, entries: Mapping[int, Sequence[int]]
) -> list[Buffer]:
    """What has to be whole on peer `me` before its members get what they called for."""
    if call.kind is Kind.BARRIER or not entries:
        return []
    if call.kind.reduces:
        return wanted_outcomes(call, placement, me, next(iter(entries.values())))
    ranks = placement.ranks[me]
    found = (values_for(call, placement, rank, entries) for rank in ranks)
    return list(dict.fromkeys(buffer for buffers in found for buffer in buffers))


def made(call: Call, placement: Placement, me: int, sizes: Sequence[int]) -> list[Buffer]:
    """The buffers that peer `me` fills in a call that reduces, beside what its members bring, once
    all have come; none of another call, as what others bring is not known."""
    if not call.kind.reduces:
        return []
    drawn = plan(call, placement, me, {placement.ranks[me][0]: sizes})
    spans = [one.span for one in drawn.receives] + [one.target for one in drawn.reductions]
    return list(dict.fromkeys(span.buffer for span in spans))


def given(rank: int, entry: Entry) -> list[Buffer]:
    """The buffers that a member's call comes with."""
    if entry.call.kind is Kind.SCATTER:
        return [share_of(rank, to, size) for to, size in enumerate(entry.sizes)]
    return [Buffer(VALUE, rank, sum(entry.sizes))] if entry.sizes else []


def ridden(entry: Entry, rank: int, placement: Placement) -> dict[int, Buffer]:
    """The buffers whose bytes ride with a member's announcement.

    By the rank that is to have them; -1 stands for all.
    """
    call, sizes = entry.call, entry.sizes
    if call.kind is Kind.SCATTER:
        return {
            to: Buffer(SHARE, rank, size, to=to)
            for to, size in enumerate(sizes)
            if placement.peer_of[to] != placement.peer_of[rank]
            and does_ride(call, placement, rank, size, to)
        }
    if not sizes:
        return {}
    size = sum(sizes)
    if call.kind.reduces:
        rides = algorithm_of(call, placement, sizes) is Algorithm.EXCHANGE
    else:
        rides = does_ride(call, placement, rank, size)
    return {-1: Buffer(VALUE, rank, size)} if rides else {}
