"""What the members of one peer get in a call with a root: each its own, when it is there.

Members that only give (in a gather all but its root, in a scatter the root) get their outcome at
once. Their peer closes when those that they give to have what they want, which is told
(`Finished`), and that of a gather's root when all have come, or are lost: so whoever counts the
calls that are not closed knows how far others are behind.

What happens says whose turn it may be, so that no message costs a look at all members.
"""

from __future__ import annotations

from collections.abc import Callable

from manta.transports.collectives.actions import Action, Outcome
from manta.transports.collectives.calls import Call, Entry, Kind, Placement
from manta.transports.collectives.course import Course
from manta.transports.collectives.others import Others
from manta.transports.collectives.plans import SHARE, VALUE, Buffer
from manta.transports.collectives.roll import Roll
from manta.transports.collectives.spreading import values_for

LATE = "it was late"


class Rooted:
    """`deliver` gives a member its outcome."""

    def __init__(
        self,
        placement: Placement,
        roll: Roll,
        course: Course,
        others: Others,
        deliver: Callable[[int, Outcome], Action],
    ) -> None:
        self._placement = placement
        self._roll = roll
        self._course = course
        self._others = others
        self._deliver = deliver
        self.there: set[int] = set()
        """Of whom the value is here, of a gather at its root."""
        self.enough = placement.size
        """How many of these are."""
        self._is_served = False
        """Has the root of a gather its outcome?"""
        self._ready: set[int] = set()
        """Members that may get theirs."""
        self._finished: set[int] = set()
        """Peers that have said that they have what they want, since that was looked at."""
        self._planned = 0
        """How much was planned then."""

    def called(self, rank: int, entry: Entry) -> None:
        """A member, on whichever peer, is found to have made the call."""
        if self._roll.has_own(rank):
            self._ready.add(rank)
        if entry.call.kind is Kind.SCATTER and rank == entry.call.root:
            self._ready.update(self._roll.own)

    def completed(self, buffer: Buffer) -> None:
        """It is whole here."""
        if buffer.role == VALUE:
            self.there.add(buffer.at)
        elif buffer.role == SHARE:
            self._ready.add(buffer.to)

    def finish(self, peer: int) -> None:
        """It has what it wants."""
        self._others.finish(peer)
        self._finished.add(peer)

    def lacking(self, call: Call) -> list[int]:
        """The lost members without which the root of a gather, if it is here, waits in vain."""
        if self._is_served or call.on_lost == "continue" or not self._roll.has_own(call.root):
            return []
        out = [one for one in self._others.away if one not in self.there]
        return out if self._placement.size - len(out) < self.enough else []

    def give(self, call: Call) -> list[Action]:
        """What members may be given."""
        actions: list[Action] = []
        ready, self._ready = self._ready, set()
        for rank in sorted(rank for rank in ready if self._roll.has_own(rank)):
            if rank not in self._others.unserved:
                continue
            if call.kind is Kind.SCATTER:
                actions += self._give_share(call, rank)
            elif rank != call.root:  # it gets nothing
                actions.append(self._deliver(rank, self._others.outcome((), (), LATE)))
        if call.kind is Kind.GATHER and self._roll.has_own(call.root) and not self._is_served:
            actions += self._give_all(call)
        return actions

    def _give_share(self, call: Call, rank: int) -> list[Action]:
        entry = self._roll.entries.get(call.root)
        if entry is None:
            return []
        buffers = values_for(call, self._placement, rank, {call.root: entry.sizes})
        if not all(map(self._course.flow.is_whole, buffers)):
            return []
        return [self._deliver(rank, self._others.outcome(buffers, (), LATE))]

    def _give_all(self, call: Call) -> list[Action]:
        """To the root of a gather, once it is enough."""
        there = self.there
        if not self._others.are_enough(call, there, self.enough):
            return []
        self._is_served = True
        absent = [rank for rank in range(self._placement.size) if rank not in there]
        actions = [*self._course.leave_out(absent), *self._others.tell(self._course.peers)]
        sizes = {rank: self._roll.entries[rank].sizes for rank in sorted(there)}
        buffers = values_for(call, self._placement, call.root, sizes)
        outcome = self._others.outcome(buffers, absent, LATE)
        return [*actions, self._deliver(call.root, outcome)]

    def drop_unneeded(self) -> list[Action]:
        """What would go to peers that have what they want, as the members here have, too."""
        flow, peers = self._course.flow, self._finished
        if flow.planned != self._planned:
            self._planned, peers = flow.planned, self._others.finished
        actions = [one for peer in sorted(peers) for one in flow.drop_to(peer)]
        self._finished = set()
        return actions
