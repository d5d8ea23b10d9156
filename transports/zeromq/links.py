"""What both ends of a zmq link share: sending, the window, heartbeats, and receiving.

The thread that sends hands its message to zmq itself, under the lock of the link's
socket: that saves two of four thread switches in a round trip. All else happens on
the I/O thread, and the lock is never held while a handler runs.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import zmq
from zmq.backend import Socket as BackendSocket

from manta.transports import frames
from manta.transports.errors import (
    DownReason,
    LinkDown,
    LinkOverflow,
    RemoteProtocolError,
    VersionMismatch,
)
from manta.transports.frames import Bye, Head, Hello, Kind, Limits
from manta.transports.zeromq.intake import FRAME, Bounds, Intake

if TYPE_CHECKING:
    from manta.transports.interface import Buffer, LinkHandler, Message
    from manta.transports.zeromq.io_thread import IoThread
    from manta.transports.zeromq.sockets import Socket
    from manta.transports.zeromq.tcp import TcpConnection

NOBLOCK = int(zmq.NOBLOCK)
EVENTS = int(zmq.EVENTS)
SNDMORE_NOBLOCK = int(zmq.SNDMORE | zmq.NOBLOCK)
POLLIN = int(zmq.POLLIN)
SINGLE_COST = frames.cost([0])
BYE, DATA = int(Kind.BYE), int(Kind.DATA)
COPY_BELOW = 65536  # bytes; larger parts are views of zmq's memory
BATCH = 256  # messages of one socket before the other sockets have their turn
DROPPED = 1000  # surplus parts of a message before others may send
BATCH_TIME = 0.05  # seconds; large messages take longer
FLUSH_INTERVAL = 0.005  # seconds; zmq does not tell when a ROUTER's peer has room again
_MOVING = 1024  # bytes from tick to tick; zmq's own heartbeats, which prove nothing, are fewer
_KIB, _MIB = 1 << 10, 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinkOptions:
    """Times in seconds, sizes in bytes. The window bounds what a slow peer costs."""

    limits: Limits = field(default_factory=Limits)
    window: int = 8 * 1024 * 1024
    heartbeat: float = 1.0  # of silence from the peer, a PING is sent
    silence: float = 5.0  # of silence, the peer is given up
    hello: float = 5.0  # in which a new peer must send HELLO
    message: float = 600.0  # in which a message that began must end: 4 MiB at 7 KB/s

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat < self.silence:
            raise ValueError("heartbeat must be positive and shorter than silence")
        if self.window < 2 * self.limits.message_bytes:
            raise ValueError("the window must hold two of the largest messages")

    @property
    def bounds(self) -> Bounds:
        """What a peer may have on its way."""
        limits = self.limits
        heads = (FRAME + 4) * (limits.parts + 1)
        return Bounds(self.window + _MIB, limits.message_bytes + heads + 256 * _KIB, self.message)


def readable(socket: Socket) -> bool:
    """Has a message arrived? Asking also rearms the socket's descriptor."""
    return bool(socket.get(EVENTS) & POLLIN)  # type: ignore[operator]  # it is an int


def fd_of(socket: Socket) -> int:
    """The descriptor that is readable when something *may* have happened."""
    return int(socket.get(zmq.FD))


