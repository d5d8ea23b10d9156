"""Which members and peers one peer waits for in a collective, and which are lost to it, or done."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from manta.transports.collectives.actions import Action, Outcome, Tell
from manta.transports.collectives.calls import Call, Kind, Placement
from manta.transports.collectives.course import Course
from manta.transports.collectives.messages import Finished
from manta.transports.collectives.plans import Buffer
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
        self._unfinished = set(course.peers)
        """Those that have not, and have members left."""
        self.unserved = set(placement.ranks[me])
        """The members of this peer that are left and have no outcome."""
        self.lost_here: list[int] = []
        """The members of this peer that are lost."""
        self._left = [len(ranks) for ranks in placement.ranks]
        """By peer: how many of its members are not lost."""
        self._away_alone = 0
        """How many that are lost have not made the call."""
        self._uncalled_here = set(placement.ranks[me])
        """The members of this peer that are left and have not made the call."""
        self._everybody = tuple(range(placement.size))
        self._told: set[int] = set()
        """Peers that were told so."""

    def lose(self, ranks: Iterable[int], why: str) -> None:
        for rank in ranks:
            if rank not in self.away:
                self._lose(rank, why)

    def _lose(self, rank: int, why: str) -> None:
        self.away[rank] = why
        self._away_alone += rank not in self._roll.entries
        peer = self._placement.peer_of[rank]
        if peer == self._me:
            self.lost_here.append(rank)
            self.unserved.discard(rank)
            self._uncalled_here.discard(rank)
        self._left[peer] -= 1
        if not self._left[peer]:
            self._course.peers.pop(peer, None)
            self._unfinished.discard(peer)

    def called(self, rank: int) -> None:
        """The member has made the call."""
        self._away_alone -= rank in self.away
        self._uncalled_here.discard(rank)

    def finish(self, peer: int) -> None:
        """It has said that its members have the outcome."""
        self.finished.add(peer)
        self._unfinished.discard(peer)

    @property
    def waits_here(self) -> bool:
        """May members of this peer still make the call?"""
        return bool(self._uncalled_here)

    @property
    def are_accounted(self) -> bool:
        """Has everybody made the call, or is lost?"""
        return len(self._roll.entries) + self._away_alone == self._placement.size

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

    def are_enough(self, call: Call, there: Collection[int], enough: int) -> bool:
        """Need a gather, for which so many are enough, wait for none but these any more?"""
        if len(there) >= enough:
            return True
        if call.on_lost != "continue" or len(there) + len(self.away) < self._placement.size:
            return False
        gone = sum(rank not in there for rank in self.away)
        return len(there) + gone == self._placement.size

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
        ranks = self._everybody
        if reasons:
            ranks = tuple(rank for rank in ranks if rank not in reasons)
        return Outcome(tuple(buffers), ranks, reasons, notes)

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

    def are_done(self, call: Call) -> bool:
        """Does no other peer need anything from here, or is to catch up?"""
        flow, peers = self._course.flow, self._course.peers
        moves = bool(flow.sends or flow.receives)
        if call.on_lost == "continue" and not call.kind.has_root:
            return not self._unfinished
        if not call.kind.has_root:
            return not moves
        root = self._placement.peer_of[call.root]
        if call.kind is Kind.GATHER and root == self._me:
            return not moves and self.are_accounted
        if call.kind is Kind.GATHER:  # what is on its way yet, its root goes without
            return root in self.finished or root not in peers
        if root == self._me:
            return not moves and not self._unfinished
        return not moves
