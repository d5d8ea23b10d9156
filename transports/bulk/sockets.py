"""The sockets of bulk transfers, and the server or client behind each.

A dialled peer's socket lives as long as one connection: after a loss it is replaced, so that
nothing queued for the old connection turns up on the new one. What to say and when to give
up is for `BulkServer` and `BulkClient` to decide.

A peer that is no longer admitted loses its connections at once, and one that broke the protocol
with what shows it: a message, or too much of one that has no end (`zeromq.intake`).
"""

from __future__ import annotations

import logging
import random
import time
from functools import partial
from typing import TYPE_CHECKING

import zmq

from manta.transports.addresses import join_address, resolve_later, split_address
from manta.transports.bulk.client import BulkClient, Request
from manta.transports.bulk.loop import BulkLoop
from manta.transports.bulk.options import BulkOptions
from manta.transports.bulk.server import BulkServer
from manta.transports.bulk.transfers import Statistics
from manta.transports.bulk.wire import unpack
from manta.transports.errors import BulkError, DownReason, RemoteProtocolError, TransportError
from manta.transports.security.routing_ids import is_harmless
from manta.transports.zeromq.connections import Connections, Lookout
from manta.transports.zeromq.intake import Intake, wire_bytes
from manta.transports.zeromq.links import drop_parts, readable, receive_parts
from manta.transports.zeromq.sockets import SocketFactory, parse_event, stop_monitor
from manta.transports.zeromq.tcp import TcpConnection

if TYPE_CHECKING:
    from manta.transports.blobs.interface import Depot
    from manta.transports.bulk.wire import BulkMessage
    from manta.transports.interface import Buffer
    from manta.transports.security.admission import Admission
    from manta.transports.zeromq.connections import Breach, Connection
    from manta.transports.zeromq.sockets import Socket

_log = logging.getLogger(__name__)
_BURST = 64  # messages read from one socket before the others have their turn
_PARTS = 2  # of a message


def send_to(socket: Socket, route: bytes, frames: list[Buffer]) -> bool:
    """False when the peer is gone or takes no more."""
    try:
        socket.send_multipart([route, *frames], zmq.NOBLOCK, copy=False)
    except zmq.ZMQError as error:
        if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            raise
        return False
    return True


class ServerSocket:
    """A ROUTER and the server behind it. Lives on the loop's thread, but for `cut` and `glance`."""

    def __init__(
        self,
        socket: Socket,
        monitor: Socket,
        server: BulkServer,
        admission: Admission,
        options: BulkOptions,
        address: str,
    ) -> None:
        """`monitor` tells which connections `socket` accepts at `address` and loses."""
        self._socket = socket
        self._monitor = monitor
        self.server = server
        self._admission = admission
        self._connections = Connections(admission, options.intake, self._end, address)
        self._lookout = Lookout()

    def watched_by(self, loop: BulkLoop) -> None:
        loop.members.append(self)
        loop.watch(self._socket, self._read)
        loop.watch(self._monitor, self._observe)

    def glance(self, loop: BulkLoop) -> None:
        """End who sends without an end while the loop's thread is held up; on another one."""
        for connection, breach in self._connections.glance():
            connection.end()
            loop.call(partial(self._refuse, connection.key, breach.why, offence=breach.is_own))

    def cut(self, key: str) -> None:
        """End a peer's connections at once; from any thread."""
        for connection in self._connections.of_key(key):
            connection.end()

    def close(self) -> None:
        self.server.close()
        stop_monitor(self._socket, self._monitor)
        self._socket.close()

    @property
    def busy(self) -> bool:
        return self.server.busy or bool(self._connections)

    def tick(self, now: float) -> None:
        self.server.tick(now)
        passed = self._lookout.passed(now)
        if passed is not None:
            self._connections.look(passed, lambda: not readable(self._socket))

    def _end(self, connection: Connection, breach: Breach | None) -> None:
        """End a connection for what it did, or with None because it has to go."""
        if breach is not None:
            self._refuse(connection.key, breach.why, offence=breach.is_own)
        connection.end()

    def _observe(self) -> None:
        self._connections.observe(self._monitor)

    def _read(self) -> None:
        for _ in range(_BURST):
            try:
                route, *frames = receive_parts(self._socket, 2 + _PARTS)
            except zmq.Again:
                return
            while frames and frames[-1].more and drop_parts(self._socket):
                pass
            self._received(route, frames)

    def _received(self, route: zmq.Frame, frames: list[zmq.Frame]) -> None:
        connection = self._connections.of(route)
        if connection is not None and connection.ended:
            return
        key = str(frames[0].get("User-Id")) if frames else ""
        served = False
        try:
            if connection is not None:
                if not is_harmless(route.bytes):
                    return  # its handshake was answered too soon: it may connect again
                if not self._connections.heard(connection, key):
                    raise RemoteProtocolError("it said too much before its first message")
                connection.intake.read += wire_bytes(map(len, frames))
            message, payload = _split(frames)
            now = time.monotonic()
            served = self.server.received(route.bytes, key, message, payload, now)
        except RemoteProtocolError as error:
            self._refuse(key, str(error))
        except Exception:
            self.server.drop(key)
            raise
        finally:
            if not served and connection is not None:
                connection.end()

    def _refuse(self, key: str, why: str, *, offence: bool = True) -> None:
        if not key:
            return
        if not offence:  # it connects again, and its transfers go on
            _log.warning("the peer %s loses a connection: %s", key, why)
            return
        _log.warning("the peer %s loses its connection and its transfers: %s", key, why)
        self._admission.offended(key)
        self.server.drop(key)


