"""The thread that bulk sockets live on."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import zmq

from manta.transports.jobs import JobQueue

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
        self._thread = threading.Thread(target=self._run, name="manta-bulk", daemon=True)

    def start(self) -> None:
        """Once, and before anything else."""
        self._jobs = JobQueue()
        self._poller.register(self._jobs.fd, zmq.POLLIN)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, having run what it was asked to before."""
        self._jobs.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def call(self, function: Callable[[], object]) -> bool:
        """Have it run on the thread; False when that ends."""
        return self._jobs.post(function)

    def watch(self, socket: Socket, read: Callable[[], object]) -> None:
        """Have `read` called whenever there is something to read."""
        self._poller.register(socket, zmq.POLLIN)
        self._readers[socket] = read

    def forget(self, socket: Socket) -> None:
        self._poller.unregister(socket)
        del self._readers[socket]

    def _run(self) -> None:
        ticked = 0.0
        while not self._jobs.stopped:
            for job in self._jobs.take():
                self._guarded(job)
            busy = any(member.busy for member in self.members)
            wait = (int(TICK * 1000) if busy else None) if self._jobs.idle else 0
            for socket, _ in self._poller.poll(wait):
                read = self._readers.get(socket)
                if read is not None:  # not the queue, nor forgotten by one before it
                    self._guarded(read)
            now = time.monotonic()
            if now >= ticked + TICK:
                ticked = now
                for member in list(self.members):
                    self._guarded(member.tick, now)
        for job in self._jobs.take():
            self._guarded(job)
        for member in list(self.members):
            self._guarded(member.close)
        self._guarded(self._before_end)
        self._context.term()
        self._jobs.close()

    @staticmethod
    def _guarded(function: Callable[..., object], *arguments: object) -> None:
        try:
            function(*arguments)
        except Exception:
            # The other transfers go on; those of this one are asked for again, or time out.
            _log.exception("a step of bulk transfer failed")