class LockedSocket:
    """A zmq socket that any thread sends on, under the lock, and the I/O thread reads."""

    def __init__(self, io: IoThread, lock: threading.Lock, limits: Limits) -> None:
        self.io = io
        self.lock = lock
        self.most_parts = limits.parts + 3  # routing id, head, and one that is too many
        self.socket: Socket | None = None
        self.draining = False

    def arrived(self, parts: list[zmq.Frame]) -> None:
        """Handle one message; on the I/O thread, without the lock."""
        raise NotImplementedError

    def drain(self) -> None:
        """Read what has arrived; on the I/O thread."""
        lock = self.lock
        until = 0.0  # asked for only if many or large ones come
        try:
            for number in range(1, BATCH + 1):
                with lock:
                    socket = self.socket
                    if socket is None:
                        return
                    self.draining = bool(socket.get(EVENTS) & POLLIN)  # type: ignore[operator]
                    if not self.draining:
                        return
                    parts = receive_parts(socket, self.most_parts)
                while parts[-1].more:
                    with lock:  # released now and then: others send
                        if self.socket is None or not drop_parts(self.socket):
                            break
                self.arrived(parts)
                if number % 16 == 0 or len(parts[-1]) > COPY_BELOW:
                    now = time.monotonic()
                    until = until or now + BATCH_TIME
                    if now > until:
                        break
        except BaseException:
            self.io.call(self.drain)  # whatever failed, the next message must be read
            raise
        self.io.call(self.drain)  # after the others have had their turn

    def drain_all(self) -> None:
        """Read several batches at once; on the I/O thread."""
        for _ in range(8):
            self.drain()
            if not self.draining:
                return

    def drained(self) -> bool:
        """Was every message read that has arrived? On the I/O thread."""
        with self.lock:
            if self.socket is None or not readable(self.socket):
                return True
            if not self.draining:
                self.io.call(self.drain)
            return False

    def sent(self) -> None:
        """Call it, with the lock, after each send, which may have cleared the descriptor.

        The descriptor becomes readable again only after EVENTS was seen empty.
        """
        if not self.draining and self.socket is not None and readable(self.socket):
            self.io.call(self.drain)


# The same as Socket.send(data, flags), without the Python around it.
send_part: Callable[[Socket, Buffer, int], object] = BackendSocket.send


def receive_parts(socket: Socket, most: int) -> list[zmq.Frame]:
    """A whole message, which has arrived; of its parts no more than `most`, which is too many: then
    there are `more` after the last, to be dropped."""
    part = socket.recv(NOBLOCK, copy=False)
    parts = [part]
    while part.more and len(parts) < most:
        part = socket.recv(NOBLOCK, copy=False)
        parts.append(part)
    return parts


def drop_parts(socket: Socket) -> bool:
    """Drop some parts of a message that has too many; False once it has ended."""
    return all(socket.recv(NOBLOCK, copy=False).more for _ in range(DROPPED))


def read(parts: list[zmq.Frame], at: int, limits: Limits) -> tuple[Head, list[Buffer]]:
    """Check a message whose head is at index `at`. Raises RemoteProtocolError."""
    if len(parts) <= at:
        raise RemoteProtocolError("a message without a head")
    head = frames.decode_head(parts[at].bytes, limits)
    rest = parts[at + 1 :]
    message = head.parts
    if message is None or (rest and head.kind != BYE):
        frames.check_parts(head, [len(part) for part in rest])
        message = [part.bytes if len(part) < COPY_BELOW else part.buffer for part in rest]
    return head, message


