"""All transfers between this side and one peer. Pure: no socket, no clock, no bytes.

Each side may send and receive; a transfer has an id that its sender uses once. Its sender opens it,
its receiver expects it, in any order, and the receiver's credit moves the rest (`bulk.flow`):

    sending     queued --room--> open --first credit--> chunks --all acknowledged--> ended
                open --connection lost--> reopened on the next one, from the receiver's position
    receiving   expected --opened--> chunks --last one--> ended
                opened --expected--> ...    opened --nobody expects it in time--> refused

Who expects a transfer gives the first credit at once: a sender that comes later need not wait.

Credit reserves no memory, since chunks are written where they belong; so each transfer has its own
window and none waits for another's. It is told in steps (`report`), and the allowance of all
transfers together exceeds all steps: none is held up by what others do not report.

What a peer may have open is bounded, and counts until the last answer to it has left; so whatever
is kept here for a peer is bounded, too. Answers may be lost with a connection: how the last
transfers ended is remembered, for as many as a peer can ask again.

Memory of a transfer is in hand while a chunk is read from it or written to it: that a transfer
ended is told after that, and then the memory is the caller's again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from manta.transports.bulk.flow import Allowance, FlowViolation, Receiver, Sender
from manta.transports.errors import (
    BulkError,
    LocalTransportError,
    RemoteProtocolError,
    TransferCancelled,
    TransferRefused,
)
from manta.transports.sealed.options import Pace, PeerOptions
from manta.transports.sealed.records import TRANSFER, Head, Kind, as_text

Side = Literal["sending", "receiving"]
_REFUSED, _CANCELLED = 0, 1  # codes of REFUSE


class Progress(NamedTuple):
    """So many bytes from the start have arrived there."""

    side: Side
    transfer: bytes
    upto: int


class Ended(NamedTuple):
    """The transfer is complete, or failed."""

    side: Side
    transfer: bytes
    error: BulkError | None


Event = Progress | Ended


class Said(NamedTuple):
    """What is to be sent; of a chunk, the bytes are the caller's to add."""

    head: Head
    text: bytes | None = None


@dataclass
class _Sending:
    size: int
    sender: Sender
    told: int = 0  # of its progress
    in_hand: bool = False


@dataclass
class _Receiving:
    size: int
    receiver: Receiver
    told: int = -1  # what was received when credit was told on this connection, if it was
    is_open: bool = False
    in_hand: bool = False


class _Opened(NamedTuple):
    """By the peer; nobody here expects it yet."""

    size: int
    since: float


@dataclass
class _Outbox:
    """What is to be said on this connection, before any chunk."""

    answers: dict[bytes, Said] = field(default_factory=dict)  # the last word on a transfer
    credits: dict[bytes, None] = field(default_factory=dict)
    cancels: dict[bytes, Said] = field(default_factory=dict)
    opens: dict[bytes, None] = field(default_factory=dict)


