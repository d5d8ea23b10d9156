"""The thread that bulk sockets live on."""

from __future__ import annotations

import contextlib
import logging
import socket as std_socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import zmq

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.zeromq.sockets import Context, Socket

_log = logging.getLogger(__name__)
TICK = 0.1  # seconds; how late a time-out may be noticed


class Member(Protocol):
    """What lives on the thread."""

    @property
    def busy(self) -> bool:
        """Does it need to be told the time?"""

    def tick(self, now: float) -> None: ...

    def close(self) -> None: ...


class BulkLoop:
    """Reads what is ready, runs what it is asked to, tells its members the time.

    Only `call` and `stop` are for other threads. The context ends with the thread, after
    `before_end`.
    """

    def __init__(self, context: Context, before_end: Callable[[], None]) -> None:
        self.members: list[Member] = []
        self._context = context
        self._before_end = before_end
        self._poller = zmq.Poller()
        self._readers: dict[Any, Callable[[], object]] = {}
        self._calls: deque[Callable[[], object]] = deque()
        self._calling = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="manta-bulk", daemon=True)

    def start(self) -> None:
        """Once, and before anything else."""
        self._wake_in, self._wake_out = std_socket.socketpair()
        for socket in (self._wake_in, self._wake_out):
            socket.setblocking(False)
        self._poller.register(self._wake_out.fileno(), zmq.POLLIN)
        self._readers[self._wake_out.fileno()] = self._run_calls
        self._thread.start()

    def stop(self) -> None:
        """End the thread, having run what it was asked to before."""
        with self._calling:
            if not self._stopping:
                self._stopping = True
                self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def call(self, function: Callable[[], object]) -> bool:
        """Have it run on the thread; False when that ends."""
        with self._calling:
            if self._stopping:
                return False
            self._calls.append(function)
            self._wake()
            return True

    def watch(self, socket: Socket, read: Callable[[], object]) -> None:
        """Have `read` called whenever there is something to read."""
        self._poller.register(socket, zmq.POLLIN)
        self._readers[socket] = read

    def forget(self, socket: Socket) -> None:
        self._poller.unregister(socket)
        del self._readers[socket]

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # then there is enough in it already
            self._wake_in.send(b"x")

    def _run(self) -> None:
        ticked = 0.0
        while not self._stopping:
            busy = any(member.busy for member in self.members)
            for socket, _ in self._poller.poll(int(TICK * 1000) if busy else None):
                read = self._readers.get(socket)
                if read is not None:  # else forgotten by one before it
                    self._guarded(read)
            now = time.monotonic()
            if now >= ticked + TICK:
                ticked = now
                for member in list(self.members):
                    self._guarded(member.tick, now)
        self._run_calls()
        for member in list(self.members):
            self._guarded(member.close)
        self._guarded(self._before_end)
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()

    def _run_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_out.recv(4096)
        while self._calls:
            self._guarded(self._calls.popleft())

    @staticmethod
    def _guarded(function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception:
            # The other transfers go on; those of this one are asked for again, or time out.
            _log.exception("a step of bulk transfer failed")
