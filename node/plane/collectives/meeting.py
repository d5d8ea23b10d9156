"""One collective on this plane: its machine, its memory, and who waits for what comes of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

from manta.node.plane.collectives.memory import Block, Pool
from manta.node.plane.parcels import NoRoom
from manta.node.reduction.kernel import Kernel, Source
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
)
from manta.transports.collectives.calls import Entry, Kind, Placement
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.holder import Holder
from manta.transports.collectives.messages import Message
from manta.transports.collectives.planner import ridden
from manta.transports.collectives.plans import Buffer, Span, Transfer
from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange.messages import Parcel

INLINE = 64 * 1024
"""Bytes up to which memory is no block of its own."""
AT_ONCE = 512 * 1024
"""Bytes of all sources that are reduced on the plane's thread: 0.1 ms, where to have another do it
costs as much."""


class Piece(NamedTuple):
    """Bytes of a buffer, or of what a member gave, and what they lie in."""

    view: memoryview
    block: Block | None = None
    parcel: Parcel | None = None
    offset: int = 0
    """Where in the parcel they begin."""


@dataclass(frozen=True)
class Given:
    """What a member brings to the call."""

    entry: Entry
    pieces: Mapping[Buffer, Piece]
    kernel: Kernel | None = None


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

    def expect(self, meeting: Meeting, transfer: Transfer, memory: memoryview) -> None:
        """`meeting.received`, then `meeting.has_ended` follow."""

    def send(self, meeting: Meeting, transfer: Transfer, memory: memoryview) -> None:
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


@dataclass
class _Memory:
    """What the buffers of a meeting lie in."""

    swarm_id: str
    pool: Pool
    outside: Outside
    pieces: dict[Buffer, Piece] = field(default_factory=dict)

    def of(self, buffer: Buffer) -> Piece:
        """Made at first mention. Raises NoRoom."""
        found = self.pieces.get(buffer)
        if found is None:
            if buffer.size <= INLINE:
                found = Piece(memoryview(bytearray(buffer.size)))
            else:
                block = self.pool.take(buffer.size, self.swarm_id)
                found = Piece(block.view[: buffer.size], block)
            self.pieces[buffer] = found
        return found

    def span(self, span: Span) -> memoryview:
        """Raises NoRoom."""
        first = span.buffer.start
        return self.of(span.buffer).view[span.start - first : span.stop - first]

    def drop(self, buffers: Iterable[Buffer]) -> None:
        parcels = {}
        for buffer in buffers:
            piece = self.pieces.pop(buffer, None)
            if piece is None:
                continue
            if piece.block is not None:
                self.pool.drop(piece.block)
            if piece.parcel is not None:
                parcels[piece.parcel.id] = piece.parcel
        for parcel in parcels.values():
            self.outside.release(parcel)


class Meeting:
    """All of it on the plane's thread."""

    def __init__(
        self,
        swarm_id: str,
        placement: Placement,
        me: int,
        pool: Pool,
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
        self._outside = outside
        self._moving = moving
        self._memory = _Memory(swarm_id, pool, outside)
        self._moves: dict[str, _Move] = {}
        self._actions: deque[Action] = deque()
        self._is_performing = False
        self._given: dict[int, Given] = {}
        """By rank: what members here gave, for as long as the call may be begun anew with it."""
        self._outcomes: dict[int, Outcome] = {}
        self.is_over = False
        """Nothing is carried out any more, and no memory kept."""

    @property
    def kind(self) -> Kind | None:
        return None if self.machine.call is None else self.machine.call.kind

    # --- what happens -------------------------------------------------------------------------

    def contribute(self, rank: int, given: Given, data: dict[int, bytes]) -> None:
        """A member makes the call. What it brings is the meeting's from now on, or dropped if it
        was there. Raises ValueError for what no member can bring."""
        is_first = rank not in self.machine.come
        if is_first and not self.is_over:
            self._memory.pieces.update(given.pieces)
            self._given[rank] = given
            self.kernel = self.kernel or given.kernel
        try:
            actions = self.machine.contributed(rank, given.entry, data)
        except ValueError:
            if is_first:
                self._memory.drop(list(given.pieces))
                self._given.pop(rank, None)
            raise
        if not is_first or self.is_over:
            other = _Memory(self._swarm_id, self._pool, self._outside, dict(given.pieces))
            other.drop(list(given.pieces))
        self._perform(actions)

    def heard(self, peer: int, message: Message) -> None:
        """Raises RemoteProtocolError."""
        try:
            actions = self.machine.heard(peer, message)
        except RemoteProtocolError:
            raise
        except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
            raise RemoteProtocolError(f"peer {peer} says what makes no sense: {error}") from error
        self._perform(actions)

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
        if move.sends:
            self._perform(self.machine.sent(key))
        elif why is None:
            return
        elif why:
            node = self.placement.nodes[move.transfer.peer]
            sentence = f"What {node} was to send for it did not arrive: {why}"
            self._perform(self.machine.abort("RequestFailed", sentence))
        else:
            span = move.transfer.span
            self._perform(self.machine.received(key, span.stop - span.start))

    def peer_lost(self, peer: int, why: str, ended: Iterable[int] = ()) -> None:
        self._perform(self.machine.peer_lost(peer, why, ended))

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
                    self._actions.clear()
                    self._actions.extend(self.machine.abort("ResourceExhaustionError", str(error)))
        finally:
            self._is_performing = False
        if self.machine.has_taken_over and (holder := self._holder()) is not None:
            was_closed, self.machine = self.machine.is_closed, holder
            if not was_closed:
                self._close()
        if self.machine.has_failed and not self.is_over:
            self._end(keeps=self.machine.failure[0] != "CollectiveError")

    def _do(self, action: Action) -> None:
        """Raises NoRoom."""
        match action:
            case Tell(peer, message):
                self._outside.tell(self, peer, message)
            case Store(buffer, data):
                self._memory.pieces[buffer] = Piece(memoryview(data))
            case Forget(buffer):
                self._memory.drop([buffer])
            case Expect(transfer):
                view = self._memory.span(transfer.span)
                self._begin(transfer, sends=False)
                self._moving.expect(self, transfer, view)
            case Send(transfer):
                view = self._memory.span(transfer.span)
                self._begin(transfer, sends=True)
                self._moving.send(self, transfer, view)
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

    def _begin(self, transfer: Transfer, *, sends: bool) -> None:
        piece = self._memory.of(transfer.span.buffer)
        if piece.block is not None:
            self._pool.hold(piece.block)
        self._moves[transfer.key] = _Move(transfer, piece, sends)

    def _reduce(self, order: Reduce) -> None:
        """Raises NoRoom."""
        kernel = self.kernel
        assert kernel is not None, "nothing is reduced before a member here has called"
        number, target, spans, members = order
        into = self._memory.span(target)
        sources = [Source(self._memory.span(span), span.buffer.is_interim) for span in spans]
        job = partial(kernel.reduce, target.start, into, sources, members)
        if len(into) * len(sources) <= AT_ONCE:
            self._actions.extend(self.machine.reduced(number, job()))
            return
        pieces = [self._memory.of(span.buffer) for span in (target, *spans)]
        blocks = [piece.block for piece in pieces if piece.block is not None]
        for block in blocks:
            self._pool.hold(block)
        note = [b""]

        def work() -> None:
            note[0] = job()

        def then(error: Exception | None) -> None:
            for block in blocks:
                self._pool.drop(block)
            if self.is_over:
                return
            if error is None:
                self._perform(self.machine.reduced(number, note[0]))
            else:
                self.abort("RequestFailed", f"A reduction failed: {error}")

        self._outside.work(work, then)

    def _close(self) -> None:
        """Only what next attempts may be given is kept, and what others may need again."""
        kept = {buffer for outcome in self._outcomes.values() for buffer in outcome.buffers}
        kept |= self._given_buffers() if self._is_needed_again else set()
        if (holder := self._holder()) is not None:
            kept.update(holder.outcome.buffers)
        self._memory.drop([one for one in self._memory.pieces if one not in kept])
        self._outside.closed(self)

    def _holder(self) -> Holder | None:
        """What gives the outcome that is here to others, should they begin the call anew."""
        return self.machine.holder(self.placement, self._me)

    @property
    def _is_needed_again(self) -> bool:
        """Could others, that forget, not get it with the outcome?"""
        call = self.machine.call
        if call is None or call.kind is Kind.REDUCE_SCATTER:
            return True
        return call.kind.has_root and not (
            call.kind is Kind.GATHER and self.machine.has_delivered(call.root)
        )

    def _given_buffers(self) -> set[Buffer]:
        return {buffer for given in self._given.values() for buffer in given.pieces}

    def _end(self, *, keeps: bool) -> None:
        """`keeps` what members gave."""
        self.is_over = True
        kept = self._given_buffers() if keeps else set()
        self._memory.drop([one for one in self._memory.pieces if one not in kept])

    # --- begun anew ---------------------------------------------------------------------------

    def anew(self, placement: Placement, me: int) -> tuple[Meeting, dict[int, Given]]:
        """The call at other places, to be begun with what is here of it; this one is over."""
        holder = self.machine.holder(placement, me)
        outside = self._outside, self._moving
        machine = holder or Collective(placement, me, directly=True)
        new = Meeting(self._swarm_id, placement, me, self._pool, *outside, machine)
        new.kernel = self.kernel
        pieces = self._memory.pieces
        given: dict[int, Given] = {}
        if holder is not None:
            new._outcomes = dict.fromkeys(placement.ranks[me], holder.outcome)
            kept = holder.outcome.buffers
            new._memory.pieces = {buffer: pieces.pop(buffer) for buffer in kept}
        else:
            for rank in placement.ranks[me]:
                one = self._given.get(rank)
                if one is not None and pieces.keys() >= one.pieces.keys():
                    given[rank] = one
                    for buffer in one.pieces:
                        del pieces[buffer]
        self.end()
        return new, given

    def begin(self, given: Mapping[int, Given]) -> None:
        """Of one that was begun anew."""
        if isinstance(self.machine, Holder):
            self._close()
        for rank, one in given.items():
            small = ridden(one.entry, rank, self.placement)
            data = {to: bytes(one.pieces[buffer].view) for to, buffer in small.items()}
            self.contribute(rank, one, data)

    # --- what is kept -------------------------------------------------------------------------

    def piece(self, buffer: Buffer) -> Piece:
        """Of an outcome."""
        return self._memory.of(buffer)

    @property
    def kept(self) -> int:
        """Bytes."""
        return sum(len(piece.view) for piece in self._memory.pieces.values())

    def end(self) -> None:
        """Nobody will ask for it any more: what is on its way is given up."""
        for move in list(self._moves.values()):
            if not move.is_over:
                move.is_over = True
                self._moving.cancel(self, move.transfer, sends=move.sends)
        self._end(keeps=False)
