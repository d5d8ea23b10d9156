"""Dialled links: one DEALER for each attempt, until `close`.

A socket that was refused never reconnects, and what it has queued would reach a later
connection that knows nothing of it. So each attempt has a socket of its own, and
`attempts` says what became of it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING

import zmq

from manta.transports import frames
from manta.transports.addresses import join_address, resolve_later, split_address
from manta.transports.errors import DownReason, RemoteProtocolError
from manta.transports.frames import Bye, Kind, Limits
from manta.transports.zeromq.attempts import (
    GREETING_AFTER,
    PATIENCE,
    WELCOMED,
    Attempt,
    Event,
    backoff,
)
from manta.transports.zeromq.intake import FRAME, wire_bytes
from manta.transports.zeromq.links import (
    BYE,
    NOBLOCK,
    LinkOptions,
    LockedSocket,
    ZmqLink,
    fd_of,
    read,
    readable,
    send_part,
)
from manta.transports.zeromq.sockets import parse_event
from manta.transports.zeromq.tcp import TcpConnection, received_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.interface import Buffer, LinkHandler
    from manta.transports.zeromq.io_thread import IoThread, Timer
    from manta.transports.zeromq.sockets import Socket, SocketFactory

_MONITORED = sum(Event)
_SIGNATURE = b"\xff"  # how a greeting begins
_AFTER_BYE = {
    Bye.VERSION: DownReason.VERSION,
    Bye.PROTOCOL: DownReason.PROTOCOL,
    Bye.NO_LINK: DownReason.LOST,
}

_log = logging.getLogger(__name__)


class DialledLink(ZmqLink):
    """The client's end."""

    def __init__(
        self,
        io: IoThread,
        factory: SocketFactory,
        address: str,
        server_key: str,
        handler: LinkHandler,
        options: LinkOptions,
        forget: Callable[[DialledLink], None],
    ) -> None:
        super().__init__(io, threading.Lock(), server_key, handler, options)
        self._factory = factory
        self.address = address
        self._host, self._port = split_address(address)
        self._forget = forget
        self._dealer: _Dealer | None = None
        self._failures = 0
        self._others: list[str] = []
        """Addresses of the host that this attempt has not tried yet."""
        self._last_failure: DownReason | None = None
        self._retry: Timer | None = None
        self._waiting: Timer | None = None

    def close(self) -> None:
        with self._lock:
            if self._ended:
                return
            up = self.state is None
            if up and self._socket is not None:
                try:
                    self._transmit([frames.encode_bye(Bye.CLOSING)])
                except zmq.ZMQError as error:
                    _log.debug("no BYE to %r: %s", self, error)
            self._ended = True
            self.state = DownReason.CLOSED
        self._notify_down(DownReason.CLOSED)
        self._io.call(partial(self._abandon, linger=up))

    def excuse(self, decided: Callable[[], bool]) -> None:
        """Does nothing: a server is no guest."""

    # --- on the I/O thread -------------------------------------------------------------------

    def attempt(self) -> None:
        """Dial once."""
        self._retry = None
        if self._ended:
            return
        # It is down meanwhile, though the name service may still answer.
        self._waiting = self._io.call_later(
            PATIENCE, partial(self._set_down, DownReason.UNREACHABLE)
        )
        resolve_later(self._host, self._io.call, self._resolved)  # libzmq would block all links

    def _resolved(self, found: list[str]) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        if self._ended:
            return
        if not found:
            self._failed(DownReason.UNKNOWN_HOST)
            return
        first = self._failures % len(found)  # the next one after a failure
        self._others = found[first + 1 :] + found[:first]
        self._connect(found[first])

    def _connect(self, host: str) -> None:
        self._retry = None
        if self._ended:
            return
        self._reset()
        self.tcp = None
        dealer = _Dealer(self._io, self._lock, self._options.limits, self, host, self._port)
        try:
            dealer.open(self._factory)
        except zmq.ZMQError as error:
            dealer.close(linger=False)
            _log.warning("cannot dial %s: %s", self.address, error)
            self._failed(DownReason.UNREACHABLE)
            return
        self._dealer = dealer
        with self._lock:
            self._socket = dealer
            self._transmit([self._hello()])  # zmq sends it after the handshake
        dealer.arm()

    def _transmit(self, encoded: list[Buffer]) -> None:
        dealer = self._socket.socket if self._socket is not None else None
        if dealer is None:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        if len(encoded) == 1:
            send_part(dealer, encoded[0], NOBLOCK)
        else:
            dealer.send_multipart(encoded, NOBLOCK)

    def _connection_lost(self, lost: LockedSocket) -> None:
        if lost is self._dealer:
            self._give_up(DownReason.LOST)

    def attempt_failed(self, dealer: _Dealer, reason: DownReason) -> None:
        if dealer is self._dealer:
            self._give_up(reason)

    def arrived(self, dealer: _Dealer, parts: list[zmq.Frame]) -> None:
        """Handle a message from the server."""
        if self._ended or dealer is not self._dealer:
            return
        if len(parts) == 1:
            single = parts[0].bytes
            self.intake.read += len(single) + FRAME
            if self.state is None and self._take_single(single):
                return
        else:
            self.intake.read += wire_bytes(map(len, parts))
        try:
            head, message = read(parts, 0, self._options.limits)
            if head.kind == BYE:
                reason = frames.decode_bye(head)
                if reason is Bye.VERSION:
                    major, minor, *_ = parts[0].bytes
                    self.peer_version = f"{major}.{minor}"
                self._on_bye(reason)
            elif self.state is None:
                self._take(head, message)
            elif head.kind == Kind.HELLO:
                self._agree(frames.decode_hello(head))
                dealer.attempt.answered = True
                dealer.answered()
                self._failures = 0
                self._notify_up()
            else:
                raise RemoteProtocolError("a message before HELLO")
        except RemoteProtocolError as error:
            self._violated(error)

    def look(self, passed: float) -> None:
        """Leave a server that sends too much, or too slowly."""
        traffic = self.tcp.traffic() if self.tcp is not None else None
        if traffic is None or self._dealer is None:
            return
        self.intake.look(*traffic, drained=self._dealer.drained(), passed=passed)
        if why := self.intake.breach(self._options.bounds):
            self.breached(why)

    def _on_bye(self, reason: Bye) -> None:
        if reason is Bye.PROTOCOL:
            _log.warning("%r says that this side broke the protocol", self)
        self._give_up(_AFTER_BYE.get(reason, DownReason.CLOSED))

    def _give_up(self, reason: DownReason, bye: Bye | None = None) -> None:
        if self._ended or self._dealer is None:
            return
        if bye is not None:
            self._send_frame(frames.encode_bye(bye))
        self._failed(reason, linger=bye is not None)

    def _failed(self, reason: DownReason, *, linger: bool = False) -> None:
        """Notify the owner, once for each reason, and try again later."""
        if self._ended:
            return
        welcomed = self._dealer is not None and self._dealer.attempt.welcomed
        self._abandon(linger=linger)
        if reason is DownReason.UNREACHABLE and self._others:  # as a name that has IPv6 and IPv4
            other = self._others.pop(0)
            self._retry = self._io.call_later(0, partial(self._connect, other))
            return
        self._failures += 1
        chance = int.from_bytes(os.urandom(2), "big") / 0xFFFF  # `random` is slow to import
        wait = backoff(reason, self._failures, chance)
        # A server that is opening or closing looks the same: so try again at once.
        suspect = reason is DownReason.WRONG_KEY or welcomed
        suspicion = suspect and self._last_failure is not reason
        self._last_failure = reason
        self._retry = self._io.call_later(0.05 if suspicion else wait, self.attempt)
        if not suspicion or self.state is None:
            self._set_down(DownReason.LOST if suspicion else reason)

    def _set_down(self, reason: DownReason) -> None:
        with self._lock:
            if self._ended or self.state is reason:
                return
            self.state = reason
        self._notify_down(reason)

    def _abandon(self, *, linger: bool) -> None:
        """Close the connection; for good if the link has ended."""
        dealer, self._dealer = self._dealer, None
        with self._lock:
            self._socket = None
            self._backlog.clear()
        if dealer is not None:
            dealer.close(linger=linger)
        if self._ended:
            for timer in (self._retry, self._waiting):
                if timer is not None:
                    timer.cancel()
            self._forget(self)


