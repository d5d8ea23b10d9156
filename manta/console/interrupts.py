"""Ctrl-C, SIGTERM and SIGHUP as exceptions that are raised only where they do no harm."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from manta.console import early
from manta.console.exit_codes import Exit
from manta.console.terminal import print_lines

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPEAT = 0.3
"""Seconds after which Interrupted is raised again unless it was caught: Python drops what is
raised inside a finalizer or a weak reference's callback, and imports are full of them."""


class Interrupted(BaseException):
    """The command was asked to end. No Exception, so that nobody catches it by accident."""

    def __init__(self, number: int) -> None:
        super().__init__("Interrupted" if number == signal.SIGINT else "Terminated")
        self.exit = Exit.INTERRUPTED if number == signal.SIGINT else Exit.TERMINATED

    def tell(self, then: str = ".") -> None:
        """Say so on stderr, below the `^C` that a terminal has shown."""
        above = [""] if self.exit is Exit.INTERRUPTED and sys.stderr.isatty() else []
        print_lines(*above, f"{self}{then}", err=True)


class _Waker:
    """Wakes the main thread, which may sleep in a lock for long, when another one took a signal:
    Python runs the handler in the main thread only."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._write, False)
        self._handler = signal.signal(signal.SIGURG, lambda *_: None)
        self._fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="manta-signals", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while numbers := os.read(self._read, 512):
            if numbers.strip(bytes([signal.SIGURG])):
                signal.pthread_kill(main, signal.SIGURG)

    def close(self) -> None:
        signal.set_wakeup_fd(self._fd)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)
        signal.signal(signal.SIGURG, self._handler)


class Interrupts:
    """Between `begin` and `finish`, a signal raises Interrupted in the main thread.

    Inside `held()` it waits for the end of that, before `begin` for `begin`. Later signals only
    set `insisted`, and what was started is then killed. An Interrupted that nobody catches ends
    the command with its exit code. A signal that was ignored (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.insisted = False
        self._held = 1  # until `begin`
        self._pending: int | None = None
        self._told = False
        self._finished = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self._report = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._handle)
        self._previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, lambda *_: self.check())
        self._waker = _Waker()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.finish()
        self._waker.close()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._report
        if isinstance(error, Interrupted):
            error.tell()
            raise click.exceptions.Exit(error.exit) from None

    def begin(self) -> None:
        """From here on the command can be interrupted, and knows what to clean up."""
        self._held -= 1
        self.check()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Do something as a whole: a signal waits for its end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self.check()

    def finish(self) -> None:
        """The command is ending: signals raise nothing more."""
        self._finished = True
        if self._told:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def check(self) -> None:
        """Raise Interrupted if a signal is pending and may be raised now."""
        if self._pending is not None and not self._held and not self._finished:
            self._told = True
            early.told = self._pending
            signal.setitimer(signal.ITIMER_REAL, _REPEAT)
            raise Interrupted(self._pending)

    def check_again(self) -> None:
        """Raise Interrupted if it was raised before: what fails afterwards may fail because of it,
        as an import does that was cut short."""
        if self._told and self._pending is not None:
            raise Interrupted(self._pending)

    def _unraisable(self, unraisable: sys.UnraisableHookArgs, /) -> None:
        """No traceback where Python drops Interrupted, which is raised again."""
        if not isinstance(unraisable.exc_value, Interrupted):
            self._report(unraisable)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._told or self._finished:
            self.insisted = True
            return
        self._pending = number
        self.check()
