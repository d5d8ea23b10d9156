"""Work that takes more than a millisecond, done on a few threads in turns.

Each user, node or stranger has one job at a time there: those of one who asks for many wait for
each other, and others' pass them. How many wait is bounded by how much one may ask.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Jobs:
    def __init__(self, workers: Executor) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[Callable[[], object]]] = {}
        """By who asked: of each that is here one job is at the workers."""

    def submit(self, who: str, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[Any] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    result = job(*args, **kwargs)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        with self._lock:
            waiting = self._waiting.get(who)
            if waiting is not None:
                waiting.append(run)
                return future
            self._waiting[who] = deque()
        self._workers.submit(self._run, who, run)
        return future

    def _run(self, who: str, run: Callable[[], object]) -> None:
        try:
            run()
        finally:
            with self._lock:
                waiting = self._waiting[who]
                following = waiting.popleft() if waiting else None
                if following is None:
                    del self._waiting[who]
            if following is not None:
                self._workers.submit(self._run, who, following)
