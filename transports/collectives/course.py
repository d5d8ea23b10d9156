"""What moves on one peer in one collective: the plan of the first round and of those after losses.

See `collective` for rounds. In the first, plans are made of what is known: a reduction as soon as
the members here have called, as the sizes are alike; other values as members announce them. In a
further round each peer asks for what it lacks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from manta.transports.collectives.actions import Action, Forget, Store, Tell
from manta.transports.collectives.calls import Call, Kind, Placement
from manta.transports.collectives.flow import Flow
from manta.transports.collectives.messages import Done, Fits, Noted, Want, Wanted, weight_of
from manta.transports.collectives.planner import algorithm_of, plan, wanted
from manta.transports.collectives.plans import (
    OUTCOME,
    PARTIAL,
    RING,
    ROLES,
    VALUE,
    Buffer,
    Plan,
    Span,
    Transfer,
    transfer_key,
    whole,
)
from manta.transports.collectives.reducing import (
    blocks_of,
    outcome_of,
    plan_reduction,
    wanted_outcomes,
)
from manta.transports.collectives.roll import Roll
from manta.transports.collectives.spreading import does_ride
from manta.transports.collectives.table import REDUCED, Algorithm
from manta.transports.errors import RemoteProtocolError

MAX_WANTS = 1 << 16
"""Transfers that others may ask for; a plan has fewer."""
_KEY = 200
"""Characters of a transfer's key, beside the ranks that it names."""
_WANT = 400
"""Bytes that it takes to remember what another peer wants, beside its key."""
_FINAL = (OUTCOME, RING)
_GIVEN = -1
"""Tells transfers of an outcome that another peer gives."""


