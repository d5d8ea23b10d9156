"""The bulk plane, apart from control messages: over CURVE sockets, with a thread and a zmq
context of its own.

Values are not compressed in their container (`codec.values`), because a task must read them
without lz4: that is done here, chunk by chunk, when a sample of the blob says that it pays.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

import zmq

from manta.transports.bulk.client import Request
from manta.transports.bulk.flow import RequestTimer
from manta.transports.bulk.loop import BulkLoop
from manta.transports.bulk.options import BulkOptions
from manta.transports.bulk.server import BulkServer
from manta.transports.bulk.sockets import ClientSocket, ServerSocket, send_to
from manta.transports.bulk.transfers import Statistics
from manta.transports.bulk.watch import Watch
from manta.transports.errors import BulkError
from manta.transports.security.keys import check_key
from manta.transports.security.zap import ZapServer
from manta.transports.zeromq.connections import MONITORED
from manta.transports.zeromq.sockets import SocketFactory, new_context, stop_monitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.blobs.interface import Depot, ServedDepot, Sink
    from manta.transports.bulk.options import Operation
    from manta.transports.bulk.server import Authorize, Pushed, SourceFor
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair
    from manta.transports.zeromq.sockets import Context


D_co = TypeVar("D_co", bound="Depot", covariant=True)


class CurveBulk(Generic[D_co]):
    """One process's bulk plane. Thread-safe.

    Futures are settled, and `authorize`, `pushed` and the depot are called, on its thread.
    """

    def __init__(self, keys: KeyPair, depot: D_co, *, options: BulkOptions | None = None) -> None:
        self.statistics = Statistics()
        self._depot = depot
        self._options = options or BulkOptions()
        self._context: Context = new_context(self._options.io_threads)
        self._zap = ZapServer(self._context)
        self._factory = SocketFactory(
            self._context, keys, zap=self._zap, options=self._options.sockets
        )
        self._loop = BulkLoop(self._context, self._zap.stop)
        self._watch = Watch(self._loop, self._glance)
        self._listeners: list[ServerSocket] = []
        self._unwatch: list[Callable[[], None]] = []
        self._changing = threading.Lock()
        self._started = False
        self._closed = False

    def listen(
        self: CurveBulk[ServedDepot],
        address: str,
        admission: Admission,
        authorize: Authorize,
        *,
        pushed: Pushed = lambda *_: None,
        source: SourceFor | None = None,
        fd: int | None = None,
    ) -> str:
        """Serve the depot; returns the address with the port that was taken.

        `authorize(peer_key, operation, digest, size)` decides on each transfer at its start, and
        may raise BlobRefused to say why not. `pushed(peer_key, digest)` is told that a peer has
        sent all of a blob, before the peer is. `source(peer_key, digest)` opens what a peer
        fetches, where that is not simply the depot's; it may raise BlobMissing. `fd` is a TCP
        socket that already listens. Raises AddressInUse.
        """
        self._start()
        with self._changing, contextlib.ExitStack() as undo:
            if not self._zap.healthy:
                self._zap.start()
                self._watch.start()
            domain = f"manta.bulk.{len(self._listeners)}"
            self._zap.register(domain, admission)
            undo.callback(self._zap.unregister, domain)
            socket = self._factory.server(zmq.ROUTER, domain)
            undo.callback(socket.close, 0)
            monitor = socket.get_monitor_socket(MONITORED)
            undo.callback(stop_monitor, socket, monitor)
            bound = self._factory.bind(socket, address, fd=fd)
            undo.pop_all()
            send, options = partial(send_to, socket), self._options
            server = BulkServer(
                self._depot, admission, authorize, pushed, send, options, self.statistics, source
            )
            listener = ServerSocket(socket, monitor, server, admission, options, bound)
            self._listeners.append(listener)
            self._unwatch.append(admission.watch(listener.cut))
        self._loop.call(partial(listener.watched_by, self._loop))
        return bound

    def grown(self, digest: str) -> None:
        """More of a blob that is served while it arrives is there."""

        def tell() -> None:
            for listener in self._listeners:
                listener.server.grown(digest)

        self._loop.run(tell)

    def failed(self, digest: str, error: BulkError) -> None:
        """A blob that was served while it arrived does not arrive: whoever fetches it is told."""

        def tell() -> None:
            for listener in self._listeners:
                listener.server.failed(digest, error)

        self._loop.call(tell)

    def dial(
        self, address: str, server_key: str, *, options: BulkOptions | None = None
    ) -> BulkPeer:
        """Returns at once; connects when there is something to move."""
        check_key(server_key, "server's public key")
        options = options or self._options
        self._start()
        connection = ClientSocket(
            self._loop,
            self._factory,
            address,
            server_key,
            self._depot,
            options,
            self.statistics,
        )
        return BulkPeer(self._loop, connection, options)

    def close(self) -> None:
        """Idempotent; what is in progress raises BulkError."""
        with self._changing:
            started, self._closed = self._started and not self._closed, True
            while self._unwatch:
                self._unwatch.pop()()
        if started:
            self._loop.stop()
            self._watch.stop()
        else:
            self._context.term()

    def _glance(self) -> None:
        for listener in self._listeners:
            listener.glance(self._loop)

    def _start(self) -> None:
        with self._changing:
            if self._closed:
                raise BulkError("the bulk plane is closed: nothing can be moved any longer")
            if not self._started:
                self._loop.start()
                self._started = True  # only now: a signal may raise before, and `close` joins


class BulkPeer:
    """Transfers with one dialled peer; they survive lost connections until `timeout` seconds."""

    def __init__(self, loop: BulkLoop, connection: ClientSocket, options: BulkOptions) -> None:
        self._loop = loop
        self._connection = connection
        self._options = options

    def push(self, digest: str, size: int, *, timeout: float) -> Future[None]:
        """Move a blob of this process's depot there; done once the peer has published it."""
        return self._request("push", digest, size, timeout)

    def fetch(
        self, digest: str, size: int, *, timeout: float, sink: Sink | None = None
    ) -> Future[None]:
        """Move a blob of the peer's depot here; done once this depot has published it, or the sink
        that is given for it."""
        return self._request("fetch", digest, size, timeout, sink)

    def close(self) -> None:
        """Idempotent; what is in progress raises BulkError."""
        self._loop.call(self._connection.close)

    def _request(
        self,
        operation: Operation,
        digest: str,
        size: int,
        timeout: float,
        sink: Sink | None = None,
    ) -> Future[None]:
        future: Future[None] = Future()
        options = self._options
        timer = RequestTimer(
            time.monotonic(),
            timeout,
            options.repeat_after,
            silence=options.silence,
            standstill=options.standstill,
        )
        request = Request(operation, digest, size, future, timer, sink)
        connection = self._connection

        def cancelled(future: Future[None]) -> None:
            if future.cancelled():
                self._loop.call(lambda: connection.client.forget(request))

        if self._loop.call(lambda: connection.start(request)):
            future.add_done_callback(cancelled)
        else:
            request.settle(BulkError("the bulk plane is closed: nothing can be moved any longer"))
        return future
