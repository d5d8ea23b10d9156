"""Which members and peers one peer waits for in a collective, and which are lost to it, or done."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from manta.transports.collectives.actions import Action, Outcome, Tell
from manta.transports.collectives.calls import Call, Kind, Placement
from manta.transports.collectives.course import Course
from manta.transports.collectives.messages import Done, Finished
from manta.transports.collectives.planner import algorithm_of
from manta.transports.collectives.plans import Buffer
from manta.transports.collectives.roll import Roll
from manta.transports.collectives.table import Algorithm

LOST = "its node was lost"
"""Why a member is lost, if nothing else is said."""


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
        self._departed: dict[int, str] = {}
        """Peers that have left, and why nothing more comes of them."""

    def lose(self, ranks: Iterable[int], why: str) -> None:
        new = [rank for rank in ranks if rank not in self.away]
        for rank in new:
            self._lose(rank, why)
        for peer in self._departed if new else ():  # what goes on without the lost may need them
            for rank in self._placement.ranks[peer]:
                if rank not in self.away:
                    self._lose(rank, self._departed[peer])

    def leave(self, peer: int, why: str) -> None:
        """It has the outcome, and has said all that is needed of it while nobody is lost."""
        self._departed[peer] = why
        self.finish(peer)
        if self.away:
            self.lose(self._placement.ranks[peer], why)

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

    def waits_for(self, call: Call) -> str:
        """Whose call, or else what of whom, is to come, in words; empty if nothing is."""
        awaited = self._awaited(call)
        return f"{call.operation} waits for {self._placement.named(awaited)}" if awaited else ""

    def _awaited(self, call: Call) -> list[int]:
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

    def needed(self, call: Call, *, is_done: bool) -> list[int]:
        """The lost members of whom anything is to come, which then can't; of a call that is no
        gather."""
        return [rank for rank in self.away if self._needs(call, rank, is_done=is_done)]

    def _needs(self, call: Call, rank: int, *, is_done: bool) -> bool:
        peer, is_there = self._placement.peer_of[rank], rank in self._roll.entries
        flow, peers = self._course.flow, self._course.peers
        if call.kind.has_root:
            return flow.awaits(peer) or (rank == call.root and not is_there)
        if is_done:  # what others are to have may go by way of this peer
            return peer not in peers and flow.awaits(peer)
        if self._roll.is_known and rank in self._course.settled:
            return False  # what came of it before is without it
        if not is_there:  # else all is here, too, that was to come by way of its peer
            return True
        if peer in peers:
            return False
        if call.kind.reduces and self._course.planned is None:
            return algorithm_of(call, self._placement, self._course.size) is not Algorithm.EXCHANGE
        return flow.awaits(peer) or peer in self._course.unnoted(call)

    def made(self, needed: Collection[int]) -> bool:
        """Are there such members, and have they made the call, or may have before they finished?"""
        entries = self._roll.entries
        return bool(needed) and all(rank in entries or rank in self.ended for rank in needed)

    def may_hold(self, call: Call) -> bool:
        """May another peer have the outcome, as it has not said that it lacks it?"""
        if call.kind.has_root or call.kind is Kind.REDUCE_SCATTER:
            return False
        return not self._roll.lack.issuperset(self._course.peers)

    def lost_holders(self, call: Call) -> str:
        """Whom of lost peers a call waits for in vain, in words: those that have finished, as what
        their peers have of it is what all others get, should they be back. Empty if nobody."""
        if call.kind.has_root or call.kind is Kind.REDUCE_SCATTER or call.on_lost == "continue":
            return ""
        peer_of = self._placement.peer_of
        lost = [rank for rank in self.away if rank in self.ended and peer_of[rank] != self._me]
        named = self._placement.named(lost, self.away)
        return f"{call.operation} waits for {named} in vain." if lost else ""

    def outcome(
        self, buffers: Iterable[Buffer], lost: Iterable[int], why: str, *notes: bytes
    ) -> Outcome:
        """`why`, unless more is known."""
        reasons = {rank: self.away.get(rank, why) for rank in lost}
        ranks = self._everybody
        if reasons:
            ranks = tuple(rank for rank in ranks if rank not in reasons)
        return Outcome(tuple(buffers), ranks, reasons, notes)

    def outcome_for(self, call: Call, done: Done, rank: int | None = None) -> Outcome:
        """What a member here gets, or any of them."""
        rank = self._placement.ranks[self._me][0] if rank is None else rank
        buffers = self._course.outcome_of(call, rank, done.lost)
        return self.outcome(buffers, done.lost, LOST, *done.notes)

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
