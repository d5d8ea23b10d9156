"""The thread that owns a process's control sockets: a poll loop with jobs and timers.

Whatever a job, timer or reader raises is logged, and the loop goes on.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

from manta.transports.errors import LocalTransportError
from manta.transports.jobs import Job, JobQueue

T = TypeVar("T")
Call = Callable[[], None]

_log = logging.getLogger(__name__)


class Timer:
    """A call that is to come; `cancel` is for the I/O thread."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call: Call | None = call

    def cancel(self) -> None:
        self.call = None


class IoThread:
    """`call` and `run` are for any thread, all else for calls that run on this one."""

    def __init__(self, name: str) -> None:
        self._jobs = JobQueue()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._readers: dict[int, Call] = {}
        self._before_waits: list[Call] = []
        self._poller = _Poller()
        self._poller.add(self._jobs.fd)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._id = 0

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end; False if it did not."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def is_current(self) -> bool:
        return threading.get_ident() == self._id

    # --- for any thread --------------------------------------------------------------------

    def call(self, call: Job) -> bool:
        """Run `call` there soon, in the order of the calls; False, and it is not, at the end."""
        return self._jobs.post(call)

    def run(self, call: Callable[[], T], timeout: float) -> T:
        """Run `call` there and return what it does. Raises what it raises, and TimeoutError."""
        if self.is_current():
            return call()
        outcome: Future[T] = Future()

        def both() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # goes to who waits
                outcome.set_exception(error)

        if not self.call(both):
            raise LocalTransportError("the transport is closed: make a new one")
        if not wait([outcome], timeout).done:
            raise TimeoutError(
                f"the I/O thread did not answer in {timeout:g} s: a handler blocks it"
            )
        return outcome.result()

    # --- for the I/O thread ----------------------------------------------------------------

    def end(self) -> None:
        """Let the loop end after this turn."""
        self._jobs.stop()

    def call_later(self, delay: float, call: Call) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._numbers), timer))
        return timer

    def before_each_wait(self, call: Call) -> None:
        """Have `call` called in each turn, after all else: it sees what a burst of jobs, timers and
        readers came to once, not after each of them. Also before the thread is started."""
        self._before_waits.append(call)

    def add_reader(self, fd: int, call: Call) -> None:
        """Have `call` called whenever `fd` can be read."""
        self._readers[fd] = call
        self._poller.add(fd)

    def remove_reader(self, fd: int) -> None:
        """To be called before `fd` is closed."""
        if self._readers.pop(fd, None) is not None:
            self._poller.remove(fd)

    def _run(self) -> None:
        self._id = threading.get_ident()
        jobs, readers, timers, poll = self._jobs, self._readers, self._timers, self._poller.poll
        try:
            while not jobs.stopped:
                for job in jobs.take():  # one that posts itself again comes after all others
                    _guarded(job)
                pause = -1.0
                if timers:
                    now = time.monotonic()
                    while timers and timers[0][0] <= now:
                        call = heapq.heappop(timers)[2].call
                        if call is not None:
                            _guarded(call)
                for call in self._before_waits:
                    _guarded(call)
                if timers:
                    pause = max(0.0, timers[0][0] - time.monotonic())
                if not jobs.idle:
                    pause = 0.0
                for fd, _ in poll(pause):
                    reader = readers.get(fd)
                    if reader is not None:  # not the queue, nor removed by one before it
                        _guarded(reader)
        finally:
            jobs.stop()
            for job in jobs.take():
                _guarded(job)
            self._poller.close()
            jobs.close()


def _guarded(call: Job) -> None:
    try:
        call()
    except BaseException:  # one failure must not silence every link of the process
        _log.exception("a call on the I/O thread failed")


class _Poller:
    """epoll where there is one: what it costs does not grow with the idle links."""

    def __init__(self) -> None:
        if TYPE_CHECKING or hasattr(select, "epoll"):
            self._poll = select.epoll()
            self.poll: Callable[[float], list[tuple[int, int]]] = self._poll.poll
        else:
            self._poll = select.poll()
            self.poll = lambda wait: self._poll.poll(-1 if wait < 0 else int(wait * 1000) + 1)

    def add(self, fd: int) -> None:
        self._poll.register(fd, 1)  # EPOLLIN and POLLIN

    def remove(self, fd: int) -> None:
        self._poll.unregister(fd)

    def close(self) -> None:
        if hasattr(self._poll, "close"):
            self._poll.close()
