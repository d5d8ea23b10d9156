"""What a message of a collective costs does not grow with how many take part.

Steps of the interpreter are counted, not time: those of one peer, over a whole collective.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import pytest

from manta.transports.collectives.actions import Action, Deliver, Expect, Reduce
from manta.transports.collectives.calls import Call, Entry, Kind, OnLost, Placement
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.messages import Announcement, Finished, Fits, Member, Message
from manta.transports.collectives.planner import ridden
from manta.transports.collectives.table import INLINE

FEW, MANY = 50, 400


def steps(work: Callable[[], object]) -> int:
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def spread(count: int) -> Placement:
    """One member on each peer."""
    return Placement.of("w", [f"n{rank}" for rank in range(count)])


def here(count: int) -> Placement:
    """All but one on peer 0."""
    return Placement.of("w", ["n0"] * (count - 1) + ["n1"])


def announced(placement: Placement, rank: int, entry: Entry, data: bytes | None) -> Message:
    carried = () if data is None else ((-1, data),)
    return Announcement(placement.peer_of[rank], (Member(rank, entry, carried),))


class Peer:
    """Peer 0, which is told by others, whose transfers come and whose reductions are done."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.machine = Collective(placement, 0, directly=True)
        self.delivered: list[int] = []

    def do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Deliver):
                self.delivered.append(action.rank)
            elif isinstance(action, Expect):
                span = action.transfer.span
                self.do(self.machine.received(action.transfer.key, span.stop - span.start))
            elif isinstance(action, Reduce):
                self.do(self.machine.reduced(action.number))

    def call(self, rank: int, entry: Entry, value: bytes = b"") -> None:
        data = {to: value[: one.size] for to, one in ridden(entry, rank, self.placement).items()}
        self.do(self.machine.contributed(rank, entry, data))

    def hear(self, rank: int, message: Message) -> None:
        self.do(self.machine.heard(self.placement.peer_of[rank], message))


def among_peers(kind: Kind, size: int, on_lost: OnLost = "raise") -> Callable[[int], None]:
    """Peer 0 is told by so many others; the root is there."""

    def work(count: int) -> None:
        placement = spread(count)
        sizes = () if kind is Kind.BARRIER else (size,)
        entry = Entry(Call(kind, f"{kind.value}()", on_lost=on_lost), sizes)
        value = b"x" * size
        peer = Peer(placement)
        peer.call(0, entry, value)
        for rank in range(1, count):
            rides = bool(ridden(entry, rank, placement))
            peer.hear(rank, announced(placement, rank, entry, value if rides else None))
        for rank in range(1, count) if kind is Kind.ALL_GATHER and size > INLINE else ():
            peer.hear(rank, Fits())
        for rank in range(1, count) if on_lost == "continue" else ():
            peer.hear(rank, Finished())
        assert peer.delivered == [0]

    return work


def gather_of_large_values(count: int) -> None:
    among_peers(Kind.GATHER, INLINE + 1)(count)


def gather_without_one(count: int) -> None:
    """A member is lost, and the others are gathered all the same."""
    placement = spread(count)
    entry = Entry(Call(Kind.GATHER, "gather()", on_lost="continue"), (1,))
    peer = Peer(placement)
    peer.call(0, entry, b"x")
    peer.do(peer.machine.peer_lost(count - 1))
    for rank in range(1, count - 1):
        peer.hear(rank, announced(placement, rank, entry, b"x"))
    assert peer.delivered == [0]


def gather_of_who_is_here(count: int) -> None:
    """All but the root are on one peer, and each is told of by itself."""
    placement = here(count)
    entry = Entry(Call(Kind.GATHER, "gather()", count - 1, on_lost="continue"), (1,))
    peer = Peer(placement)
    for rank in range(count - 1):
        peer.call(rank, entry, b"x")
    assert peer.delivered == list(range(count - 1))


def scatter_to_who_is_here(count: int) -> None:
    placement = here(count)
    call = Call(Kind.SCATTER, "scatter()", count - 1)
    peer = Peer(placement)
    for rank in range(count - 1):
        peer.call(rank, Entry(call))
    root = Entry(call, (INLINE + 1,) * (count - 1) + (1,))
    peer.do(peer.machine.heard(1, Announcement(1, (Member(count - 1, root),))))
    assert sorted(peer.delivered) == list(range(count - 1))


def reduction_of_who_is_here(count: int) -> None:
    placement = here(count)
    entry = Entry(Call(Kind.ALL_REDUCE, "all_reduce()", local_first=True), (8,))
    peer = Peer(placement)
    for rank in range(count - 1):
        peer.call(rank, entry, b"x" * 8)
    peer.do(peer.machine.heard(1, announced(placement, count - 1, entry, b"x" * 8)))
    assert sorted(peer.delivered) == list(range(count - 1))


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(among_peers(Kind.BARRIER, 0), id="barrier"),
        pytest.param(among_peers(Kind.BARRIER, 0, "continue"), id="barrier that goes on"),
        pytest.param(among_peers(Kind.ALL_GATHER, 8), id="all_gather"),
        pytest.param(among_peers(Kind.ALL_GATHER, INLINE + 1), id="all_gather of large values"),
        pytest.param(among_peers(Kind.GATHER, 8), id="gather"),
        pytest.param(among_peers(Kind.ALL_REDUCE, 8), id="all_reduce"),
        gather_of_large_values,
        gather_without_one,
        gather_of_who_is_here,
        scatter_to_who_is_here,
        reduction_of_who_is_here,
    ],
)
def test_what_a_message_costs_does_not_grow_with_how_many_take_part(
    work: Callable[[int], None],
) -> None:
    few, many = (steps(lambda count=count: work(count)) / count for count in (FEW, MANY))  # type: ignore[misc]
    assert many < 1.5 * few, f"{few:.0f} steps for each of {FEW}, {many:.0f} for each of {MANY}"
