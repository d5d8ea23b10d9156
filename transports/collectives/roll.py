"""The roll call of a collective: who has made the call, with what, and who is told of it.

The members of a peer are announced when the first has made the call, and when all have (for a
gather, each by itself); small values ride along. Calls with a root are announced to the root's
peer, which announces its own to all. Of others, each peer tells all others, or with more than
`DIRECT_PEERS` the announcements are disseminated: in step k a peer that knows those of the 2^k
peers up to itself tells them to the peer 2^k after it (J. Bruck et al., Efficient Algorithms for
All-to-All Communications in Multiport Message-Passing Systems, 1997). All have all after log2(p)
steps, with p-1 values received and sent by each, which is the least.

Who does not tell all others tells at least peer 0, at once, what its first member called: there
calls are compared that would meet nowhere else, or late.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable

from manta.transports.collectives.actions import Action, Store, Tell
from manta.transports.collectives.calls import (
    Call,
    Entry,
    Kind,
    Placement,
    checked,
    difference,
)
from manta.transports.collectives.messages import (
    Announcement,
    Done,
    Member,
    Probe,
    Relayed,
    weight_of,
)
from manta.transports.collectives.planner import ridden
from manta.transports.collectives.plans import Buffer
from manta.transports.collectives.table import DIRECT_PEERS
from manta.transports.errors import RemoteProtocolError


class Roll:
    """As peer `me` knows it."""

    def __init__(
        self,
        placement: Placement,
        me: int,
        called: Callable[[int], object],
        *,
        directly: bool = False,
    ) -> None:
        """`called` is told of each member that is found to have made the call."""
        self._placement = placement
        self._me = me
        self._called = called
        self._directly = directly
        self.entries: dict[int, Entry] = {}
        """By rank: who has made the call."""
        self.own: list[int] = []
        """Members on this peer that have made the call, ascending."""
        self.call: Call | None = None
        """Its own members' call, or what others made of it."""
        self.rounds: dict[int, tuple[int, ...]] = {}
        """By peer: the ranks that its last announcement gave up."""
        self.done: dict[int, Done] = {}
        """By peer: the outcome that it has."""
        self.is_known = False
        """What all brought is known from before the call was begun anew, without the bytes of it:
        nobody is told of anybody."""
        self._data: dict[int, tuple[tuple[int, bytes], ...]] = {}
        self._in_order: list[int] = []
        """Members on this peer that have made the call, as they made it."""
        self._told: dict[int, int] = defaultdict(int)
        """By peer: how many of those it was told of."""
        self._sought: set[int] = set()
        """Peers that were asked for the outcome."""
        self._asked: set[int] = set()
        """Those that were asked whether the call is in vain."""
        self.lack: set[int] = set()
        """Those that lack it."""
        self._first: tuple[int, Entry] | None = None
        """The lowest rank that is known, also by a probe: all others are compared with it."""
        self._lacks = [len(ranks) for ranks in placement.ranks]
        """By peer: how many of its members have not made the call."""
        self.complete = [peer for peer, lacks in enumerate(self._lacks) if not lacks]
        """Peers of which all members have, in the order in which that came about."""
        self.weight = 0
        """About how many bytes the entries take, and what came with them."""
        self._weight_of_done: dict[int, int] = {}
        self._reach = 0
        """Of so many peers, up to this one, all have made the call."""
        self._has_probed = me == 0
        self._announced = 0
        self._step = 0
        self._is_closed = False

    def close(self) -> None:
        """Nobody is told anything any more: who called what is kept, and compared, alone."""
        self._is_closed = True
        self._data.clear()
        self._told.clear()
        self.done.clear()
        self.weight -= sum(self._weight_of_done.values())
        self._weight_of_done.clear()

    def fail(self) -> None:
        """Nobody meets here any more: what others called is forgotten, too."""
        self.close()
        own = {rank: self.entries[rank] for rank in self.own}
        self.entries = own
        self.weight = sum(entry.weight for entry in own.values())

    def has_own(self, rank: int) -> bool:
        """Has that member of this peer made the call?"""
        at = bisect_left(self.own, rank)
        return at < len(self.own) and self.own[at] == rank

    def lacks(self, peer: int) -> int:
        """How many of its members have not made the call."""
        return self._lacks[peer]

    def missing(self, ranks: Iterable[int]) -> list[int]:
        return [rank for rank in ranks if rank not in self.entries]

    # What comes in.

    def enter(self, rank: int, entry: Entry, data: dict[int, bytes]) -> str:
        """A member of this peer makes the call. Returns why it can't meet with others, if so."""
        sentence = self._compare(rank, entry)
        insort(self.own, rank)
        self._in_order.append(rank)
        self._enter(rank, entry)
        if not self._is_closed:
            self._data[rank] = tuple(data.items())
        self.call = self.entries[self.own[0]].call
        return sentence

    def take(self, announcement: Announcement) -> tuple[list[Action], str]:
        """Another peer's announcement, with what is to be stored of it, and why its members can't
        meet with others, if so. Raises RemoteProtocolError."""
        peer = announcement.peer
        return self.add(announcement.members, lambda rank: self._is_on(rank, peer))

    def _is_on(self, rank: int, peer: int) -> bool:
        return 0 <= rank < self._placement.size and self._placement.peer_of[rank] == peer

    def hear_done(self, peer: int, done: Done) -> None:
        """It has that outcome."""
        if self._is_closed:
            return
        self.done[peer] = done
        before = self._weight_of_done.get(peer, 0)
        weight = self._weight_of_done[peer] = weight_of(Announcement(peer, (), (), done))
        self.weight += weight - before

    def add(
        self, members: Iterable[Member], is_one: Callable[[int], bool]
    ) -> tuple[list[Action], str]:
        """The same of members, of ranks that may be among them. Raises RemoteProtocolError."""
        actions: list[Action] = []
        sentence = ""
        for rank, entry, data in members:
            if not is_one(rank):
                raise RemoteProtocolError(f"rank {rank} is announced by another's peer")
            if rank in self.entries:
                continue
            buffers = self._stored(rank, entry, data)
            sentence = sentence or self._compare(rank, entry)
            self.call = self.call or entry.call
            if entry.call == self.call:  # one of them is kept
                entry = entry._replace(call=self.call)
            self._enter(rank, entry)
            if not self._is_closed:
                self._data[rank] = data
                actions += buffers
        return actions, sentence

    def know(self, members: Iterable[Member]) -> None:
        """What they brought before the call was begun anew."""
        self.is_known = True
        for rank, entry, _ in members:
            self._enter(rank, entry)
            self._data[rank] = ()

    def _enter(self, rank: int, entry: Entry) -> None:
        before = self.entries.get(rank)
        self.entries[rank] = entry
        self.weight += entry.weight - (0 if before is None else before.weight)
        self._knows(rank, entry)
        if before is not None:
            return
        peer = self._placement.peer_of[rank]
        self._lacks[peer] -= 1
        if not self._lacks[peer]:
            self.complete.append(peer)
        self._called(rank)

    def _knows(self, rank: int, entry: Entry) -> None:
        if self._first is None or rank <= self._first[0]:
            self._first = rank, entry

    def probe(self, peer: int, probe: Probe) -> str:
        rank, entry, _ = probe.member
        if not self._is_on(rank, peer):
            raise RemoteProtocolError(f"rank {rank} is not on peer {peer}")
        try:
            checked(entry, rank, self._placement)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        sentence = self._compare(rank, entry)
        self._knows(rank, entry)
        if probe.asks:
            self.call = self.call or entry.call
        return sentence

    def expect(self, rank: int, entry: Entry, peers: Iterable[int]) -> tuple[list[Action], str]:
        """A member of this peer is yet to make the call, and these are asked, once, whether that
        would be in vain. Also returns why it can't meet with others, if so."""
        probe = Probe(Member(rank, entry), asks=True)
        new = sorted(set(peers) - self._asked)
        self._asked.update(new)
        return [Tell(peer, probe) for peer in new], self.probe(self._me, probe)

    def _compare(self, rank: int, entry: Entry) -> str:
        if self._first is None:
            return ""
        return difference(self._placement.alias, self._first, (rank, entry))

    def _stored(self, rank: int, entry: Entry, data: tuple[tuple[int, bytes], ...]) -> list[Action]:
        try:
            expected = self.meant(rank, checked(entry, rank, self._placement), self._me)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        sizes = {to: len(part) for to, part in data}
        if sizes != {to: buffer.size for to, buffer in expected.items()}:
            raise RemoteProtocolError(
                f"rank {rank} announced {entry.sizes!s:.60} with {sizes!s:.60}"
            )
        return [Store(expected[to], part) for to, part in data]

    def meant(self, rank: int, entry: Entry, peer: int) -> dict[int, Buffer]:
        """What of a member's small values this peer is to have: all, or what is for its ranks."""
        call, peer_of = entry.call, self._placement.peer_of
        buffers = ridden(entry, rank, self._placement)
        if call.kind is Kind.GATHER:
            return buffers if peer == peer_of[call.root] else {}
        return {to: buffer for to, buffer in buffers.items() if to < 0 or peer_of[to] == peer}

    # What goes out.

    def announce(
        self,
        lost: tuple[int, ...],
        done: Done | None,
        peers: Iterable[int],
        *,
        waits: bool,
        anew: bool = False,
    ) -> list[Action]:
        """What is due, to those of `peers` that are to know; `anew` where a round begins.

        `waits`: members here may still make the call.
        """
        call, own = self.call, self.own
        if self.is_known:
            return []
        if not anew:
            is_alone = call is not None and call.kind is Kind.GATHER  # a quorum counts members
            if len(own) == self._announced or (len(own) > 1 and waits and not is_alone):
                return []
        self._announced = len(own)
        if not lost and self._is_disseminated:
            return [*self._probe(own), *self.relay()]
        actions: list[Action] = []
        if call is not None and call.kind.has_root:
            root = self._placement.peer_of[call.root]
            if self._me != root:
                peers = [peer for peer in peers if peer == root]
                actions = self._probe(own) if root else []
        told = [Tell(peer, self._announcement(peer, lost, done)) for peer in peers]
        return [*actions, *told]

    @property
    def _is_disseminated(self) -> bool:
        """Does a peer hear of others through others?"""
        call = self.call
        many = len(self._placement.ranks) > DIRECT_PEERS and not self._directly
        return many and call is not None and not call.kind.has_root

    def _announcement(self, to: int, lost: tuple[int, ...], done: Done | None) -> Announcement:
        ranks = sorted(self._in_order[self._told[to] :])
        self._told[to] = len(self._in_order)
        members = []
        for rank in ranks:
            meant = self.meant(rank, self.entries[rank], to)
            data = tuple(part for part in self._data[rank] if part[0] in meant)
            members.append(Member(rank, self.entries[rank], data))
        return Announcement(self._me, tuple(members), lost, done)

    def seek(self, peers: Iterable[int]) -> list[Action]:
        """They are told, once, that this peer has no outcome: who has it gives it."""
        new = sorted(set(peers) - self._sought)
        self._sought.update(new)
        return [Tell(to, Announcement(self._me, ())) for to in new]

    def _probe(self, own: list[int]) -> list[Action]:
        if self._has_probed or not own:
            return []
        self._has_probed = True
        return [Tell(0, Probe(Member(own[0], self.entries[own[0]])))]

    # Dissemination.

    def relay(self) -> list[Action]:
        """The steps that are due."""
        count = len(self._placement.ranks)
        actions: list[Action] = []
        while self._is_disseminated and not self.is_known and 1 << self._step < count:
            while self._reach < count and not self._lacks[(self._me - self._reach) % count]:
                self._reach += 1
            if self._reach < min(1 << self._step, count - (1 << self._step)):
                break
            known = tuple(self._known(peer) for peer in self._window(self._me, self._step))
            to = (self._me + (1 << self._step)) % count
            actions.append(Tell(to, Relayed(self._step, known)))
            self._step += 1
        return actions

    def _window(self, peer: int, step: int) -> list[int]:
        count = len(self._placement.ranks)
        return [(peer - back) % count for back in range(min(1 << step, count - (1 << step)))]

    def _known(self, peer: int) -> Announcement:
        return Announcement(peer, self.members(self._placement.ranks[peer]))

    def members(self, ranks: Iterable[int]) -> tuple[Member, ...]:
        """With all that came with them."""
        return tuple(Member(rank, self.entries[rank], self._data[rank]) for rank in ranks)

    def relayed(self, peer: int, relayed: Relayed) -> tuple[list[Action], str]:
        """Raises RemoteProtocolError."""
        count, step = len(self._placement.ranks), relayed.step
        told = [announcement.peer for announcement in relayed.announcements]
        is_due = count > DIRECT_PEERS and 0 <= step < (count - 1).bit_length()
        if (
            not is_due
            or peer != (self._me - (1 << step)) % count
            or told != self._window(peer, step)
        ):
            raise RemoteProtocolError(f"peer {peer} relays {told!s:.60} in step {step}")
        actions: list[Action] = []
        problem = ""
        for announcement in relayed.announcements:
            stored, sentence = self.take(announcement._replace(lost=(), done=None))
            actions += stored
            problem = problem or sentence
        return actions, problem
