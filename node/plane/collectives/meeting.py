"""One collective on this plane: its machine, its memory, and who waits for what comes of it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from manta.node.plane.collectives.arranging import Arranging
from manta.node.plane.collectives.given import Given, Giving
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.pieces import COST, Piece, Pieces, Reading, bytes_of
from manta.node.plane.collectives.reductions import Reductions
from manta.node.plane.collectives.spare import Footprint
from manta.node.plane.collectives.spill import Spill
from manta.node.plane.parcels import NoRoom
from manta.transports.collectives.actions import (
    Action,
    Cancel,
    Close,
    Deliver,
    Expect,
    Fail,
    Forget,
    Outcome,
    Ready,
    Reduce,
    Send,
    Store,
    Tell,
    Why,
)
from manta.transports.collectives.calls import Entry, Kind, Placement
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.holder import Holder
from manta.transports.collectives.messages import Message
from manta.transports.collectives.planner import made, ridden
from manta.transports.collectives.plans import VALUE_ROLES, Buffer, Transfer, whole
from manta.transports.collectives.refusal import NO_ROOM
from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange.messages import Parcel

if TYPE_CHECKING:
    from manta.node.reduction.kernel import Kernel


class Outside(Protocol):
    """What a meeting has its plane do. All calls come and go on the plane's thread."""

    def tell(self, meeting: Meeting, peer: int, message: Message) -> None: ...

    def work(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        """On another thread; `then` on this one."""

    def deliver(self, meeting: Meeting, rank: int, outcome: Outcome) -> None: ...

    def fail(self, meeting: Meeting, rank: int, error: str, sentence: str) -> None: ...

    def closed(self, meeting: Meeting) -> None:
        """No peer needs anything of it; it is kept for next attempts."""

    def release(self, parcel: Parcel) -> None: ...


class Moving(Protocol):
    """The transfers of meetings."""

    def expect(
        self, meeting: Meeting, transfer: Transfer, memory: memoryview, *, adopts: bool
    ) -> None:
        """`meeting.received`, then `meeting.has_ended` follow. `adopts`: memory of its sender may
        take the place of this one, of which `meeting.adopted` is told before."""

    def send(self, meeting: Meeting, transfer: Transfer, piece: Piece) -> None:
        """`meeting.has_ended` follows."""

    def ready(self, meeting: Meeting, transfer: Transfer, upto: int) -> None: ...

    def cancel(self, meeting: Meeting, transfer: Transfer, *, sends: bool) -> None:
        """`meeting.has_ended` follows all the same."""


@dataclass
class _Move:
    transfer: Transfer
    piece: Piece
    sends: bool
    is_over: bool = False
    """The machine is told nothing more of it."""


class Meeting:
    """All of it on the plane's thread."""

    def __init__(
        self,
        swarm_id: str,
        placement: Placement,
        me: int,
        pool: Pool,
        spill: Spill,
        outside: Outside,
        moving: Moving,
        machine: Collective | Holder,
    ) -> None:
        self._swarm_id = swarm_id
        self.placement = placement
        self.machine = machine
        self.kernel: Kernel | None = None
        self._me = me
        self._pool = pool
        self._spill = spill
        self._outside = outside
        self._moving = moving
        self._memory = Pieces(swarm_id, pool, spill, outside.release)
        aside = Pieces(swarm_id, pool, spill, outside.release)
        self.giving = Giving(self._memory, aside)
        self._moves: dict[str, _Move] = {}
        self._actions: deque[Action] = deque()
        self._is_performing = False
        self._uncalled = set(placement.ranks[me])
        """Members here that have not made the call."""
        self.has_let_go = False
        """Is something that members here gave kept no longer, though others may need it again?"""
        self._outcomes: dict[int, Outcome] = {}
        self.arranging = Arranging(self._memory, pool, outside.work)
        self._reductions = Reductions(self._memory, pool, outside.work)
        self._copied = 0
        """Bytes of small values that are here twice, as they ride with announcements."""
        self.is_gone = False
        """Nothing is kept of it any more."""
        self.is_over = False
        """Nothing is carried out any more, and no memory kept but that of outcomes, and of what
        members gave."""

    @property
    def refusal(self) -> Why:
        """Why it is refused, or has been."""
        error, sentence = self.machine.failure
        return Why(sentence, was_told=True) if error == NO_ROOM else self.machine.refusal

    @property
    def kind(self) -> Kind | None:
        return None if self.machine.call is None else self.machine.call.kind

    # --- what happens -------------------------------------------------------------------------

    def contribute(self, rank: int, given: Given, data: dict[int, bytes]) -> None:
        """A member makes the call. What it brings is the meeting's from now on, or dropped if it
        was there, or there is no room for it: then the call is refused to all."""
        self.kernel = self.kernel or given.kernel
        if why := given.too_few(self.placement):
            self.abort("CollectiveError", why)  # then it is over, and what was brought is dropped
        refusal = self.machine.refusal.sentence
        if rank in self.machine.come or self.is_over:
            if self.is_over or rank in self.giving or self._has_outcome(rank):
                self._memory.drop_given(given.pieces)
            else:
                self.giving.lay_aside(rank, given)
        else:
            try:
                self._take_in(rank, given, data)
            except NoRoom as error:
                refusal = refusal or self._refusal(error)
            self.giving.came(rank, replace(given, refusal=refusal))
        self._perform(self.machine.contributed(rank, given.entry, data, refusal))
        self._weigh()

    def expected(self, rank: int, entry: Entry, lost: Iterable[int]) -> None:
        """A member is yet to make the call, of which these are said to be lost."""
        self._perform(self.machine.expected(rank, entry, lost))
        self._weigh()

    def _take_in(self, rank: int, given: Given, data: dict[int, bytes]) -> None:
        """Takes all room that is known to be needed, while nobody has been told of the member.
        Raises NoRoom; then what it brought is dropped."""
        views = {id(piece.view.obj) for piece in given.pieces.values()}
        copied = sum(len(part) for part in data.values() if id(part) not in views)
        weight = self.machine.weight + given.entry.weight
        call, sizes = given.entry.call, given.entry.sizes
        self._uncalled.discard(rank)
        try:
            if why := given.refusal or self.machine.refusal.sentence:
                raise NoRoom(why)
            self._memory.weigh(COST + self._copied + copied + weight)
            for buffer in () if self._uncalled else made(call, self.placement, self._me, sizes):
                self._memory.of(buffer)
        except NoRoom:
            self._memory.drop_given(given.pieces)
            raise
        self._memory.add(given.pieces)
        self._copied += copied

    def _has_outcome(self, rank: int) -> bool:
        return self.machine.outcome is not None or self.machine.has_delivered(rank)

    def heard(self, peer: int, message: Message) -> None:
        """Raises RemoteProtocolError."""
        try:
            actions = self.machine.heard(peer, message)
        except RemoteProtocolError:
            raise
        except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
            raise RemoteProtocolError(f"peer {peer} says what makes no sense: {error}") from error
        self._perform(actions)
        self._weigh()

    def received(self, key: str, upto: int) -> None:
        move = self._moves.get(key)
        if move is not None and not move.is_over and not self.is_over:
            self._perform(self.machine.received(key, upto))

    def has_ended(self, key: str, why: str | None) -> None:
        """A transfer is over: it has come, or why not; None if its sender has given it up, of
        which the machine hears by a message."""
        move = self._moves.pop(key, None)
        if move is None:
            return
        if move.piece.block is not None:
            self._pool.drop(move.piece.block)
        if move.is_over or self.is_over:
            return
        here, there = self.placement.nodes[self._me], self.placement.nodes[move.transfer.peer]
        if move.sends and why:
            sentence = f"What {here} was to send to {there} for it did not arrive: {why}"
            self._perform(self.machine.unsent(key, sentence))
        elif move.sends:
            self._perform(self.machine.sent(key))
        elif why is None:
            return
        elif why:
            sentence = f"What {there} was to send to {here} for it did not arrive: {why}"
            self._perform(self.machine.abort("RequestFailed", sentence))
        else:
            span = move.transfer.span
            self._perform(self.machine.received(key, span.stop - span.start))

    def adopted(self, key: str, fd: int) -> None:
        """A value that is to come lies in this memory of its sender's, which nobody can change any
        more: that takes the place of what was made for it."""
        move = self._moves.get(key)
        if move is None or move.is_over or self.is_over:
            os.close(fd)
            return
        buffer = move.transfer.span.buffer
        assert move.piece.block is not None, "only what lies in a block is taken over"
        self._pool.drop(move.piece.block)
        self._memory.drop([buffer])
        try:
            block = self._pool.adopt(fd, buffer.size, self._swarm_id)
        except NoRoom as error:
            move.piece = Piece(memoryview(b""))
            self.abort(NO_ROOM, self._refusal(error))
            return
        move.piece = Piece(block.view[: buffer.size], block)
        self._pool.hold(block)
        self._memory.put(buffer, move.piece)

    def peer_lost(self, peer: int, why: str, ended: Iterable[int] = ()) -> None:
        self._perform(self.machine.peer_lost(peer, why, ended))

    def peer_left(self, peer: int, why: str) -> None:
        self._perform(self.machine.peer_left(peer, why))

    def member_lost(self, rank: int, why: str, *, has_ended: bool) -> None:
        self._perform(self.machine.member_lost(rank, why, has_ended=has_ended))

    def left_out(self) -> None:
        """Others have lost this plane, and go on without it."""
        self._perform(self.machine.left_out())

    def suffice(self, enough: int) -> None:
        self._perform(self.machine.suffice(enough))

    def abort(self, error: str, sentence: str) -> None:
        self._perform(self.machine.abort(error, sentence))

    # --- what is done -------------------------------------------------------------------------

    def _perform(self, actions: Iterable[Action]) -> None:
        self._actions.extend(actions)
        if self._is_performing:
            return
        self._is_performing = True
        try:
            while self._actions:
                try:
                    self._do(self._actions.popleft())
                except NoRoom as error:
                    sentence = self._refusal(error)
                    if told := self.machine.abort(NO_ROOM, sentence):
                        self._actions.clear()
                        self._actions.extend(told)
        finally:
            self._is_performing = False
        holder = self.machine.holder(self.placement, self._me) if self.machine.gives else None
        if holder is not None:
            was_closed, self.machine = self.machine.is_closed, holder
            if not was_closed:
                self._close()
        if self.machine.has_failed and not self.is_over:
            self.is_over = True
            if self.machine.failure[0] in ("CollectiveError", NO_ROOM):
                self.giving.forget()  # it is so wherever it is begun
            self._memory.drop_others(self._kept())
            self._copied = 0  # what rode with announcements is forgotten
            self._weigh()

    def _weigh(self) -> None:
        """Counts what is remembered beside values, though there be no room: others may have what
        came of the call by now. How much they may say of one is the desk's matter."""
        if not self.is_gone:
            self._memory.weigh(COST + self._copied + self.machine.weight, anyway=True)

    def _refusal(self, error: NoRoom) -> str:
        """Members on other nodes are told, too."""
        return (
            f"{self.placement.nodes[self._me]} has no room for a collective: what comes of them is "
            f"kept until the iteration ends, for attempts that are repeated. {error}"
        )

    def _kept(self) -> set[Buffer]:
        """What next attempts may be given, and what others may need again."""
        return self.giving.buffers | self._of_outcomes()

    def _of_outcomes(self) -> set[Buffer]:
        outcomes = [*self._outcomes.values()]
        if self.machine.outcome is not None:  # for whoever begins the call anew
            outcomes.append(self.machine.outcome)
        return {buffer for outcome in outcomes for buffer in outcome.buffers}

    def _do(self, action: Action) -> None:
        """Raises NoRoom."""
        match action:
            case Tell(peer, message):
                self._outside.tell(self, peer, message)
            case Store(buffer, data):  # it is in memory, and may be all that others lacked
                self._memory.add({buffer: Piece(memoryview(data))}, anyway=True)
            case Forget(buffer):
                self.giving.make_way(buffer)
            case Expect(transfer):
                piece = self._begin(transfer, sends=False)
                self._moving.expect(self, transfer, piece.view, adopts=self._adopts(transfer))
            case Send(transfer):
                piece = self._begin(transfer, sends=True)
                self._moving.send(self, transfer, piece)
            case Ready(key, upto):
                if (move := self._moves.get(key)) is not None and not move.is_over:
                    self._moving.ready(self, move.transfer, upto)
            case Cancel(key):
                if (move := self._moves.get(key)) is not None and not move.is_over:
                    move.is_over = True
                    self._moving.cancel(self, move.transfer, sends=move.sends)
            case Reduce():
                self._reduce(action)
            case Deliver(rank, outcome):
                self._outcomes[rank] = outcome
                self._outside.deliver(self, rank, outcome)
            case Fail(rank, error, sentence):
                self._outside.fail(self, rank, error, sentence)
            case Close():
                self._close()

    def _begin(self, transfer: Transfer, *, sends: bool) -> Piece:
        """What of its buffer is moved. Raises NoRoom."""
        buffer, start, stop = transfer.span
        copy = self._memory.copied(buffer) if sends else None
        piece = copy or self._memory.of(buffer)
        if copy is None and piece.block is not None:
            self._pool.hold(piece.block)
        first, last = start - buffer.start, stop - buffer.start
        piece = piece._replace(view=piece.view[first:last], offset=piece.offset + first)
        self._moves[transfer.key] = _Move(transfer, piece, sends)
        return piece

    def _adopts(self, transfer: Transfer) -> bool:
        """May the sender's memory be taken over? Of a value that is no source of a reduction, as
        those are read from where others may be written to meanwhile."""
        buffer = transfer.span.buffer
        block = self._memory.of(buffer).block
        is_value = buffer.role in VALUE_ROLES and transfer.span == whole(buffer)
        reduces = self.kind is not None and self.kind.reduces
        return is_value and not reduces and block is not None and not block.is_file

    def _reduce(self, order: Reduce) -> None:
        """Raises NoRoom."""
        assert self.kernel is not None, "nothing is reduced before a member here has called"

        def then(note: bytes, error: Exception | None) -> None:
            if self.is_over:
                return
            if error is None:
                self._perform(self.machine.reduced(order.number, note))
            else:
                self.abort("RequestFailed", f"A reduction failed: {error}")

        note = self._reductions.begin(self.kernel, order, then)
        if note is not None:
            self._actions.extend(self.machine.reduced(order.number, note))

    def _close(self) -> None:
        """Only what next attempts may be given is kept, and what others may need again."""
        if not self._is_needed_again:
            self.giving.forget()
        self._memory.drop_others(self._kept())
        self._copied = 0
        self._weigh()
        self._outside.closed(self)

    @property
    def _is_needed_again(self) -> bool:
        """Could others, that forget, not get it with the outcome?"""
        call = self.machine.call
        return call is None or call.kind is Kind.REDUCE_SCATTER or call.kind.has_root

    # --- begun anew ---------------------------------------------------------------------------

    @property
    def receivers(self) -> list[int]:
        """Peers to which something of it is on its way."""
        moves = self._moves.values()
        return sorted({one.transfer.peer for one in moves if one.sends and not one.is_over})

    def anew(self, placement: Placement, me: int) -> tuple[Meeting, dict[int, Given]]:
        """The call at other places, to be begun with what is here of it; this one is over."""
        holder = self.machine.holder(placement, me)
        of = self._pool, self._spill, self._outside, self._moving
        machine = holder or Collective(placement, me, directly=True, refusal=self.refusal)
        new = Meeting(self._swarm_id, placement, me, *of, machine)
        new.kernel = self.kernel
        given: dict[int, Given] = {}
        if holder is not None:
            self._memory.hand_over(holder.outcome.buffers, new._memory)
        else:
            for rank in placement.ranks[me]:
                if (one := self.giving.take_out(rank)) is not None:
                    given[rank] = one
        self.end()
        return new, given

    def begin(self, given: Mapping[int, Given], values: Mapping[Buffer, Piece]) -> None:
        """After `anew`, or from disk, with the `values` of its outcome that are not here yet."""
        self._memory.restore(values)
        if isinstance(self.machine, Holder):
            outcome = self.machine.outcome
            self._perform([Deliver(rank, outcome) for rank in self.placement.ranks[self._me]])
            self._close()
        for rank, one in given.items():
            small = {} if one.refusal else ridden(one.entry, rank, self.placement)
            data = {to: bytes_of(one.pieces[buffer].view) for to, buffer in small.items()}
            self.contribute(rank, one, data)

    # --- what is kept -------------------------------------------------------------------------

    def piece(self, buffer: Buffer) -> Piece:
        """Of an outcome. Raises KeptNoLonger, and OSError."""
        return self._memory.kept(buffer)

    def readings(self, buffers: Iterable[Buffer]) -> list[Reading]:
        """Of an outcome."""
        return [self._memory.reading(buffer) for buffer in buffers]

    @property
    def small(self) -> int:
        """Bytes that `spill` moves."""
        return self._memory.small + self.giving.small

    def spill(self) -> bool:
        """Moves small values of outcomes onto disk; false if there are none. Raises NoRoom."""
        return self._memory.spill() or self.giving.spill()

    def let_go(self) -> bool:
        """Lets go of what members gave; false if there is nothing of it. Of one that is over."""
        mine = self._only_given()
        if not mine and not self.giving.is_aside:
            return False
        self.has_let_go = True
        self.giving.forget()
        self._memory.drop(mine)
        return True

    @property
    def given(self) -> Footprint:
        """What `let_go` gives back."""
        return self._memory.footprint(self._only_given()).plus(self.giving.footprint)

    def _only_given(self) -> set[Buffer]:
        """What members gave and nobody got."""
        given = self.giving.buffers
        return given - self._of_outcomes() if given else given

    def end(self) -> None:
        """Nobody will ask for it any more: what is on its way is given up."""
        for move in list(self._moves.values()):
            if not move.is_over:
                move.is_over = True
                self._moving.cancel(self, move.transfer, sends=move.sends)
        self.is_over = self.is_gone = True
        self._memory.end()
        self.giving.end()
