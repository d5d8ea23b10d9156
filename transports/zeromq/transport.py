"""Links over CURVE: one ROUTER for each listener, one DEALER for each dialled link."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from manta.transports.addresses import split_address
from manta.transports.errors import LocalTransportError
from manta.transports.security.keys import KeyPair, check_key
from manta.transports.security.zap import ZapServer
from manta.transports.zeromq.connections import LOOK, SELDOM, Lookout
from manta.transports.zeromq.dialled import DialledLink
from manta.transports.zeromq.io_thread import IoThread
from manta.transports.zeromq.links import LinkOptions
from manta.transports.zeromq.listener import ZmqListener
from manta.transports.zeromq.sockets import NEVER, SocketFactory, SocketOptions, new_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.interface import LinkHandler
    from manta.transports.security.admission import Admission
    from manta.transports.zeromq.sockets import Context

CLOSE_TIMEOUT = 10.0  # seconds

_domains = itertools.count(1)
_log = logging.getLogger(__name__)


class ZmqTransport:
    """Implements `interface.Transport`; one for each process.

    It owns its I/O thread, its zmq context and the context's ZAP handler.
    """

    def __init__(
        self,
        keys: KeyPair,
        *,
        options: LinkOptions | None = None,
        sockets: SocketOptions | None = None,
    ) -> None:
        self.public_key = keys.public
        self._options = options or LinkOptions()
        self._context: Context = new_context()
        self._zap = ZapServer(self._context)
        self._zap_started = False
        limits = self._options.limits
        # Longer than a link's: zmq mistakes a large message on a slow line for silence.
        sockets = sockets or SocketOptions(heartbeat_timeout=30_000)
        # A head holds all parts, or the sizes of all.
        frame = max(limits.frame_bytes, 16384) + 4 * limits.parts + 64
        self._server_factory = SocketFactory(
            self._context, keys, zap=self._zap, options=replace(sockets, frame_bytes=frame)
        )
        # A dialled link makes a new socket itself: see `dialled`.
        dialling = replace(sockets, frame_bytes=frame, reconnect=NEVER, reconnect_max=0)
        self._client_factory = SocketFactory(self._context, keys, options=dialling)
        self._changing = threading.Lock()
        self._listeners: set[ZmqListener] = set()
        self._links: set[DialledLink] = set()
        self._closed = False
        self._was_healthy = True
        self.io = self._io = IoThread("manta-io")
        self._io.start()
        self._ticked_at = time.monotonic()
        self._lookout = Lookout()
        self._io.call(lambda: self._io.call_later(self._options.heartbeat / 2, self._tick))
        self._io.call(self._look)

    @property
    def healthy(self) -> bool:
        """Can peers still be admitted? False when the ZAP handler missed its probes."""
        return not self._closed and (not self._listeners or self._zap.healthy)

    def listen(
        self,
        address: str,
        handler: LinkHandler,
        admission: Admission,
        *,
        fd: int | None = None,
    ) -> ZmqListener:
        with self._changing:
            self._check_open()
            if not self._zap_started:
                self._zap.start()
                self._zap_started = True
            listener = ZmqListener(
                self._io,
                self._server_factory,
                self._zap,
                handler,
                admission,
                self._options,
                f"manta.{next(_domains)}",
                self._listeners.discard,
            )
            listener.open(address, fd)
            self._listeners.add(listener)
        return listener

    def dial(self, address: str, server_key: str, handler: LinkHandler) -> DialledLink:
        check_key(server_key, "server's public key")
        split_address(address)
        with self._changing:
            self._check_open()
            link = DialledLink(
                self._io,
                self._client_factory,
                address,
                server_key,
                handler,
                self._options,
                self._links.discard,
            )
            self._links.add(link)
        self._io.call(link.attempt)
        return link

    def call_soon(self, call: Callable[[], None]) -> None:
        """Run `call` on the I/O thread, in order with the handlers; it must not block."""
        self._io.call(call)

    def is_current(self) -> bool:
        """Is this the I/O thread?"""
        return self._io.is_current()

    def close(self) -> None:
        with self._changing:
            if self._closed:
                return
            if self._io.is_current():
                raise LocalTransportError(
                    "a handler cannot close its own transport: use another thread"
                )
            self._closed = True
        self._io.call(self._close_all)
        # In the second turn, so that the handlers' last calls run before the thread ends.
        self._io.call(lambda: self._io.call(self._io.end))
        if not self._io.join(CLOSE_TIMEOUT):
            _log.error("a handler blocks the I/O thread: its sockets stay open until it ends")
            return
        self._zap.stop()
        self._context.term()  # within the linger limit

    # --- on the I/O thread -------------------------------------------------------------------

    def _close_all(self) -> None:
        for link in list(self._links):
            link.close()
        for listener in list(self._listeners):
            listener.close_now()

    def _tick(self) -> None:
        now = time.monotonic()
        interval = self._options.heartbeat / 2
        passed = now - self._ticked_at
        self._ticked_at = now
        if passed > 4 * interval:
            # This process was suspended: what its peers sent meanwhile has yet to be read.
            passed = 0.0
        if self.healthy != self._was_healthy and not self._closed:
            self._was_healthy = not self._was_healthy
            if not self._was_healthy:
                _log.error("the ZAP handler does not answer: no peer can connect; restart")
        for link in list(self._links):
            link.tick(passed)
        for listener in list(self._listeners):
            listener.tick(passed)
        self._io.call_later(interval, self._tick)

    def _look(self) -> None:
        # First: whatever fails, it goes on. Who only dials has few peers, which it has chosen.
        self._io.call_later(LOOK if self._listeners else SELDOM, self._look)
        passed = self._lookout.passed(time.monotonic())
        if passed is not None:
            for link in list(self._links):
                link.look(passed)
            for listener in list(self._listeners):
                listener.look(passed)

    def _check_open(self) -> None:
        if self._closed:
            raise LocalTransportError("this transport is closed: make a new one")
