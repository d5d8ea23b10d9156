"""Bulk transfers over CURVE sockets of their own, in one thread and one zmq context.

A listener is a ROUTER, each dialled peer a DEALER whose socket lives as long as one
connection: after a loss it is replaced, so that nothing that was queued for the old
connection turns up on the new one. The thread decides nothing: what to say and when to
give up is `BulkServer`'s and `BulkClient`'s business.

libzmq cannot cut one peer of a ROUTER off. The messages of a peer that is not admitted
any longer, or that broke the protocol, are dropped unread, and nothing more is sent to it.
"""

from __future__ import annotations

import logging
import random
import socket as std_socket
import struct
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

import zmq

from manta.transports.bulk.client import BulkClient, Request
from manta.transports.bulk.flow import Patience
from manta.transports.bulk.loop import BulkLoop
from manta.transports.bulk.options import BulkOptions
from manta.transports.bulk.server import BulkServer
from manta.transports.bulk.transfers import Statistics
from manta.transports.bulk.wire import unpack
from manta.transports.errors import BulkError, DownReason, RemoteProtocolError, TransportError
from manta.transports.security.keys import check_key
from manta.transports.security.zap import ZapServer
from manta.transports.zeromq.sockets import SocketFactory, is_literal, join_address, split_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.blobs.interface import Depot
    from manta.transports.bulk.interface import BulkPeer, Operation
    from manta.transports.bulk.wire import BulkMessage
    from manta.transports.interface import Buffer
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair
    from manta.transports.zeromq.sockets import Context, Socket

_log = logging.getLogger(__name__)
# zmq_socket_monitor(3); zmq.utils.monitor does the same, but imports asyncio and ssl.
_EVENT = struct.Struct("=Hi")
_BURST = 64  # messages read from one socket before the others have their turn


class CurveBulk:
    """One process's data plane; implements `Bulk`. Thread-safe.

    Futures are settled, and `authorize` and the depot are called, on its thread.
    """

    def __init__(self, keys: KeyPair, depot: Depot, *, options: BulkOptions | None = None) -> None:
        self.statistics = Statistics()
        self._depot = depot
        self._options = options or BulkOptions()
        self._context: Context = zmq.Context(self._options.io_threads)
        self._zap = ZapServer(self._context)
        self._factory = SocketFactory(
            self._context, keys, zap=self._zap, options=self._options.sockets
        )
        self._loop = BulkLoop(self._context, self._zap.stop)
        self._listeners: list[_Listener] = []
        self._changing = threading.Lock()
        self._started = False
        self._closed = False

    def listen(
        self,
        address: str,
        admission: Admission,
        authorize: Callable[[str, Operation, str], bool],
        *,
        fd: int | None = None,
    ) -> str:
        """Serve the depot; returns the address with the port taken.

        `fd` is a TCP socket that listens already. Raises AddressInUse.
        """
        self._start()
        with self._changing:
            if not self._zap.healthy:
                self._zap.start()
            domain = f"manta.bulk.{len(self._listeners)}"
            self._zap.register(domain, admission)
            try:
                socket = self._factory.server(zmq.ROUTER, domain)
                try:
                    bound = self._factory.bind(socket, address, fd=fd)
                except BaseException:
                    socket.close(0)
                    raise
            except BaseException:
                self._zap.unregister(domain)
                raise
            listener = _Listener(socket)
            listener.server = BulkServer(
                self._depot, admission, authorize, listener.send, self._options, self.statistics
            )
            self._listeners.append(listener)

        def serve() -> None:
            self._loop.members.append(listener)
            self._loop.watch(socket, listener.read)

        self._loop.call(serve)
        return bound

    def dial(self, address: str, server_key: str) -> BulkPeer:
        """Returns at once; connects when there is something to move."""
        check_key(server_key, "server's public key")
        self._start()
        connection = _Connection(
            self._loop,
            self._factory,
            address,
            server_key,
            self._depot,
            self._options,
            self.statistics,
        )
        return _Peer(self._loop, connection, self._options)

    def close(self) -> None:
        """Give up what is under way, whose futures then raise BulkError. Idempotent."""
        with self._changing:
            started, self._closed = self._started and not self._closed, True
        if started:
            self._loop.stop()
        else:
            self._context.term()

    def _start(self) -> None:
        with self._changing:
            if self._closed:
                raise BulkError("the data plane is closed: nothing can be moved any longer")
            if not self._started:
                self._started = True
                self._loop.start()


