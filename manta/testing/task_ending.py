"""The end of a task that runs in this process: what a node does, for what came with the task.

On a node the process ends with the task. This one goes on, so only threads, executors, handlers
and open files count that came while the task ran.
"""

from __future__ import annotations

import atexit
import gc
import signal
import sys
import sysconfig
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import manta
from manta.light.runtime import ending

_INSTALLED = {"site-packages", "dist-packages"}
_NOT_THE_USERS = (Path(sysconfig.get_path("stdlib")), Path(manta.__file__).parent)


class TaskEnding(ending.Ending):
    """`modules` and `let_go` are for `Ending`, `name` for the warning if something is cut off."""

    def __init__(self) -> None:
        super().__init__((), lambda: None, self._keep, lambda: None)
        self._before = frozenset(threading.enumerate())
        self._handlers: list[Callable[[], object]] = []
        self._finalizers = set(weakref.finalize._registry)  # type: ignore[attr-defined]
        self._left: list[str] = []
        self._until = 0.0

    def of(self, modules: Iterable[str], let_go: Callable[[], None]) -> None:
        """Says what the task has, once that is over without an error: an error may refer to it."""
        self._modules = modules
        self._let_go = let_go

    def run(self, patience: float) -> None:
        self._until = time.monotonic() + patience
        if threading.current_thread() is threading.main_thread():
            with _borrowed_alarm():
                super().run(patience)
        else:
            try:
                self._end()
            except ending.CutOff:
                self.write_out()
        if self._left:
            sentence = ending.cut_off("The task", self._left[0], patience)
            warnings.warn(sentence, RuntimeWarning, stacklevel=3)

    def _keep(self, what: str) -> None:
        self._left.append(what)

    def join(self, thread: Any) -> None:
        threading.Thread.join(thread, max(0.0, self._until - time.monotonic()))
        if thread.is_alive():
            self._keep(ending.names(self.threads()))
            raise ending.CutOff

    def threads(self) -> list[Any]:
        mine = {*self._before, threading.current_thread()}
        return [thread for thread in super().threads() if thread not in mine]

    def has_threads(self) -> bool:
        return bool({*threading.enumerate()} - self._before)

    def end_executors(self) -> None:
        if not self.threads():
            return
        from concurrent.futures import Executor

        executors: list[Any] = [x for x in gc.get_objects() if issubclass(type(x), Executor)]
        for executor in executors:
            manager = getattr(executor, "_executor_manager_thread", None)
            threads = {*getattr(executor, "_threads", ()), manager} - {None}
            if threads and not threads & self._before:
                executor.shutdown(wait=False)  # its threads do what is left, and are waited for

    def call_handlers(self) -> None:
        while self._handlers:
            ending.call(self._handlers.pop())
        new = [at for at in weakref.finalize._registry if at not in self._finalizers]  # type: ignore[attr-defined]
        for finalizer in reversed(new):
            held = finalizer.peek()
            code = getattr(held[1], "__code__", None) if held is not None else None
            if finalizer.atexit and code is not None and _is_the_users(code.co_filename):
                ending.call(finalizer)

    # Exit handlers.

    @contextmanager
    def handlers(self) -> Iterator[None]:
        """Takes the exit handlers that the user's code registers; those of libraries, which stay
        imported, are left to this process's end."""
        register, unregister = atexit.register, atexit.unregister

        def take(function: Any, *args: Any, **kwargs: Any) -> Any:
            if not _is_the_users(sys._getframe(1).f_code.co_filename):
                return register(function, *args, **kwargs)
            self._handlers.append(partial(function, *args, **kwargs))
            return function

        def drop(function: Any) -> None:
            self._handlers = [at for at in self._handlers if at.func != function]  # type: ignore[attr-defined]
            unregister(function)

        atexit.register, atexit.unregister = take, drop  # type: ignore[assignment]
        try:
            yield
        finally:
            atexit.register, atexit.unregister = register, unregister


@contextmanager
def task_ending(patience: float | None = None) -> Iterator[TaskEnding]:
    """Yields the end of the task whose code runs meanwhile, and has it end afterwards."""
    is_frozen = gc.get_freeze_count() > 0
    if not is_frozen:
        gc.freeze()  # leaves what the task makes for the collector to look through
    done = TaskEnding()
    try:
        with done.handlers():
            try:
                yield done
            finally:
                done.run(ending.PATIENCE if patience is None else patience)
    finally:
        if not is_frozen:
            gc.unfreeze()


@contextmanager
def _borrowed_alarm() -> Iterator[None]:
    """Gives this process its alarm back, with the time that was left."""
    handler, mask = signal.getsignal(signal.SIGALRM), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    (left, interval), began = signal.getitimer(signal.ITIMER_REAL), time.monotonic()
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # forgets one that came too late
        signal.signal(signal.SIGALRM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if left:
            left = max(0.001, left - (time.monotonic() - began))
            signal.setitimer(signal.ITIMER_REAL, left, interval)


def _is_the_users(file: str) -> bool:
    path = Path(file)
    if file.startswith("<frozen") or _INSTALLED & {*path.parts}:
        return False
    return not any(path.is_relative_to(place) for place in _NOT_THE_USERS)