class ZmqLink(ABC):
    """One end of a link. Dialled and accepted links differ in how they begin and end."""

    def __init__(
        self,
        io: IoThread,
        lock: threading.Lock,
        peer_key: str,
        handler: LinkHandler,
        options: LinkOptions,
    ) -> None:
        self._io = io
        self._lock = lock
        self.peer_key = peer_key
        self._handler = handler
        self._options = options
        self.address = ""  # of a listener, on a dialled link
        self.peer_address = ""  # of the peer, on an accepted link
        self.state: DownReason | None = DownReason.CONNECTING
        self._ended = False
        self._socket: LockedSocket | None = None
        self._backlog: deque[list[Buffer]] = deque()
        self._flushing = False
        self.tcp: TcpConnection | None = None  # None while not known
        self.intake = Intake()
        self.peer_version = ""
        self._reset()

    def _reset(self) -> None:
        """Begin a new connection."""
        self._limits = self._options.limits  # of what is sent, once HELLO came the peer's too
        self._window = self._options.window
        self._report_every = self._window // 4
        self._sent = 0  # see frames.cost
        self._acknowledged = 0
        self._received = 0
        self._reported = 0
        self._heard = True
        self._silent_for = 0.0
        self._seen: int | None = None  # bytes received when this was last looked at
        self.intake = Intake()
        self._backlog.clear()

    def __repr__(self) -> str:
        state = self.state or "up"
        return f"<{type(self).__name__} {self.address} {self.peer_key[:8]} {state}>"

    # --- sending ---------------------------------------------------------------------------

    @property
    def is_half_full(self) -> bool:
        """Whether the peer has yet to take half of what it lets this side send."""
        return self._sent - self._acknowledged > self._window // 2

    def send(self, message: Message) -> None:
        encoded, size = frames.encode(message, self._limits)
        with self._lock:
            if self.state is not None:
                raise LinkDown(f"the link to {self} is down: {self.state}", self.state)
            if self._sent + size - self._acknowledged > self._window:
                raise LinkOverflow(
                    f"{self} has not taken {self._sent - self._acknowledged} bytes: it reads "
                    "slower than this side sends"
                )
            self._put(encoded)
            self._sent += size

    def _put(self, encoded: list[Buffer]) -> None:
        """Hand frames to zmq, or queue what it has no room for; with the lock. Raises LinkDown."""
        socket = self._socket
        if socket is None:
            raise LinkDown(f"the link to {self} is down", self.state or DownReason.LOST)
        if self._backlog:
            self._backlog.append([bytes(part) for part in encoded])
            return
        try:
            self._transmit(encoded)
        except zmq.Again:
            # Copied, since the sender may change its buffers once this returns.
            self._backlog.append([bytes(part) for part in encoded])
            self._flush_later()
        except zmq.ZMQError as error:  # EHOSTUNREACH: the peer's connection is gone
            self._io.call(lambda: self._connection_lost(socket))
            raise LinkDown(
                f"the connection of {self} broke off ({error.strerror})", DownReason.LOST
            ) from error
        socket.sent()

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def excuse(self, decided: Callable[[], bool]) -> None: ...

    @abstractmethod
    def _transmit(self, encoded: list[Buffer]) -> None:
        """Hand frames to zmq. Raises zmq.Again when it has no room, ZMQError without a peer."""

    @abstractmethod
    def _connection_lost(self, lost: LockedSocket) -> None: ...

    def _flush_later(self) -> None:
        def arm() -> None:
            self._io.call_later(FLUSH_INTERVAL, self._flush)

        if not self._flushing:
            self._flushing = True
            self._io.call(arm)

    def _flush(self) -> None:
        with self._lock:
            self._flushing = False
            socket = self._socket
            if socket is None or self.state is not None:
                return
            try:
                while self._backlog:
                    self._transmit(self._backlog[0])
                    self._backlog.popleft()
            except zmq.Again:
                self._flush_later()
            except zmq.ZMQError:
                self._io.call(lambda: self._connection_lost(socket))
            socket.sent()

    def _send_frame(self, frame: bytes) -> bool:
        """Send a control frame, which the window does not count; False when the link is down."""
        with self._lock:
            try:
                self._put([frame])
            except LinkDown:
                return False
        return True

    def _hello(self) -> bytes:
        options = self._options
        silence = max(1, int(options.silence * 1000))
        return frames.encode_hello(Hello(options.limits, options.window, silence))

    # --- what arrives, on the I/O thread -----------------------------------------------------

    def _agree(self, hello: Hello) -> None:
        """Apply the peer's limits besides this side's."""
        with self._lock:
            self._window = min(self._window, hello.window)
            ours = self._options.limits
            most = Limits(ours.frame_bytes, ours.parts, max(64, self._window // 2))
            self._limits = frames.common(frames.common(ours, most), hello.limits)
            self._report_every = max(1, self._window // 4)

    def _take_single(self, head: bytes) -> bool:
        """Handle a DATA message of one inline part, as nearly all are; False for any other."""
        part = frames.single_part(head, self._options.limits)
        if part is None:
            return False
        self._take_data([part], SINGLE_COST + len(part))
        return True

    def _take_data(self, message: list[Buffer], size: int) -> None:
        self._heard = True
        self._received += size
        if self._received - self._reported >= self._report_every:
            self._report()
        if self._ended:
            return
        try:
            self._handler.received(self, message)
        except BaseException as error:
            self._handler_failed(error)

    def _take(self, head: Head, message: list[Buffer]) -> None:
        """Handle a message on a link that is up. Raises RemoteProtocolError."""
        self._heard = True
        if head.kind == DATA:
            self._take_data(message, frames.cost(head.sizes))
        elif head.kind == Kind.PING:
            self._acknowledge(head)
            self._report()
        elif head.kind == Kind.PONG:
            self._acknowledge(head)
        else:
            raise RemoteProtocolError("a second HELLO on one connection")

    def _report(self) -> None:
        self._reported = self._received
        self._send_frame(frames.encode_pong(self._received))

    def _acknowledge(self, head: Head) -> None:
        received = frames.decode_received(head)
        if not self._acknowledged <= received <= self._sent:
            raise RemoteProtocolError(f"the peer counts {received} bytes, {self._sent} were sent")
        self._acknowledged = received

    def tick(self, passed: float) -> None:
        """Notice that `passed` seconds passed; on the I/O thread."""
        if self.state is not None:
            return
        if self._heard:
            self._heard = False
            self._silent_for = 0.0
            self._seen = None
            return
        if self._moving():
            self._silent_for = 0.0
            self._report()  # the peer's PINGs wait behind that message
            return
        self._silent_for += passed
        if self._silent_for >= self._options.silence:
            self._give_up(DownReason.SILENT)
        elif self._silent_for >= self._options.heartbeat / 2:
            self._send_frame(frames.encode_ping(self._received))

    def _moving(self) -> bool:
        """Is a message arriving? A large one on a slow line is a sign of life."""
        traffic = self.tcp.traffic() if self.tcp is not None else None
        if traffic is None:
            return False
        before, self._seen = self._seen, traffic.received
        return before is not None and traffic.received - before >= _MOVING

    def breached(self, why: str) -> None:
        """End the connection without a BYE: what zmq holds grows until then."""
        _log.warning("%r loses its connection: %s", self, why)
        self._give_up(DownReason.PROTOCOL)

    @abstractmethod
    def _give_up(self, reason: DownReason, bye: Bye | None = None) -> None:
        """Leave this connection; a dialled link makes another one later."""

    def _violated(self, error: RemoteProtocolError) -> None:
        _log.warning("%r broke the protocol and loses its connection: %s", self, error)
        if isinstance(error, VersionMismatch):
            self._give_up(DownReason.VERSION, Bye.VERSION)
        else:
            self._give_up(DownReason.PROTOCOL, Bye.PROTOCOL)

    def _handler_failed(self, error: BaseException) -> None:
        if isinstance(error, RemoteProtocolError):
            self._violated(error)
            return
        _log.error("a handler of %r failed: the connection is closed", self, exc_info=error)
        self._give_up(DownReason.PROTOCOL, Bye.PROTOCOL)

    def _notify_up(self) -> None:
        with self._lock:
            if self._ended:
                return
            self.state = None
        try:
            self._handler.link_up(self)
        except BaseException as error:
            self._handler_failed(error)

    def _notify_down(self, reason: DownReason) -> None:
        """Notify the owner, not from inside a call of its own."""

        def tell() -> None:
            try:
                self._handler.link_down(self, reason)
            except BaseException:
                _log.exception("a handler of %r failed in link_down", self)

        self._io.call(tell)
