"""Which members and peers one peer waits for in a collective, and which are lost to it, or done."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from manta.transports.collectives.actions import Action, Outcome, Tell
from manta.transports.collectives.calls import Call, Kind, Placement
from manta.transports.collectives.course import Course
from manta.transports.collectives.messages import Finished
from manta.transports.collectives.planner import algorithm_of
from manta.transports.collectives.plans import VALUE, Buffer, Transfer
from manta.transports.collectives.reducing import alive_peers
from manta.transports.collectives.roll import Roll
from manta.transports.collectives.table import Algorithm


class Others:
    """As peer `me` knows it."""

    def __init__(self, placement: Placement, me: int, roll: Roll, course: Course) -> None:
        self._placement = placement
        self._me = me
        self._roll = roll
        self._course = course
        self.away: dict[int, str] = {}
        """By rank that is lost: why."""
        self.ended: set[int] = set()
        """Of those: who has finished, and so had what came of the call, if it made that."""
        self.finished: set[int] = set()
        """Peers that have said so."""
        self._told: set[int] = set()
        """Peers that were told so."""

    def lose(self, ranks: Iterable[int], why: str) -> None:
        for rank in ranks:
            self.away.setdefault(rank, why)
        alive = alive_peers(self._placement, [*self.away])
        self._course.peers = [peer for peer in alive if peer != self._me]

    @property
    def left(self) -> set[int]:
        """The members of this peer that are not lost."""
        return {rank for rank in self._placement.ranks[self._me] if rank not in self.away}

    def awaited(self, call: Call) -> list[int]:
        """Whose call, or else what of whom, is to come."""
        ranks: Iterable[int] = range(self._placement.size)
        if call.kind.has_root and self._placement.peer_of[call.root] != self._me:
            ranks = [call.root]
        missing = [rank for rank in self._roll.missing(ranks) if rank not in self.away]
        if missing:
            return missing
        sources = {one.transfer.peer for one in self._course.flow.receives.values()}
        return [rank for peer in sources for rank in self._placement.ranks[peer]]

    def are_enough(self, call: Call, absent: list[int], enough: int) -> bool:
        """Need a gather, for which so many are enough, wait for none of the absent any more?"""
        if self._placement.size - len(absent) >= enough:
            return True
        return call.on_lost == "continue" and all(rank in self.away for rank in absent)

    def has_value(self, rank: int) -> bool:
        """Of a gather, at its root: is this member's value there?"""
        entry = self._roll.entries.get(rank)
        return entry is not None and self._course.flow.is_whole(Buffer(VALUE, rank, entry.sizes[0]))

    def needed(
        self, call: Call, enough: int, delivered: Collection[int], is_done: bool
    ) -> list[int]:
        """The lost members of whom anything is to come, which then can't. `enough` are so many
        values of a gather, `delivered` the members here that have got theirs."""
        if call.kind is Kind.GATHER:
            if call.root not in self._roll.own or call.root in delivered:
                return []
            out = [one for one in self.away if not self.has_value(one)]
            too_few = self._placement.size - len(out) < enough
            return out if call.on_lost == "raise" and too_few else []
        return [rank for rank in self.away if self._needs(call, rank, is_done)]

    def _needs(self, call: Call, rank: int, is_done: bool) -> bool:
        """Of a call that is no gather."""
        peer, is_there = self._placement.peer_of[rank], rank in self._roll.entries
        flow, peers = self._course.flow, self._course.peers
        if call.kind.has_root:
            return flow.awaits(peer) or (rank == call.root and not is_there)
        if is_done:  # what others are to have may go by way of this peer
            return peer not in peers and flow.awaits(peer)
        if not is_there:  # else all is here, too, that was to come by way of its peer
            return True
        if peer in peers:
            return False
        if call.kind.reduces and self._course.planned is None:
            return algorithm_of(call, self._placement, self._course.size) is not Algorithm.EXCHANGE
        return flow.awaits(peer) or peer in self._course.unnoted(call)

    def made(self, needed: Collection[int]) -> bool:
        """Are there such members, and have they made the call, or may have before they finished?"""
        return bool(needed) and self.ended.union(self._roll.entries).issuperset(needed)

    def may_hold(self, call: Call) -> bool:
        """May another peer have the outcome, as it has not said that it lacks it?"""
        if call.kind.has_root or call.kind is Kind.REDUCE_SCATTER:
            return False
        return not self._roll.lack.issuperset(self._course.peers)

    def outcome(
        self, buffers: Iterable[Buffer], lost: Iterable[int], why: str, *notes: bytes
    ) -> Outcome:
        """`why`, unless more is known."""
        reasons = {rank: self.away.get(rank, why) for rank in lost}
        ranks = (rank for rank in range(self._placement.size) if rank not in reasons)
        return Outcome(tuple(buffers), tuple(ranks), reasons, notes)

    # Who is done.

    def tell(self, peers: Iterable[int]) -> list[Action]:
        """Tells them, once, that the members here have what they want."""
        new = sorted(set(peers) - self._told)
        self._told.update(new)
        return [Tell(peer, Finished()) for peer in new]

    def tell_root(self, call: Call) -> list[Action]:
        """The same, of a call with a root, to those that are to know when it is over."""
        root = self._placement.peer_of[call.root]
        if call.kind is Kind.GATHER:
            return self.tell(self._course.peers if root == self._me else ())
        return self.tell([root] if root in self._course.peers else ())

    def need_not(self, transfer: Transfer) -> bool:
        """Is it to go to a peer that has what it wants?"""
        return transfer.key in self._course.flow.sends and transfer.peer in self.finished

    def are_done(self, call: Call) -> bool:
        """Does no other peer need anything from here, or is to catch up?"""
        flow, peers = self._course.flow, self._course.peers
        moves = bool(flow.sends or flow.receives)
        if call.on_lost == "continue" and not call.kind.has_root:
            return self.finished.issuperset(peers)
        if not call.kind.has_root:
            return not moves
        root = self._placement.peer_of[call.root]
        if call.kind is Kind.GATHER and root == self._me:
            here = self._roll.entries.keys() | self.away.keys()
            return not moves and len(here) == self._placement.size
        if call.kind is Kind.GATHER:  # what is on its way yet, its root goes without
            return root in self.finished or root not in peers
        if root == self._me:
            return not moves and self.finished.issuperset(peers)
        return not moves