class ClientSocket:
    """A DEALER for each connection and the client behind them. Lives on the loop's thread."""

    def __init__(
        self,
        loop: BulkLoop,
        factory: SocketFactory,
        address: str,
        server_key: str,
        depot: Depot,
        options: BulkOptions,
        total: Statistics,
    ) -> None:
        self.client = BulkClient(address, depot, self._send, options, total)
        self._loop = loop
        self._factory = factory
        self._host, self._port = split_address(address)
        self._server_key = server_key
        self._options = options
        self._socket: Socket | None = None
        self._monitor: Socket | None = None
        self._tcp: TcpConnection | None = None
        self._intake = Intake()
        self._lookout = Lookout()
        self._resolving = False
        self._closed = False
        self._failures = 0
        self._retry_at = 0.0
        self._used_at = 0.0

    @property
    def busy(self) -> bool:
        return self._socket is not None or self.client.busy

    def start(self, request: Request) -> None:
        """Begin a transfer, and connect if need be."""
        if self._closed:
            request.settle(BulkError(f"the transfers with {self.client.address} were closed"))
            return
        if self not in self._loop.members:
            self._loop.members.append(self)
        self.client.start(request)
        self.tick(time.monotonic())

    def tick(self, now: float) -> None:
        self.client.tick(now)
        if self.client.busy:
            self._used_at = now
            if self._socket is None and not self._resolving and now >= self._retry_at:
                self._resolving = True
                resolve_later(self._host, self._loop.call, self._resolved)
        elif self._socket is None:
            self._loop.members.remove(self)
        elif now >= self._used_at + self._options.idle:
            self._lose(DownReason.CLOSED)
        self._look(now)

    def close(self) -> None:
        """Idempotent."""
        self._closed = True
        self._disconnect()
        self.client.fail(BulkError(f"the transfers with {self.client.address} were closed"))

    def _send(self, frames: list[Buffer]) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def _resolved(self, found: list[str]) -> None:
        self._resolving = False
        if found and not self._closed:
            self._open(found[self._failures % len(found)])  # the next one after a failure
        else:
            self._lose(DownReason.UNREACHABLE)

    def _open(self, host: str) -> None:
        self._intake = Intake()
        self._socket = self._factory.client(zmq.DEALER, self._server_key)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_ALL)
        self._loop.watch(self._monitor, self._observe)
        self._loop.watch(self._socket, self._read)
        try:
            self._factory.connect(self._socket, join_address(host, self._port))
        except TransportError as error:
            _log.warning("%s", error)
            self._lose(DownReason.UNREACHABLE)

    def _look(self, now: float) -> None:
        """Leave a server that sends too much, or too slowly."""
        passed = self._lookout.passed(now)
        traffic = self._tcp.traffic() if self._tcp is not None else None
        if passed is None or traffic is None or self._socket is None:
            return
        self._intake.look(*traffic, drained=not readable(self._socket), passed=passed)
        if why := self._intake.breach(self._options.bounds):
            self._refuse(RemoteProtocolError(f"the server {self.client.address} sent {why}"))

    def _refuse(self, error: RemoteProtocolError) -> None:
        self._lose(DownReason.PROTOCOL)
        self.client.fail(error)

    def _disconnect(self) -> None:
        socket, monitor = self._socket, self._monitor
        self._socket = self._monitor = self._tcp = None
        if socket is not None and monitor is not None:
            self._loop.forget(socket)
            self._loop.forget(monitor)
            socket.disable_monitor()
            monitor.close(0)
            socket.close()

    def _lose(self, reason: DownReason) -> None:
        self._disconnect()
        self.client.lost(reason)
        doubled = self._options.backoff * 2.0 ** min(self._failures, 100)  # more overflows in time
        pause = min(self._options.backoff_max, doubled)
        self._failures += 1
        self._retry_at = time.monotonic() + pause * random.uniform(0.5, 1.0)

    def _observe(self) -> None:
        while self._monitor is not None:
            try:
                kind, value = parse_event(self._monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            if kind == zmq.EVENT_CONNECTED:
                tcp = TcpConnection.of(value)
                # If not, it is gone, and another has its descriptor.
                self._tcp = tcp if tcp is not None and tcp.is_to(self._port) else None
            elif kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._failures = 0
                self.client.connected()
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._lose(DownReason.BUSY if value == 300 else DownReason.DENIED)
            elif kind in _LOST:
                while self._socket is not None and self._read():
                    pass  # what arrived before the end still counts
                self._lose(_LOST[kind])

    def _read(self) -> bool:
        """Whether there may be more."""
        for _ in range(_BURST):
            if self._socket is None:
                return False
            try:
                frames = receive_parts(self._socket, 1 + _PARTS)
            except zmq.Again:
                return False
            while frames[-1].more and drop_parts(self._socket):
                pass
            self._intake.read += wire_bytes(map(len, frames))
            try:
                message, payload = _split(frames)
                self.client.received(message, payload, time.monotonic())
            except RemoteProtocolError as error:
                self._refuse(error)
                return False
        return True


# What a monitor event says about a lost connection.
_LOST: dict[int, DownReason] = {
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: DownReason.PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: DownReason.WRONG_KEY,
    zmq.EVENT_DISCONNECTED: DownReason.UNREACHABLE,
    zmq.EVENT_CLOSED: DownReason.UNREACHABLE,
}


def _split(frames: list[zmq.Frame]) -> tuple[BulkMessage, Buffer | None]:
    """The message, and a chunk's bytes. Raises RemoteProtocolError."""
    if not 1 <= len(frames) <= _PARTS:
        raise RemoteProtocolError(f"a bulk message of {len(frames)} frames")
    return unpack(frames[0].buffer), frames[1].buffer if len(frames) == 2 else None
