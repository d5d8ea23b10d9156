"""The sockets of bulk transfers, and the server or client behind each.

A dialled peer's socket lives as long as one connection: after a loss it is replaced, so that
nothing queued for the old connection turns up on the new one. What to say and when to give
up is for `BulkServer` and `BulkClient` to decide.

A peer that is no longer admitted, or broke the protocol, loses its connection with the message
that shows it.
"""

from __future__ import annotations

import logging
import random
import time
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
from manta.transports.zeromq.sockets import SocketFactory, parse_event
from manta.transports.zeromq.tcp import connection_of

if TYPE_CHECKING:
    from manta.transports.blobs.interface import Depot
    from manta.transports.bulk.wire import BulkMessage
    from manta.transports.interface import Buffer
    from manta.transports.zeromq.routing_ids import RoutingIds
    from manta.transports.zeromq.sockets import Socket

_log = logging.getLogger(__name__)
_BURST = 64  # messages read from one socket before the others have their turn


def send_to(socket: Socket, route: bytes, frames: list[Buffer]) -> bool:
    """False when the peer is gone or takes no more."""
    try:
        socket.send_multipart([route, *frames], zmq.NOBLOCK, copy=False)
    except zmq.ZMQError as error:
        if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            raise
        return False
    return True


def cut(route: zmq.Frame) -> None:
    """Ends the connection that a frame came on."""
    if (connection := connection_of(route)) is not None:
        connection.kill()


class ServerSocket:
    """A ROUTER and the server behind it. Lives on the loop's thread."""

    def __init__(self, socket: Socket, server: BulkServer, ids: RoutingIds) -> None:
        self._socket = socket
        self._server = server
        self._ids = ids

    def read(self) -> None:
        for _ in range(_BURST):
            try:
                route, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            key = str(frames[0].get("User-Id")) if frames else ""
            try:
                if not self._ids.gave(route.bytes):
                    raise RemoteProtocolError("it chose a routing id: it must leave that to zmq")
                message, payload = _split(frames)
                if not self._server.received(route.bytes, key, message, payload, time.monotonic()):
                    cut(route)
            except RemoteProtocolError as error:
                _log.warning("the peer %s loses its connection and its transfers: %s", key, error)
                self._server.drop(key)
                cut(route)
            except Exception:
                self._server.drop(key)
                raise

    def close(self) -> None:
        self._server.close()
        self._socket.close()

    @property
    def busy(self) -> bool:
        return self._server.busy

    def tick(self, now: float) -> None:
        self._server.tick(now)


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
        self._socket = self._factory.client(zmq.DEALER, self._server_key)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_ALL)
        self._loop.watch(self._monitor, self._observe)
        self._loop.watch(self._socket, self._read)
        try:
            self._factory.connect(self._socket, join_address(host, self._port))
        except TransportError as error:
            _log.warning("%s", error)
            self._lose(DownReason.UNREACHABLE)

    def _disconnect(self) -> None:
        socket, monitor = self._socket, self._monitor
        self._socket = self._monitor = None
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
            if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
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
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            try:
                message, payload = _split(frames)
                self.client.received(message, payload, time.monotonic())
            except RemoteProtocolError as error:
                self._lose(DownReason.PROTOCOL)
                self.client.fail(error)
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
    if not 1 <= len(frames) <= 2:
        raise RemoteProtocolError(f"a bulk message of {len(frames)} frames")
    return unpack(frames[0].buffer), frames[1].buffer if len(frames) == 2 else None
