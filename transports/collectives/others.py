"""Which members and peers one peer waits for in a collective, and which are lost to it, or done."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from manta.transports.collectives.actions import Action, Outcome, Tell
from manta.transports.collectives.calls import Call, Kind, Placement
from manta.transports.collectives.course import Course
from manta.transports.collectives.messages import Finished
from manta.transports.collectives.plans import Buffer, Transfer
from manta.transports.collectives.reducing import alive_peers
from manta.transports.collectives.roll import Roll


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

    def may_hold(self, call: Call, needed: Collection[int]) -> bool:
        """May others that have not made the call have its outcome from before it was begun anew, so
        that these lost members are not needed?"""
        if not needed or not self.ended.issuperset(needed):
            return False
        if call.kind.has_root or call.kind is Kind.REDUCE_SCATTER:
            return False
        unheard = [peer for peer in self._course.peers if peer not in self._roll.rounds]
        return any(self._roll.missing(self._placement.ranks[peer]) for peer in unheard)

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