class _Peer:
    """What `dial` returns; implements `BulkPeer`."""

    def __init__(self, loop: BulkLoop, connection: _Connection, options: BulkOptions) -> None:
        self._loop = loop
        self._connection = connection
        self._options = options

    def push(self, digest: str, size: int, *, timeout: float) -> Future[None]:
        return self._request("push", digest, size, timeout)

    def fetch(self, digest: str, size: int, *, timeout: float) -> Future[None]:
        return self._request("fetch", digest, size, timeout)

    def close(self) -> None:
        """Idempotent; what is under way raises BulkError."""
        self._loop.call(self._connection.close)

    def _request(
        self, operation: Operation, digest: str, size: int, timeout: float
    ) -> Future[None]:
        future: Future[None] = Future()
        patience = Patience(time.monotonic(), timeout, self._options.ask_again)
        request = Request(operation, digest, size, timeout, future, patience)
        connection = self._connection

        def cancelled(future: Future[None]) -> None:
            if future.cancelled():
                self._loop.call(lambda: connection.client.forget(request))

        if self._loop.call(lambda: connection.start(request)):
            future.add_done_callback(cancelled)
        else:
            request.settle(BulkError("the data plane is closed: nothing can be moved any longer"))
        return future


class _Listener:
    """A ROUTER and the server behind it."""

    server: BulkServer

    def __init__(self, socket: Socket) -> None:
        self.socket = socket

    def send(self, route: bytes, frames: list[Buffer]) -> bool:
        """False when the peer is gone or takes nothing."""
        try:
            self.socket.send_multipart([route, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def read(self) -> None:
        for _ in range(_BURST):
            try:
                route, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            key = str(frames[0].get("User-Id")) if frames else ""
            try:
                message, payload = _split(frames)
                self.server.received(route.bytes, key, message, payload, time.monotonic())
            except RemoteProtocolError as error:
                _log.warning("dropped the transfers of the peer %s: %s", key, error)
                self.server.drop(key)
            except Exception:
                self.server.drop(key)
                raise

    def close(self) -> None:
        self.server.close()
        self.socket.close()

    @property
    def busy(self) -> bool:
        return self.server.busy

    def tick(self, now: float) -> None:
        self.server.tick(now)


class _Connection:
    """A DEALER, again and again, and the client behind it. Lives on the loop's thread."""

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
                self._connect()
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

    def _connect(self) -> None:
        if is_literal(self._host):
            self._open(self._host)
            return
        self._resolving = True

        def resolve() -> None:  # apart, because it may take many seconds
            try:
                found = std_socket.getaddrinfo(self._host, None, type=std_socket.SOCK_STREAM)
                # IPv4 first, as for listeners.
                found.sort(key=lambda info: info[0] != std_socket.AF_INET)
                host = str(found[0][4][0])
            except OSError as error:
                _log.warning("cannot resolve %s: %s", self._host, error)
                host = ""
            self._loop.call(lambda: self._resolved(host))

        threading.Thread(target=resolve, name="manta-bulk-resolve", daemon=True).start()

    def _resolved(self, host: str) -> None:
        self._resolving = False
        if host and not self._closed:
            self._open(host)
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
        pause = min(self._options.backoff_max, self._options.backoff * 2.0**self._failures)
        self._failures += 1
        self._retry_at = time.monotonic() + pause * random.uniform(0.5, 1.0)

    def _observe(self) -> None:
        while self._monitor is not None:
            try:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            kind, value = _EVENT.unpack(frames[0])
            if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._failures = 0
                self.client.connected()
            elif kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._lose(DownReason.BUSY if value == 300 else DownReason.DENIED)
            elif kind in _LOST:
                while self._socket is not None and self._read():
                    pass  # what came before the end still counts
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


# What the end of a connection means.
_LOST: dict[int, DownReason] = {
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: DownReason.PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: DownReason.WRONG_KEY,
    zmq.EVENT_DISCONNECTED: DownReason.UNREACHABLE,
    zmq.EVENT_CLOSED: DownReason.UNREACHABLE,
}


def _split(frames: list[zmq.Frame]) -> tuple[BulkMessage, Buffer | None]:
    """A message and a chunk's bytes. Raises RemoteProtocolError."""
    if not 1 <= len(frames) <= 2:
        raise RemoteProtocolError(f"a bulk message of {len(frames)} frames")
    return unpack(frames[0].buffer), frames[1].buffer if len(frames) == 2 else None
