"""The thread that owns a process's control sockets: a poll loop with tasks and timers.

Other threads reach it through a deque and a wake-up, one write to a burst.
Whatever a task, timer or handler raises is logged, and the loop goes on.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from manta.transports.errors import LocalTransportError

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
        self._tasks: deque[Call] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._readers: dict[int, Call] = {}
        self._poller = _Poller()
        self._wakeup = _Wakeup()
        self._wake_sent = False
        self._stopping = False
        self._closed = False
        self._poller.add(self._wakeup.fd)
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

    def call(self, task: Call) -> None:
        """Run `task` there soon, in the order of the calls; it is dropped once stopped."""
        self._tasks.append(task)
        # The loop clears the mark before it empties the deque: if it is set, this task is seen.
        if not self._wake_sent and threading.get_ident() != self._id and not self._closed:
            self._wake_sent = True
            self._wakeup.send()

    def run(self, task: Callable[[], T], timeout: float) -> T:
        """Run `task` there and return what it does. Raises what it raises, and TimeoutError."""
        if self.is_current():
            return task()
        done = threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        def both() -> None:
            try:
                results.append(task())
            except BaseException as error:  # goes to who waits
                errors.append(error)
            done.set()

        self.call(both)
        deadline = time.monotonic() + timeout
        while not done.wait(0.05):
            if not self._thread.is_alive() and not done.is_set():
                raise LocalTransportError("the transport is closed: make a new one")
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"the I/O thread did not answer in {timeout:g} s: a handler blocks it"
                )
        if errors:
            raise errors[0]
        return results[0]

    # --- for the I/O thread ----------------------------------------------------------------

    def end(self) -> None:
        """Let the loop end after this round."""
        self._stopping = True

    def call_later(self, delay: float, call: Call) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._numbers), timer))
        return timer

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
        tasks, readers, timers = self._tasks, self._readers, self._timers
        poll, wakeup = self._poller.poll, self._wakeup.fd
        try:
            while not self._stopping:
                # A snapshot of how many: a task that queues itself again does not starve the rest.
                for _ in range(len(tasks)):
                    _guarded(tasks.popleft())
                wait = -1.0
                if timers:
                    now = time.monotonic()
                    while timers and timers[0][0] <= now:
                        call = heapq.heappop(timers)[2].call
                        if call is not None:
                            _guarded(call)
                    if timers:
                        wait = max(0.0, timers[0][0] - now)
                if tasks or self._stopping:
                    wait = 0.0
                for fd, _ in poll(wait):
                    if fd == wakeup:
                        self._wakeup.clear()
                        self._wake_sent = False
                    else:
                        reader = readers.get(fd)
                        if reader is not None:  # removed by one before it in this burst
                            try:
                                reader()
                            except BaseException:
                                _log.exception("a call on the I/O thread failed")
        finally:
            self._closed = True
            self._poller.close()
            self._wakeup.close()


def _guarded(call: Call) -> None:
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


class _Wakeup:
    """A descriptor that another thread makes readable."""

    def __init__(self) -> None:
        if TYPE_CHECKING or hasattr(os, "eventfd"):
            self.fd = self._other = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.fd, self._other = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._other, False)
        self._closing = threading.Lock()
        self._open = True

    def send(self) -> None:
        with self._closing:  # never into a descriptor that is somebody else's by now
            if not self._open:
                return
            try:
                os.write(self._other, b"\1\0\0\0\0\0\0\0")
            except BlockingIOError:
                return  # full: it is awake

    def clear(self) -> None:
        os.read(self.fd, 4096)

    def close(self) -> None:
        with self._closing:
            self._open = False
            os.close(self.fd)
            if self._other != self.fd:
                os.close(self._other)