class _Dealer(LockedSocket):
    """One attempt to connect: a DEALER and its monitor."""

    def __init__(
        self,
        io: IoThread,
        lock: threading.Lock,
        limits: Limits,
        link: DialledLink,
        host: str,
        port: int,
    ) -> None:
        super().__init__(io, lock, limits)
        self.attempt = Attempt()
        self._link = link
        self._monitor: Socket | None = None
        self._probe: GreetingProbe | None = None
        self._timers: list[Timer] = []
        self._host, self._port = host, port
        self._connection: socket.socket | None = None
        """What zmq connected: a copy, which still says what was received when zmq has closed it."""

    def open(self, factory: SocketFactory) -> None:
        self.socket = factory.client(zmq.DEALER, self._link.peer_key)
        self._monitor = self.socket.get_monitor_socket(_MONITORED)
        self._monitor.linger = 0
        self.io.add_reader(fd_of(self.socket), self.drain)
        self.io.add_reader(fd_of(self._monitor), self._drain_monitor)
        self._timers = [
            self.io.call_later(PATIENCE, lambda: self._failed(self.attempt.on_deadline())),
            self.io.call_later(GREETING_AFTER, self._probe_greeting),
        ]
        factory.connect(self.socket, join_address(self._host, self._port))

    def arm(self) -> None:
        """Read both sockets, which arms their descriptors."""
        self.drain()
        self._drain_monitor()

    def answered(self) -> None:
        """The link is up: stop all waiting."""
        for timer in self._timers:
            timer.cancel()
        if self._probe is not None:
            self._probe.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self, *, linger: bool) -> None:
        self.answered()
        with self.lock:
            dealer, self.socket = self.socket, None
        if dealer is None:
            return
        self.io.remove_reader(fd_of(dealer))
        if self._monitor is not None:
            self.io.remove_reader(fd_of(self._monitor))
            dealer.disable_monitor()
            self._monitor.close()
            self._monitor = None
        dealer.close(None if linger else 0)

    def arrived(self, parts: list[zmq.Frame]) -> None:
        self._link.arrived(self, parts)

    def _drain_monitor(self) -> None:
        while self._monitor is not None and readable(self._monitor):
            event, value = parse_event(self._monitor.recv_multipart(NOBLOCK))
            if event == Event.CONNECTED:
                self._connected(value)
            elif event == Event.HANDSHAKE_FAILED_NO_DETAIL and self._connection is not None:
                self.attempt.welcomed = (received_by(self._connection) or 0) > WELCOMED
            self._failed(self.attempt.on_event(event, value))

    def _connected(self, fd: int) -> None:
        tcp = TcpConnection.of(fd)
        if tcp is not None and not tcp.is_to(self._port):
            tcp = None  # it is gone, and another has its descriptor
        self._link.tcp = tcp
        # HELLO may have been read before this event: then the link is up, and nothing is held.
        if tcp is not None and not self.attempt.answered and self._connection is None:
            self._connection = tcp.copy()

    def _failed(self, reason: DownReason | None) -> None:
        if reason is not None:
            # A BYE may have arrived before the connection ended.
            self.drain_all()
            self._link.attempt_failed(self, reason)

    def _probe_greeting(self) -> None:
        if self.attempt.connected and not self.attempt.admitted:
            self._probe = GreetingProbe(self.io, self._host, self._port, self.attempt)


class GreetingProbe:
    """Does a server speak ZMTP? One that does sends its greeting unasked (RFC 23).

    A server that cannot decide now (ZAP 300) and a frozen one look the same to a zmq client, but
    only the first greets. So this connects, reads one byte and hangs up; it never blocks.
    """

    def __init__(self, io: IoThread, host: str, port: int, attempt: Attempt) -> None:
        self._io = io
        self._attempt = attempt
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket: socket.socket | None = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        if self._socket.connect_ex((host, port)) in (0, errno.EINPROGRESS):
            io.add_reader(self._socket.fileno(), self._read)
        else:
            self.close()

    def close(self) -> None:
        """Idempotent."""
        if self._socket is None:
            return
        self._io.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None

    def _read(self) -> None:
        if self._socket is None:
            return
        first = b""
        with contextlib.suppress(OSError):  # the server hung up
            first = self._socket.recv(1)
        self.close()
        self._attempt.greeted = first == _SIGNATURE