class Transfers:
    """With one peer. Local calls raise LocalTransportError where they make no sense."""

    def __init__(self, options: PeerOptions) -> None:
        self.up = False
        self._options = options
        self._pace = options.pace
        self._allowance = Allowance(options.pace.allowance)
        self._sending: dict[bytes, _Sending] = {}
        self._queued: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # size, ready
        self._sendable: dict[bytes, None] = {}  # whose turn it is, in order
        self._starved: dict[bytes, None] = {}  # which wait for the allowance
        self._granted: OrderedDict[bytes, int] = OrderedDict()  # limits that came early
        self._receiving: dict[bytes, _Receiving] = {}
        self._opened: dict[bytes, _Opened] = {}
        self._theirs: set[bytes] = set()  # which the peer has open, as far as it can know
        self._past: OrderedDict[bytes, Said] = OrderedDict()  # last words on what it had open
        self._unwanted: OrderedDict[bytes, Said] = OrderedDict()  # on what it had not
        self._out = _Outbox()
        self._ending: dict[tuple[Side, bytes], Ended] = {}  # as soon as they are in no hand
        self._events: list[Event] = []

    # --- local calls -------------------------------------------------------------------------

    def send(self, transfer: bytes, size: int, ready: int) -> None:
        """Send so many bytes, of which the first `ready` are there. Raises BulkError, too."""
        self._check_new(transfer, "sending", transfer in self._queued or transfer in self._sending)
        if len(self._queued) >= self._options.queued:
            raise BulkError(
                f"{len(self._queued)} transfers wait for this peer already: wait for some to end"
            )
        self._queued[transfer] = size, ready
        self._open_more()

    def ready(self, transfer: bytes, upto: int) -> None:
        """More of a transfer that is sent is there; no effect once it has ended."""
        if transfer in self._queued:
            size, ready = self._queued[transfer]
            self._queued[transfer] = size, max(ready, min(upto, size))
        elif transfer in self._sending:
            one = self._sending[transfer]
            one.sender.ready = max(one.sender.ready, min(upto, one.size))
            self._sendable[transfer] = None

    def cancel(self, transfer: bytes, why: str) -> None:
        """End a transfer that is sent; no effect once it has ended."""
        error = TransferCancelled(why)
        if self._queued.pop(transfer, None) is not None:
            self._events.append(Ended("sending", transfer, error))
        elif transfer in self._sending:
            if self.up and transfer not in self._out.opens:
                self._out.cancels[transfer] = Said(*_with_text(Kind.CANCEL, transfer, why))
            self._end_sending(transfer, error)
            self._open_more()

    def expect(self, transfer: bytes, size: int) -> None:
        """Receive so many bytes."""
        self._check_new(transfer, "receiving", transfer in self._receiving)
        one = _Receiving(size, Receiver(size, self._pace.window_of(size)))
        one.receiver.grant()
        self._receiving[transfer] = one
        opened = self._opened.pop(transfer, None)
        if opened is not None:
            self._begin(transfer, one, opened.size)
        elif self.up and size and len(self._receiving) <= self._options.open:
            self._out.credits[transfer] = None

    def refuse(self, transfer: bytes, why: str) -> None:
        """End a transfer that is received, or is not to be; no effect once it has ended."""
        one = self._receiving.get(transfer)
        if one is not None:
            self._last_word(transfer, _refusal(transfer, why, _CANCELLED), told=one.is_open)
            self._end_receiving(transfer, TransferCancelled(why))
        elif transfer not in self._past and transfer not in self._unwanted:
            told = self._opened.pop(transfer, None) is not None
            self._last_word(transfer, _refusal(transfer, why, _REFUSED), told=told)

    def fail(self, error: BulkError) -> None:
        """End all transfers with this error; the peer is not told."""
        for transfer in [*self._queued]:
            self._events.append(Ended("sending", transfer, error))
        self._queued.clear()
        for transfer in [*self._sending]:
            self._end_sending(transfer, error)
        for transfer in [*self._receiving]:
            self._end_receiving(transfer, error)

    def tick(self, now: float) -> None:
        """Refuse what nobody has expected for too long."""
        patience = self._options.patience
        for transfer, opened in [*self._opened.items()]:
            if now - opened.since < patience:
                break  # they are in the order in which they came
            self.refuse(transfer, f"the receiver did not expect it within {patience:g} s")

    @property
    def pending(self) -> bool:
        """May `take` have something?"""
        out = self._out
        said = out.answers or out.credits or out.cancels or out.opens
        return self.up and bool(said or self._sendable)

    @property
    def eventful(self) -> bool:
        """Has something come about since?"""
        return bool(self._events)

    def events(self) -> list[Event]:
        """What has come about since the last call."""
        events, self._events = self._events, []
        return events

    # --- the connection ----------------------------------------------------------------------

    def connected(self, pace: Pace) -> None:
        self.up = True
        self._pace = pace
        self._allowance.total = pace.allowance
        for sending in self._sending.values():
            sending.sender.chunk = pace.chunk_of(sending.size)
        for receiving in self._receiving.values():
            receiving.receiver.window = pace.window_of(receiving.size)
            receiving.receiver.grant()  # what was granted may be less than is reported at once
        self._out.opens.update(dict.fromkeys(self._sending))
        self._open_more()

    def lost(self) -> None:
        """Nothing more comes of this connection, and no chunk is in hand for it."""
        self.up = False
        self._out = _Outbox()
        self._sendable.clear()
        self._starved.clear()
        self._theirs.clear()
        self._opened.clear()
        for sending in self._sending.values():
            sending.sender.pause()
        self._granted.clear()
        for receiving in self._receiving.values():
            receiving.is_open = False
            receiving.told = -1

    def received(self, head: Head, text: str, now: float) -> None:
        """Handle all but a chunk. Raises RemoteProtocolError, which costs the connection."""
        transfer = head.transfer
        if head.kind is Kind.OPEN:
            self._opened_by_peer(transfer, head.limit, now)
        elif head.kind is Kind.CREDIT:
            self._credited(transfer, head.offset, head.limit)
        elif head.kind is Kind.REFUSE:
            if transfer in self._sending:
                kind = TransferCancelled if head.code == _CANCELLED else TransferRefused
                self._end_sending(transfer, kind(f"the receiver says: {text}"))
                self._open_more()
        elif head.kind is Kind.CANCEL:
            self._cancelled_by_peer(transfer, text)

    def lands(self, head: Head) -> bool:
        """Whether a chunk that comes now is to be written to its place, or read and forgotten.

        If so, `landed` must follow. Raises RemoteProtocolError.
        """
        one = self._receiving.get(head.transfer)
        if one is None or not one.is_open:
            if head.transfer not in self._past:
                raise RemoteProtocolError("a chunk of a transfer that was not granted")
            return False  # it was under way when the transfer ended here
        if head.limit != one.size:
            raise FlowViolation(f"a chunk of {head.limit} bytes in all, not {one.size}")
        one.in_hand = one.receiver.expects(head.offset, head.length)
        return one.in_hand

    def landed(self, head: Head, *, whole: bool) -> None:
        """The chunk is where it belongs; or not `whole`, and the connection is to be given up."""
        transfer = head.transfer
        one = self._receiving.get(transfer)
        if one is None:
            self._out_of_hand("receiving", transfer)
            return
        one.in_hand = False
        if not whole:
            return
        one.receiver.chunk(head.offset, head.length)
        self._events.append(Progress("receiving", transfer, one.receiver.received))
        if one.receiver.complete:
            self._complete(transfer, one)
        elif one.receiver.received - one.told >= self._pace.report_of(one.size):
            self._out.credits[transfer] = None

    def has_open(self, transfer: bytes) -> bool:
        """Does the peer have it open?"""
        return transfer in self._theirs

    def take(self) -> Said | None:
        """What is to be sent next, if anything is; after a chunk, `sent` must follow."""
        if not self.up:
            return None
        out = self._out
        if out.answers:
            transfer = next(iter(out.answers))
            self._theirs.discard(transfer)
            return out.answers.pop(transfer)
        if out.credits:
            transfer = next(iter(out.credits))
            del out.credits[transfer]
            one = self._receiving[transfer]
            one.told, limit = one.receiver.position()
            return Said(Head(Kind.CREDIT, transfer, one.told, limit))
        if out.cancels:
            said = out.cancels.pop(next(iter(out.cancels)))
            self._open_more()
            return said
        if out.opens:
            transfer = next(iter(out.opens))
            del out.opens[transfer]
            return Said(Head(Kind.OPEN, transfer, 0, self._sending[transfer].size))
        return self._chunk()

    def sent(self, head: Head) -> None:
        """The bytes of a chunk are needed no longer."""
        one = self._sending.get(head.transfer)
        if one is not None:
            one.in_hand = False
        else:
            self._out_of_hand("sending", head.transfer)

    # --- sending -----------------------------------------------------------------------------

    def _open_more(self) -> None:
        used = len(self._sending) + len(self._out.cancels)
        while self._queued and used < self._options.open:
            transfer, (size, ready) = self._queued.popitem(last=False)
            sender = Sender(size, self._pace.chunk_of(size), self._allowance, ready=ready)
            self._sending[transfer] = _Sending(size, sender)
            used += 1
            if self.up:
                self._out.opens[transfer] = None
                if transfer in self._granted:
                    self._credited(transfer, 0, self._granted.pop(transfer))

    def _credited(self, transfer: bytes, received: int, limit: int) -> None:
        one = self._sending.get(transfer)
        if one is None:
            if not received:  # it comes later, or was cancelled
                self._granted[transfer] = limit
                if len(self._granted) > self._options.open:
                    self._granted.popitem(last=False)
            return
        if received and transfer in self._out.opens:
            raise RemoteProtocolError("it acknowledges what was not sent")
        if not one.sender.paused:
            one.sender.credit(received, limit)
        elif limit <= one.size:
            one.sender.start(received, limit)
        else:
            return  # for another size: OPEN is going to be refused
        if received > one.told:
            one.told = received
            self._events.append(Progress("sending", transfer, received))
        self._sendable |= self._starved
        self._starved.clear()
        self._sendable[transfer] = None
        if one.sender.done:
            self._end_sending(transfer, None)
            self._open_more()

    def _chunk(self) -> Said | None:
        while self._sendable:
            transfer = next(iter(self._sendable))
            del self._sendable[transfer]
            one = self._sending[transfer]
            piece = one.sender.take()
            if piece is not None:
                self._sendable[transfer] = None  # after all others
                one.in_hand = True
                return Said(Head(Kind.CHUNK, transfer, piece.offset, one.size, piece.length))
            if one.sender.sendable > 0:
                self._starved[transfer] = None
        return None

    def _end_sending(self, transfer: bytes, error: BulkError | None) -> None:
        one = self._sending.pop(transfer)
        one.sender.pause()
        self._out.opens.pop(transfer, None)
        self._sendable.pop(transfer, None)
        self._starved.pop(transfer, None)
        self._sendable |= self._starved  # the allowance has room
        self._starved.clear()
        self._end(Ended("sending", transfer, error), in_hand=one.in_hand)

    # --- receiving ---------------------------------------------------------------------------

    def _opened_by_peer(self, transfer: bytes, size: int, now: float) -> None:
        if transfer in self._theirs:
            raise RemoteProtocolError("it opened one transfer twice")
        if len(self._theirs) >= self._options.open:
            raise RemoteProtocolError(f"it opened more than {self._options.open} transfers")
        self._theirs.add(transfer)
        one = self._receiving.get(transfer)
        if one is not None:
            self._begin(transfer, one, size)
        elif transfer in self._past or transfer in self._unwanted:
            said = self._past.get(transfer) or self._unwanted[transfer]
            self._last_word(transfer, said, told=True)
        else:
            self._opened[transfer] = _Opened(size, now)

    def _begin(self, transfer: bytes, one: _Receiving, size: int) -> None:
        """It is expected, and was opened."""
        if size != one.size:
            why = f"the receiver expects {one.size} bytes, and the sender has {size}"
            self._last_word(transfer, _refusal(transfer, why, _REFUSED), told=True)
            self._end_receiving(transfer, TransferRefused(why))
            return
        one.is_open = True
        if one.receiver.complete:  # it is empty
            self._complete(transfer, one)
        elif one.told < 0:
            self._out.credits[transfer] = None

    def _complete(self, transfer: bytes, one: _Receiving) -> None:
        self._last_word(transfer, Said(Head(Kind.CREDIT, transfer, one.size, one.size)), told=True)
        self._end_receiving(transfer, None)

    def _cancelled_by_peer(self, transfer: bytes, text: str) -> None:
        self._theirs.discard(transfer)
        self._out.answers.pop(transfer, None)
        self._opened.pop(transfer, None)
        one = self._receiving.get(transfer)
        if one is not None and one.is_open:
            self._end_receiving(transfer, TransferCancelled(f"the sender says: {text}"))
            said = _refusal(transfer, "its sender cancelled it", _CANCELLED)
            self._remember(transfer, said, self._past)

    def _end_receiving(self, transfer: bytes, error: BulkError | None) -> None:
        one = self._receiving.pop(transfer)
        self._out.credits.pop(transfer, None)
        self._end(Ended("receiving", transfer, error), in_hand=one.in_hand)

    def _last_word(self, transfer: bytes, said: Said, *, told: bool) -> None:
        """To be said now, if the peer has it open, and whenever it opens it again."""
        if told:
            self._out.answers[transfer] = said
        self._remember(transfer, said, self._past if told else self._unwanted)

    def _remember(self, transfer: bytes, said: Said, among: OrderedDict[bytes, Said]) -> None:
        among[transfer] = said
        # A peer asks again only for what it has open, of which the answers are the latest.
        most = (2 if among is self._past else 16) * self._options.open
        while len(among) > most:
            among.popitem(last=False)

    # --- both --------------------------------------------------------------------------------

    def _check_new(self, transfer: bytes, side: Side, known: bool) -> None:
        if len(transfer) != TRANSFER:
            raise LocalTransportError(
                f"a transfer's id has {TRANSFER} bytes, not {len(transfer)}: use a digest's first"
            )
        if known or (side, transfer) in self._ending:
            raise LocalTransportError(
                f"the transfer {transfer.hex()} is {side} already: use each id once"
            )

    def _end(self, ended: Ended, *, in_hand: bool) -> None:
        if in_hand:
            self._ending[ended.side, ended.transfer] = ended
        else:
            self._events.append(ended)

    def _out_of_hand(self, side: Side, transfer: bytes) -> None:
        ended = self._ending.pop((side, transfer), None)
        if ended is not None:
            self._events.append(ended)


def _with_text(kind: Kind, transfer: bytes, sentence: str, code: int = 0) -> tuple[Head, bytes]:
    text = as_text(sentence)
    return Head(kind, transfer, length=len(text), code=code), text


def _refusal(transfer: bytes, sentence: str, code: int) -> Said:
    return Said(*_with_text(Kind.REFUSE, transfer, sentence, code))
