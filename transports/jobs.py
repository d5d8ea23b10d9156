"""How other threads reach a thread that waits for descriptors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

Job = Callable[[], object]


class JobQueue:
    """Jobs that any thread posts and one thread runs, in the order of the posts.

    `post` and `stop` are for any thread. The one that runs the jobs calls `take` in each turn,
    and waits for its descriptors, `fd` among them, only while the queue is `idle`. After `stop`
    it takes once more, and closes the queue: so each job that was accepted is run.
    """

    def __init__(self) -> None:
        if TYPE_CHECKING or hasattr(os, "eventfd"):
            self.fd = self._other = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.fd, self._other = os.pipe()
        self.stopped = False
        self._jobs: list[Job] = []
        self._lock = threading.Lock()
        self._awake = False  # the descriptor is readable: a burst of posts costs one write
        self._runner = 0  # the thread that takes, once it has

    @property
    def idle(self) -> bool:
        return not self._jobs and not self.stopped

    def post(self, job: Job) -> bool:
        """Have a job run soon; False, and it is not, once the queue was stopped."""
        with self._lock:
            if self.stopped:
                return False
            self._jobs.append(job)
            self._wake()
            return True

    def stop(self) -> None:
        """Accept no more jobs. Idempotent."""
        with self._lock:
            if not self.stopped:
                self.stopped = True
                self._wake()

    def take(self) -> list[Job]:
        """What has been posted since the last time."""
        with self._lock:
            self._runner = threading.get_ident()
            if self._awake:
                self._awake = False
                os.read(self.fd, 8)
            jobs, self._jobs = self._jobs, []
            return jobs

    def close(self) -> None:
        """Once it was stopped, for the thread that takes."""
        for fd in {self.fd, self._other}:
            os.close(fd)

    def _wake(self) -> None:
        if not self._awake and threading.get_ident() != self._runner:
            self._awake = True
            os.write(self._other, b"\1\0\0\0\0\0\0\0")
