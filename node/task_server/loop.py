"""A thread around epoll that calls handlers and does nothing of its own."""

from __future__ import annotations

import contextlib
import logging
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from manta.transports.jobs import Job, JobQueue

READ, WRITE = select.EPOLLIN, select.EPOLLOUT

Handler = Callable[[int], None]

log = logging.getLogger("manta.node")


class PollThread:
    """Calls handlers with what their sources are ready for, and `tick` in each turn.

    Sources come and go with each attempt, and `selectors` would keep books of its own, so this uses
    epoll directly. Everything but `start`, `post` and `stop` is for the thread itself.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], None],
        tick: Callable[[], float | None],
        finish: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._begin = begin
        self._tick = tick
        self._finish = finish
        self._on_failure = on_failure
        self._epoll = select.epoll()
        self._descriptors: dict[Any, int] = {}
        self._entries: dict[int, tuple[Any, Handler]] = {}
        self._jobs = JobQueue()
        self._taken: deque[Job] = deque()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def post(self, job: Job) -> bool:
        """Has a job run soon; False, and it is not run, at the end. From any thread."""
        return self._jobs.post(job)

    def stop(self) -> None:
        """Ends the thread after this turn and waits for it; from another thread."""
        self._jobs.stop()
        self._thread.join()

    def register(self, source: Any, handler: Handler) -> None:
        fd = source if isinstance(source, int) else source.fileno()
        self._epoll.register(fd, READ)
        self._descriptors[source] = fd
        self._entries[fd] = source, handler

    def unregister(self, source: Any) -> None:
        """Must come before the source is closed; idempotent."""
        fd = self._descriptors.pop(source, None)
        if fd is not None:
            del self._entries[fd]
            self._epoll.unregister(fd)

    def want_write(self, source: Any, wanted: bool) -> None:
        fd = self._descriptors.get(source)
        if fd is not None:
            self._epoll.modify(fd, READ | WRITE if wanted else READ)

    def __contains__(self, source: object) -> bool:
        return source in self._descriptors

    def _main(self) -> None:
        try:
            self._begin()
            self.register(self._jobs.fd, lambda _: None)
            while not self._jobs.stopped:
                self._run_jobs()
                patience = self._tick()
                ready = self._epoll.poll(patience if self._jobs.idle else 0)
                for source, handler, events in [(*self._entries[fd], ev) for fd, ev in ready]:
                    if source in self._descriptors:  # an earlier handler may drop it
                        # An error is found by reading, or by writing where that is waited for.
                        handler(events if events & (READ | WRITE) else READ | WRITE)
            self._run_jobs()
        except BaseException as error:
            self._jobs.stop()
            self._on_failure(error)
            self._run_rest()
        finally:
            with contextlib.closing(self._epoll), contextlib.closing(self._jobs):
                self._finish()

    def _run_jobs(self) -> None:
        self._taken.extend(self._jobs.take())
        while self._taken:
            self._taken.popleft()()

    def _run_rest(self) -> None:
        """What was accepted before a failure: somebody may wait for it."""
        while True:
            try:
                self._run_jobs()
                return
            except Exception:
                log.exception("A job of a thread that has failed.")