class Course:
    """On peer `me` of the placement."""

    def __init__(
        self, placement: Placement, me: int, roll: Roll, completed: Callable[[Buffer], object]
    ) -> None:
        """`completed` is told of each buffer that becomes whole."""
        self._placement = placement
        self._me = me
        self._roll = roll
        self.flow = Flow(placement.size, completed)
        self.peers = dict.fromkeys(peer for peer in range(len(placement.ranks)) if peer != me)
        """The others that have members left."""
        self.lost: tuple[int, ...] = ()
        """The round: the ranks that it goes on without."""
        self.planned: tuple[int, ...] | None = None
        """The round that was planned last."""
        self.left_out: set[int] = set()
        """Members without whose values the root of a gather here has gone on."""
        self._unplanned: list[int] = []
        """Who has made the call since the last plan."""
        self._opened = 0
        """So many of the peers that are complete may be sent what the plan has for them."""
        self._wanted: list[Buffer] | None = None
        """What the members here get in this round."""
        self._whole = 0
        """The first so many of that are whole."""
        self._unfit = dict.fromkeys(self.peers)
        """Peers that have not said that they have room for all that is to come to them."""
        self._has_fitted = False
        """Was that said of this one?"""
        self._is_large: bool | None = None
        """Are values of this round moved, of which no peer knew before how much that is?"""
        self._unnoted: set[int] | None = None
        """Peers whose notes are to come in this round."""
        self.weight = 0
        """About how many bytes it takes what others want and noted."""
        self._asked: list[tuple[int, Want]] = []
        """What others wanted in this round that was not looked at yet."""
        self.source: int | None = None
        """The peer that gives what came of the call."""
        self._settled: Done | None = None
        """Another peer's outcome, which this one takes over."""
        self._notes: dict[int, Noted] = {}
        self._has_noted = False

    # The first round.

    def called(self, rank: int) -> None:
        """The member has made the call."""
        self._unplanned.append(rank)

    def draw(self, call: Call) -> list[Action]:
        """The plan, of what is known."""
        actions: list[Action] = []
        if self._settled:
            return []
        if call.kind.reduces:
            if self._roll.lacks(self._me):
                return []
            if self.planned is None:
                self.flow.chunk = max(1, REDUCED // call.itemsize) * call.itemsize
                actions = self.flow.adopt(plan(call, self._placement, self._me, self._sizes()))
            complete = self._roll.complete[self._opened :]
            self._opened += len(complete)
            for peer in complete:  # they have planned, too, unless they are in another round
                if peer in self.peers and not self._roll.rounds.get(peer):
                    actions += self.flow.open_to(peer)
        elif not self._roll.own:
            return []  # a peer of which no member has called is not counted on by others
        elif self._unplanned:
            entries, left_out = self._roll.entries, self.left_out
            ranks = [rank for rank in self._unplanned if rank not in left_out]
            self._unplanned.clear()
            sizes = {rank: entries[rank].sizes for rank in ranks}
            drawn = plan(call, self._placement, self._me, sizes)
            new = [one for one in drawn.receives if not self.flow.knows(one.key)]
            actions = [*self.flow.adopt(drawn), *self._want(new)]
        self.planned = ()
        return actions

    def _sizes(self) -> dict[int, tuple[int, ...]]:
        known = self._roll.entries.items()
        return {rank: entry.sizes for rank, entry in known if rank not in self.left_out}

    @property
    def size(self) -> tuple[int, ...]:
        """Of a value that is reduced."""
        return next(iter(self._roll.entries.values())).sizes

    def _missing_here(self) -> list[int]:
        ranks = self._placement.ranks[self._me]
        return [rank for rank in self._roll.missing(ranks) if rank not in self.lost]

    def _want(self, transfers: Iterable[Transfer]) -> list[Action]:
        wants: dict[int, list[Want]] = defaultdict(list)
        for key, peer, span in transfers:
            wants[peer].append(Want(key, span))
        return [Tell(peer, Wanted(self.lost, tuple(them))) for peer, them in wants.items()]

    def kept(self, stored: list[Action]) -> list[Action]:
        """With what follows from values that rode with announcements, but for those that come too
        late."""
        stored = [one for one in stored if not self._is_late(one)]
        buffers = [action.buffer for action in stored if isinstance(action, Store)]
        return stored + [one for buffer in buffers for one in self.flow.filled(whole(buffer))]

    def _is_late(self, action: Action) -> bool:
        return isinstance(action, Store) and action.buffer.at in self.left_out

    def leave_out(self, absent: list[int]) -> list[Action]:
        """Whose values the root of a gather does without."""
        self.left_out.update(absent)
        return self.flow.drop(lambda transfer: transfer.span.buffer.at in absent)

    def close(self) -> None:
        """Nothing moves any more."""
        self.flow.close()
        self._asked.clear()
        self._unplanned.clear()
        self._notes.clear()
        self._wanted, self.weight = None, 0

    # What others say.

    def heard(self, peer: int, message: Wanted | Fits | Noted) -> list[Action]:
        """Raises RemoteProtocolError."""
        match message:
            case Wanted():
                return self._hear_wants(peer, message)
            case Fits():
                self._unfit.pop(peer, None)
            case Noted():
                self._hear_notes(peer, message)
        return []

    # Room for values whose sizes are not known before.

    def _tell_fits(self, call: Call) -> list[Action]:
        """Once, when all that is to come here has its room, or is refused."""
        if self._has_fitted or not self._moves_values(call):
            return []
        self._has_fitted = True
        return [Tell(peer, Fits()) for peer in self.peers]

    def _moves_values(self, call: Call) -> bool:
        if call.kind is not Kind.ALL_GATHER or self._settled or self.planned != self.lost:
            return False
        if self._is_large is None and self._have_come():
            sizes = self._sizes().items()
            self._is_large = any(
                not does_ride(call, self._placement, rank, size[0])
                for rank, size in sizes
                if rank not in self.lost
            )
        return bool(self._is_large)

    def _all_fit(self, call: Call) -> bool:
        """Else a peer may refuse the call yet, for all."""
        if not self._moves_values(call):
            return True
        while (peer := next(iter(self._unfit), None)) is not None and peer not in self.peers:
            del self._unfit[peer]
        return peer is None

    # What others want.

    def _hear_wants(self, peer: int, message: Wanted) -> list[Action]:
        """Raises RemoteProtocolError."""
        if len(message.wants) + len(self._asked) + self.flow.permitted > MAX_WANTS:
            raise RemoteProtocolError(f"peer {peer} wants {len(message.wants)} transfers")
        if message.lost != self.lost:  # it will ask again when it has come to this round
            return []
        actions: list[Action] = []
        for want in message.wants:
            if len(want.key) > _KEY + 8 * self._placement.size:
                raise RemoteProtocolError(f"peer {peer} wants {want.key!r:.100}")
            self.weight += _WANT + len(want.key)
            if self.lost and not self.flow.knows(want.key):
                self._check(peer, want)
                self._asked.append((peer, want))
            else:
                actions += self.flow.permit(peer, want.key)
        return actions

    def _check(self, peer: int, want: Want) -> None:
        """Raises RemoteProtocolError for what nobody has in a further round."""
        key, (buffer, start, stop) = want
        is_there = buffer.role in (VALUE, OUTCOME) or (
            buffer.role == PARTIAL and buffer.at == self._me
        )
        held = self._held(buffer) if is_there else None
        last = buffer.stop if held is None else held.stop
        if not is_there or not 0 <= start < stop <= last:
            raise RemoteProtocolError(f"peer {peer} wants {key!r:.100}")

    def _serve(self) -> list[Action]:
        """In a further round: what others lack, as soon as this peer knows what that is."""
        asked, self._asked = self._asked, []
        actions: list[Action] = []
        for peer, want in asked:
            key, (buffer, start, stop) = want
            held = self._held(buffer)
            if held is None:
                self._asked.append((peer, want))
                continue
            if stop > held.stop:
                continue  # it made that up, before its member was known here
            send = Transfer(key, peer, Span(held, start, stop))
            actions += [*self.flow.adopt(Plan(sends=(send,))), *self.flow.permit(peer, key)]
        return actions

    def _held(self, buffer: Buffer) -> Buffer | None:
        """As this peer has it: whole. None of a member that it has not heard of yet."""
        role, entry = buffer.role, self._roll.entries.get(buffer.at)
        if role == VALUE:
            return None if entry is None else Buffer(VALUE, buffer.at, sum(entry.sizes))
        if role == OUTCOME:
            return outcome_of(sum(self.size), buffer.lost)
        return Buffer(PARTIAL, self._me, sum(self.size), lost=buffer.lost)

    # An outcome that another peer gives.

    def holder(self) -> int | None:
        """A peer that gives what came of it, unless one was found that is there yet."""
        if self._settled and (self.source is None or self.source in self.peers):
            return None
        done, rounds = self._roll.done, self._roll.rounds
        giving = (peer for peer in done if peer in self.peers and rounds.get(peer) == ())
        return min(giving, default=None)

    def settle(self, call: Call, holder: int) -> list[Action]:
        """Takes over what another peer has, in place of all that was given here."""
        self.source, self._settled = holder, self._roll.done[holder]
        self._wanted = self._unnoted = None
        self.lost = self.planned = ()
        self._asked.clear()
        actions = self.flow.drop(lambda _: True)
        self.flow.drop_reductions(ROLES)
        forgotten = self.flow.forget(VALUE)
        actions += [Forget(buffer) for buffer in forgotten]
        self._roll.know(self._settled.members)
        if call.kind is Kind.BARRIER:
            return actions
        wanted = [(holder, whole(buffer)) for buffer in self.wanted(call)]
        return actions + self._fetch(wanted, _GIVEN)

    def takes_from(self, lost: Iterable[int]) -> bool:
        """Is it what a peer of these members gives that is taken over here? Others that go on
        without them come to something else, unless both hear of that."""
        ranks = () if self.source is None else self._placement.ranks[self.source]
        return not set(ranks).isdisjoint(lost)

    # Further rounds.

    def begin(self, lost: tuple[int, ...]) -> list[Action]:
        """A round without these ranks. What is of no use in it is given up."""
        self.lost = lost
        self._wanted = self._unnoted = self._is_large = None

        def is_stale(transfer: Transfer) -> bool:
            buffer = transfer.span.buffer
            if buffer.role == PARTIAL:
                away = [rank for rank in self._placement.ranks[buffer.at] if rank in lost]
                return buffer.lost != tuple(away) or transfer.peer not in self.peers
            return buffer.role in _FINAL or transfer.peer not in self.peers

        self.flow.drop_reductions(_FINAL)
        self._settled = None
        self._asked.clear()
        self._has_noted = False
        return self.flow.drop(is_stale)

    def go_on(self, call: Call, *, is_done: bool) -> list[Action]:
        """What is due; `is_done` where this peer has the outcome, so that others take it here."""
        actions: list[Action] = []
        if self.lost and self.planned != self.lost and self._is_met():
            self.planned = self.lost
            if not is_done:
                actions += self._plan_round(call)
        actions += self._serve()
        actions += self._tell_fits(call)
        return actions if is_done else actions + self._tell_notes(call)

    def _is_met(self) -> bool:
        """Have all that are left announced themselves in this round, and is anybody left?"""
        if self._missing_here() or len(self.lost) == self._placement.size:
            return False
        for peer in self.peers:
            missing = self._roll.missing(self._placement.ranks[peer])
            if self._roll.rounds.get(peer) != self.lost or set(missing) - set(self.lost):
                return False
        return True

    def _plan_round(self, call: Call) -> list[Action]:
        """What is missing, and of whom to want it."""
        count = len(self._placement.ranks)
        holders = [peer for peer in self.peers if peer in self._roll.done]
        holder = min(holders, key=lambda peer: (peer - self._me) % count, default=None)
        if holder is not None:
            return self._take_over(call, holder)
        if call.kind is Kind.ALL_GATHER:
            return self._fetch(self._values(call))
        if call.kind is not Kind.ALL_REDUCE:
            return []
        algorithm = algorithm_of(call, self._placement, self.size)
        if algorithm is not Algorithm.EXCHANGE:
            algorithm = Algorithm.DIRECT
        drawn = plan_reduction(algorithm, call, self._placement, self._me, self.size, self.lost)
        actions = self.flow.adopt(drawn._replace(sends=(), receives=()))
        return actions + self._fetch([(one.peer, one.span) for one in drawn.receives])

    def _take_over(self, call: Call, holder: int) -> list[Action]:
        """The outcome that another peer has."""
        self._settled = done = self._roll.done[holder]
        self._wanted = self._unnoted = None
        known, _ = self._roll.add(done.members, {*self.lost}.__contains__)
        actions = self.kept(known)
        if call.kind is Kind.ALL_REDUCE:
            actions += self.flow.drop(lambda _: True)
            return actions + self._fetch([(holder, whole(self.wanted(call)[0]))])
        return actions + self._fetch(self._values(call, holder))

    def _values(self, call: Call, holder: int | None = None) -> list[tuple[int, Span]]:
        """Each with the peer whose it is, or with the holder if that one is lost."""
        found = []
        for buffer in self.wanted(call):
            peer = self._placement.peer_of[buffer.at]
            source = peer if peer in self.peers else holder
            if source is not None:
                found.append((source, whole(buffer)))
        return found

    def _fetch(self, spans: Iterable[tuple[int, Span]], attempt: int | None = None) -> list[Action]:
        """What of these is missing; what is on its way goes on. `attempt` tells transfers apart
        that carry the same."""
        on_way = {one.transfer.span.buffer: one.transfer for one in self.flow.receives.values()}
        transfers: list[Transfer] = []
        for peer, (buffer, start, stop) in spans:
            if buffer in on_way and buffer.role not in _FINAL:
                transfers.append(on_way[buffer])
                continue
            number = len(self.lost) if buffer.role in _FINAL else 0
            for low, high in self.flow.missing(buffer, start, stop):
                span = Span(buffer, low, high)
                key = transfer_key(span, peer, self._me, number if attempt is None else attempt)
                transfers.append(Transfer(key, peer, span))
        new = Plan(receives=tuple(transfers))
        return [*self.flow.adopt(new), *self._want(transfers)]

    # Notes.

    def _hear_notes(self, peer: int, message: Noted) -> None:
        before, self._notes[peer] = self._notes.get(peer), message
        self.weight += weight_of(message) - (0 if before is None else weight_of(before))
        if self._unnoted is not None and message.lost == self.lost:
            self._unnoted.discard(peer)

    def unnoted(self, call: Call) -> set[int]:
        """The peers whose notes are to come."""
        if self._unnoted is None:
            self._unnoted = self._whose_notes_lack(call)
        return self._unnoted

    def _whose_notes_lack(self, call: Call) -> set[int]:
        if not call.noted or call.kind is not Kind.ALL_REDUCE or self._settled:
            return set()
        if algorithm_of(call, self._placement, self.size) is Algorithm.EXCHANGE:
            return set()
        blocks = blocks_of(call, self._placement, self.size, self.lost)
        owners = {block.owner for block in blocks} - {self._me}
        return {peer for peer in owners if self._noted(peer) is None}

    def _noted(self, peer: int) -> tuple[bytes, ...] | None:
        noted = self._notes.get(peer)
        return None if noted is None or noted.lost != self.lost else noted.notes

    def _tell_notes(self, call: Call) -> list[Action]:
        is_due = call.noted and call.kind is Kind.ALL_REDUCE and self.planned == self.lost
        if not is_due or self._has_noted or self._settled or self.flow.is_reducing:
            return []
        self._has_noted = True
        if algorithm_of(call, self._placement, self.size) is Algorithm.EXCHANGE:
            return []
        noted = Noted(self.lost, tuple(self.flow.notes))
        return [Tell(peer, noted) for peer in self.peers]

    # The outcome of a call without a root.

    @property
    def settled(self) -> tuple[int, ...]:
        """The ranks that are not in the outcome."""
        return self._settled.lost if self._settled else self.lost

    def wanted(self, call: Call) -> list[Buffer]:
        """What the members here get; of the ranks that are known."""
        if call.kind is Kind.ALL_REDUCE:
            return [outcome_of(sum(self.size), self.settled)]
        sizes = {rank: size for rank, size in self._sizes().items() if rank not in self.settled}
        return wanted(call, self._placement, self._me, sizes)

    def outcome_of(self, call: Call, rank: int, lost: tuple[int, ...]) -> list[Buffer]:
        """What a member here gets."""
        if call.kind is Kind.REDUCE_SCATTER:
            own = self._placement.ranks[self._me].index(rank)
            return [wanted_outcomes(call, self._placement, self._me, self.size)[own]]
        if call.kind is Kind.ALL_REDUCE:
            return [outcome_of(sum(self.size), lost)]
        return self.wanted(call) if call.kind is Kind.ALL_GATHER else []

    def outcome(self, call: Call) -> Done | None:
        """As soon as all of it is here."""
        if self.planned != self.lost or not self._have_come():
            return None
        if self._wanted is None:
            self._wanted, self._whole = self.wanted(call), 0
        wanted = self._wanted
        while self._whole < len(wanted) and self.flow.is_whole(wanted[self._whole]):
            self._whole += 1
        if self._whole < len(wanted) or self.unnoted(call) or not self._all_fit(call):
            return None
        if self._settled:
            return self._settled
        theirs = (self._noted(peer) or () for peer in sorted(self._notes))
        return Done(self.lost, (*self.flow.notes, *(note for them in theirs for note in them)))

    def _have_come(self) -> bool:
        """Have all made the call that are in the outcome?"""
        if not (self.lost or self.settled):
            return len(self._roll.entries) == self._placement.size
        out = {*self.lost, *self.settled}
        return all(
            rank in self._roll.entries or rank in out for rank in range(self._placement.size)
        )
