"""The thread that owns the sockets of bulk transfers."""

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
TICK = 0.1  # seconds; how late a timeout may be noticed


class Member(Protocol):
    """What the thread serves besides sockets."""

    @property
    def busy(self) -> bool:
        """Does it need ticks?"""

    def tick(self, now: float) -> None: ...

    def close(self) -> None: ...


class BulkLoop:
    """Reads what is ready, runs jobs, and lets its members know the time.

    `call` and `stop` are for any thread. The context ends with the thread, after `before_end`.
    """

    def __init__(self, context: Context, before_end: Callable[[], None]) -> None:
        self.members: list[Member] = []
        self.turn = 0
        self.working = threading.Event()
        """Set while it does not wait for something to do."""
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
        """End the thread, once it has run the jobs that it accepted."""
        self._jobs.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def call(self, function: Callable[[], object]) -> bool:
        """Run `function` on the thread; False, and it is not run, once the thread ends."""
        return self._jobs.post(function)

    def run(self, function: Callable[[], object]) -> None:
        """Run it now if this is the thread, else there soon."""
        if threading.current_thread() is self._thread:
            function()
        else:
            self.call(function)

    def watch(self, socket: Socket, read: Callable[[], object]) -> None:
        """Call `read` whenever there is something to read."""
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
            self.working.clear()
            ready = self._poller.poll(wait)
            self.turn += 1
            self.working.set()
            for socket, _ in ready:
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
            # Other transfers go on; this one is repeated or times out.
            _log.exception("a step of bulk transfer failed")
