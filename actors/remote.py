"""References to actors of other processes, and the traffic of one link.

Everything that arrives is handled on the transport's I/O thread, which never
blocks: requests go into mailboxes, and answers directly to the asker. A peer
that sends what the protocol or the receiver's `accepts` does not allow loses its
link. Only published paths can be reached; any other looks like a path without
an actor.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

import msgspec

from manta.actors import wire
from manta.actors.address import ANY, Address
from manta.actors.cell import Cell, Host, refuse_if_abandoned
from manta.actors.errors import (
    ActorCrashed,
    ActorDead,
    ActorError,
    AnswerLost,
    InvalidMessage,
    MailboxFull,
    Unreachable,
)
from manta.actors.exits import ExitKind, ExitReason
from manta.actors.refs import Envelope
from manta.actors.replies import BlockingReply, FutureReply, Reply, valid_seconds
from manta.actors.shares import BYTES, GUEST_BYTES, GUEST_MESSAGES, MESSAGES, Share, Shares
from manta.transports.codec.decoders import MALFORMED, msgpack_decoder
from manta.transports.errors import DownReason, PeerError, RemoteProtocolError

if TYPE_CHECKING:
    from manta.transports.interface import Buffer, Link

log = logging.getLogger("manta.actors")

TELL_TTL = 30.0  # seconds that a told message may wait, by default
WATCHES_PER_LINK = 10_000
ASKS_PER_LINK = 10_000  # that are unanswered at one time
ASKED_PER_LINK = 16 << 20  # bytes of them; one that is larger may be alone
MOST_SHOWN = 300  # characters of what a peer wrote, in the log


class Peer:
    """The traffic of one link: our asks and watches at the peer, and the peer's here.

    It is the Origin of what the peer sends.
    """

    def __init__(self, host: Host, published: frozenset[str], shares: Shares | None = None) -> None:
        """`shares`: of the listener, if the link was accepted by one."""
        self.host = host
        self.published = published
        self._shares = shares
        self._share = Share()
        self._link: Link | None = None
        self._lock = threading.Lock()
        self._last_id = 0
        self._told = 0  # messages without an answer, of which the peer may say what became
        self._asks: dict[int, tuple[Reply, Any]] = {}
        self._watches: dict[int, Callable[[ExitReason], None]] = {}  # of actors there
        self._watched: dict[int, Callable[[], None]] = {}  # actors here, and how to unwatch them
        self._owed: dict[int, int] = {}  # the peer's asks that have no answer yet, and their bytes
        self._owed_bytes = 0

    @property
    def link(self) -> Link:
        if self._link is None:
            raise Unreachable("the link was never up")
        return self._link

    @link.setter
    def link(self, link: Link) -> None:
        self._link = link
        if self._shares is not None:
            self._share = self._shares.of(link.peer_key)

    @property
    def peer_key(self) -> str:
        return self.link.peer_key

    @property
    def is_revoked(self) -> bool:
        """Whether this side has cut the peer off: what it sent before is no longer handled."""
        return self._link is not None and self._link.state is DownReason.REVOKED

    def ref(self, path: str, incarnation: int = ANY) -> RemoteRef:
        """Returns a reference to an actor that the peer has published."""
        if not 0 < len(path) <= wire.PATH_MAX:
            raise ValueError(f"A path has 1 to {wire.PATH_MAX} characters, not {len(path)}.")
        return RemoteRef(self, Address(self.peer_key[:8], path, incarnation))

    # --- what we send ------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Sends one frame; raises Unreachable."""
        try:
            self.link.send([message])
        except PeerError as error:
            raise Unreachable(str(error)) from error

    def _next_id(self) -> int:
        with self._lock:
            self._last_id += 1
            return self._last_id

    def ask(self, message: Any, ref: Address, timeout: float, reply: Reply) -> int:
        """Sends an ask and returns its id; `reply` gets the answer. Raises Unreachable."""
        valid_seconds(timeout)
        body = msgspec.Raw(wire.encode(message))
        id = self._next_id()
        self._asks[id] = reply, reply_type(message)
        try:
            self.send(wire.encode(wire.Ask(id, ref.path, ref.incarnation, timeout, body)))
        except BaseException:
            self._asks.pop(id, None)
            raise
        return id

    def tell(self, message: bytes) -> None:
        """Sends a message that gets no answer. Raises Unreachable."""
        with self._lock:
            self._told += 1
        self.send(message)

    def forget(self, id: int) -> None:
        self._asks.pop(id, None)

    def watch(self, address: Address, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        id = self._next_id()
        self._watches[id] = notify
        try:
            self.send(wire.encode(wire.Watch(id, address.path, address.incarnation)))
        except Unreachable as error:
            if self._watches.pop(id, None) is not None:
                notify(ExitReason(ExitKind.DISCONNECTED, str(error)))

        def unwatch() -> None:
            if self._watches.pop(id, None) is not None:
                self._try_send(wire.Unwatch(id))

        return unwatch

    def _try_send(self, message: wire.Wire) -> None:
        """Sends what does not matter once the link is lost, for then the peer knows."""
        try:
            self.send(wire.encode(message))
        except Unreachable as error:
            log.debug("%s not sent: %s", type(message).__name__, error)

    # --- what arrives, on the I/O thread -------------------------------------------------

    def received(self, message: list[Buffer]) -> None:
        """Handles one message; raises RemoteProtocolError."""
        if len(message) != 1:
            raise RemoteProtocolError(f"{len(message)} frames where a message has one")
        header = self._decode(wire.decode, message[0], "header")
        match header:
            case wire.Ask(id, path, incarnation, ttl, body):
                self._asked(id, path, incarnation, ttl, body)
            case wire.Answer(id, body):
                self._answered(id, body)
            case wire.Tell(path, incarnation, ttl, body):
                self._deliver(path, incarnation, ttl, body, TellReply(self, path))
            case wire.Failure(id):
                self._check_id(id)
                ask = self._asks.pop(id, None)
                if ask is not None:
                    ask[0].fail(wire.error_of(header))
            case wire.Undelivered(path, kind, sentence):
                self._undelivered(path, kind, sentence)
            case wire.Watch(id, path, incarnation):
                self._watch(id, path, incarnation)
            case wire.Unwatch(id):
                cancel = self._watched.pop(id, None)
                if cancel is not None:
                    cancel()
            case wire.Gone(id, kind, sentence):
                self._check_id(id)
                notify = self._watches.pop(id, None)
                if notify is not None:
                    notify(ExitReason(kind, sentence))
            case _:
                assert_never(header)

    def _decode(self, decode: Callable[[Any], Any], data: Any, what: str) -> Any:
        try:
            return decode(data)
        except MALFORMED as error:
            # Without its cause, whose text may quote all that came.
            raise RemoteProtocolError(f"invalid {what}: {_shown(str(error))}") from None

    def _undelivered(self, path: str, kind: str, sentence: str) -> None:
        """At most one for each message that was told, so that a peer cannot fill the log."""
        with self._lock:
            if not self._told:
                raise RemoteProtocolError("it says what became of a message that nobody sent")
            self._told -= 1
        said = _shown(path), _shown(kind), _shown(sentence)
        log.warning("a message to %s was not handled (%s): %s", *said)

    def _check_id(self, id: int) -> None:
        if id > self._last_id:
            raise RemoteProtocolError(f"an answer to {id}, which nobody asked")

    def _find(self, path: str, incarnation: int) -> Cell:
        if path not in self.published:
            raise ActorDead(f"nobody lives at {path}")
        cell = self.host.find(path)._cell
        if incarnation not in (ANY, cell.address.incarnation):
            raise ActorDead(f"that incarnation of {path} is dead")
        if cell.accepts is None:
            raise ActorDead(f"nobody lives at {path}")
        return cell

    def _asked(self, id: int, path: str, incarnation: int, ttl: float, body: msgspec.Raw) -> None:
        if id in self._owed:
            raise RemoteProtocolError(f"ask {id} is still unanswered, yet asked again")
        reply = RemoteReply(self, id)
        size, most, full = len(body), ASKS_PER_LINK, ""
        if len(self._owed) >= GUEST_MESSAGES and self._is_guest():
            most = GUEST_MESSAGES
        if len(self._owed) >= most:
            full = f"{most} asks"
        elif self._owed and self._owed_bytes + size > ASKED_PER_LINK:
            full = f"asks of {self._owed_bytes} bytes"
        if full:
            reply.fail(MailboxFull(f"{full} of this link wait for their answers"))
            return
        with self._lock:
            self._owed[id] = size
            self._owed_bytes += size
        self._deliver(path, incarnation, ttl, body, reply)

    def answer(self, id: int, answer: bytes) -> None:
        """Sends the answer to one of the peer's asks; raises Unreachable."""
        self.settle(id)
        self.send(answer)

    def settle(self, id: int) -> None:
        """No answer to this ask is owed any more."""
        with self._lock:
            self._owed_bytes -= self._owed.pop(id, 0)

    def _is_guest(self) -> bool:
        return self._shares is not None and self._shares.is_guest(self.peer_key)

    def _put_among_many(self, size: int) -> None:
        """Counts one more message on the share; raises MailboxFull if it is one too many."""
        most = (GUEST_MESSAGES, GUEST_BYTES) if self._is_guest() else (MESSAGES, BYTES)
        if self._shares is not None:  # it may be another's by now: a guest has signed in
            self._share = self._shares.of(self.peer_key)
        if not self._share.put(size, *most):
            raise MailboxFull(
                f"of this peer {most[0]} messages or {most[1]} bytes wait to be handled: wait for "
                "answers before more is sent"
            )

    def _deliver(
        self, path: str, incarnation: int, ttl: float, body: msgspec.Raw, reply: _PeerReply
    ) -> None:
        try:
            cell = self._find(path, incarnation)
            message = self._decode(msgpack_decoder(cell.accepts).decode, body, f"message to {path}")
            reply.address, reply.expected = cell.address, reply_type(message)
            deadline = self.host.clock.now() + ttl
            size = len(body)
            if not self._share.put_if_few(size):
                self._put_among_many(size)
            reply.share, reply.size = self._share, size
            try:
                cell.inbox.put(Envelope(message, reply, self, deadline))
            except ActorError:
                reply.taken()
                raise
        except ActorError as error:
            reply.fail(error)

    def _answered(self, id: int, body: msgspec.Raw) -> None:
        self._check_id(id)
        ask = self._asks.pop(id, None)
        if ask is None:
            return  # its asker has given up
        reply, expected = ask
        try:
            answer = self._decode(msgpack_decoder(expected).decode, body, "answer")
        except RemoteProtocolError as error:
            reply.fail(InvalidMessage(f"the peer's {error}"))
            raise
        reply.set(answer)

    def _watch(self, id: int, path: str, incarnation: int) -> None:
        if id in self._watched or len(self._watched) >= WATCHES_PER_LINK:
            raise RemoteProtocolError(f"watch {id} is taken, or one more than a link may hold")
        try:
            cell = self._find(path, incarnation)
        except ActorDead as error:
            self._try_send(wire.Gone(id, ExitKind.UNKNOWN, str(error)))
            return

        def notify(reason: ExitReason) -> None:
            if self._watched.pop(id, None) is not None:
                self._try_send(wire.gone(id, reason))

        self._watched[id] = lambda: None
        cancel = cell.watch(notify)
        if id in self._watched:
            self._watched[id] = cancel

    def down(self, reason: DownReason) -> None:
        """Tells everyone who waits for the peer that the link is down."""
        sentence = f"the link is down: {reason}"
        for id in list(self._asks):
            ask = self._asks.pop(id, None)
            if ask is not None:
                ask[0].fail(AnswerLost(f"{sentence}; the request may have been carried out"))
        for id in list(self._watches):
            notify = self._watches.pop(id, None)
            if notify is not None:
                notify(ExitReason(ExitKind.DISCONNECTED, sentence))
        with self._lock:
            self._owed.clear()
            self._owed_bytes = self._told = 0
        for id in list(self._watched):
            cancel = self._watched.pop(id, None)
            if cancel is not None:
                cancel()


class _PeerReply(Reply):
    """Tells a peer what became of its message; address and type of the answer are set later."""

    __slots__ = ("address", "expected", "peer", "share", "size")

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.peer = peer
        self.share: Share | None = None  # on which the message counts while it waits
        self.size = 0
        self.address: Address | None = None
        self.expected: Any = None

    def taken(self) -> None:
        if self.share is not None:
            self.share.take(self.size)


class RemoteReply(_PeerReply):
    """Sends the answer to a peer's ask."""

    __slots__ = ("id",)

    def __init__(self, peer: Peer, id: int) -> None:
        super().__init__(peer)
        self.id = id

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        try:
            self.peer.answer(self.id, self._encode(value, error))
        except Unreachable as unreachable:
            # The peer knows, and may have asked for any number of answers before it left.
            log.debug("%s could not answer: %s", self.address, unreachable)
        except Exception as failed:  # the handler's fault: what it answered cannot be sent
            self.peer.settle(self.id)
            self.peer._try_send(wire.failure(self.id, failed))
            raise

    def _encode(self, value: Any, error: BaseException | None) -> bytes:
        if isinstance(error, ActorCrashed):  # the details stay in our log
            error = ActorCrashed(f"{self.address} crashed; the log of its process says why")
        if error is not None:
            return wire.encode(wire.failure(self.id, error))
        _check_answer(value, self.expected)
        return wire.encode(wire.Answer(self.id, msgspec.Raw(wire.encode(value))))


class TellReply(_PeerReply):
    """Reports to a peer why its tell was not handled; sends nothing otherwise."""

    __slots__ = ("path",)

    def __init__(self, peer: Peer, path: str) -> None:
        super().__init__(peer)
        self.path = path

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        if error is not None:
            said = wire.failure(0, error)
            sentence = "" if said.kind == "crashed" else said.sentence
            self.peer._try_send(wire.Undelivered(self.path, said.code or said.kind, sentence))


@dataclass(frozen=True, slots=True, repr=False)
class RemoteRef:
    """An actor of another process: whichever is at a path, or one incarnation."""

    _peer: Peer
    address: Address

    def tell(self, message: Any, *, ttl: float = TELL_TTL) -> None:
        """Sends a message that expires after `ttl` seconds; raises Unreachable.

        When it is not handled, the peer says why, and that is logged here.
        """
        refuse_if_abandoned()
        path, incarnation = self.address.path, self.address.incarnation
        body = msgspec.Raw(wire.encode(_struct(message)))
        self._peer.tell(wire.encode(wire.Tell(path, incarnation, valid_seconds(ttl), body)))

    def ask(self, message: Any, *, timeout: float) -> Any:
        """Sends a message and blocks for the answer, decoded as the message's `reply`.

        `timeout` is in real seconds. Raises Unreachable, AskTimeout, or what the actor raised.
        """
        refuse_if_abandoned()
        reply = BlockingReply()
        id = self._peer.ask(_struct(message), self.address, timeout, reply)
        try:
            return reply.wait(timeout, self.address)
        finally:
            self._peer.forget(id)

    def ask_future(self, message: Any, *, timeout: float) -> Future[Any]:
        """Sends a message; the I/O thread resolves the future with the answer or the error.

        `timeout` is in seconds of the system's clock.
        """
        peer, reply = self._peer, FutureReply()
        try:
            refuse_if_abandoned()
            id = peer.ask(_struct(message), self.address, timeout, reply)
        except ActorError as error:
            reply.fail(error)
        else:
            reply.on_done = lambda _: peer.forget(id)
            reply.expire(peer.host.deadlines, timeout, self.address)
            reply.fail_when_cancelled()
        return reply.future

    def watch(self, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        return self._peer.watch(self.address, notify)

    def __repr__(self) -> str:
        return f"<RemoteRef {self.address}>"


def _struct(message: Any) -> msgspec.Struct:
    if not isinstance(message, msgspec.Struct):
        raise TypeError(
            f"A {type(message).__name__} cannot cross the wire: send a frozen msgspec.Struct."
        )
    return message


def reply_type(message: Any) -> Any:
    return getattr(type(message), "reply", None)


def _check_answer(value: Any, expected: Any) -> None:
    """Raises TypeError for an answer that would cost this process its link over there."""
    of_struct = isinstance(expected, type) and issubclass(expected, msgspec.Struct)
    if of_struct and not isinstance(value, expected):
        raise TypeError(
            f"answered with a {type(value).__name__} where its message's reply is "
            f"{expected.__name__}"
        )


def _shown(text: str) -> str:
    """What a peer wrote, as a part of one line."""
    text = text[:MOST_SHOWN]
    return text if text.isprintable() else repr(text)
