"""What ends a daemon: a signal, or the daemon itself, whichever comes first."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

from manta.console.early import SIGNALS
from manta.console.exit_codes import Exit


class Stopping:
    """From its beginning on, a signal that asks the process to end ends `wait`.

    A signal that was ignored (nohup) stays ignored. It is made in the main thread, which also
    waits. `on_signal` is called for each signal, between any two lines of the main thread. With
    `follows`, the end of what is read from that descriptor ends `wait` as well: whoever holds the
    other end of it has ended.
    """

    def __init__(
        self, on_signal: Callable[[], object] = lambda: None, *, follows: int | None = None
    ) -> None:
        self._on_signal = on_signal
        self._follows = follows
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._why: tuple[int, str] | None = None
        # Any thread may be the one that takes a signal, while the main thread, in which Python
        # runs the handler, sleeps on: this wakes it up.
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, _: object) -> None:
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # who presses Ctrl-C twice will not wait
        self.stop(Exit.OK, f"told to stop by {signal.Signals(number).name}")
        self._on_signal()

    def stop(self, code: int, sentence: str) -> None:
        """May be called from any thread and from a signal handler: it takes no lock."""
        if self._why is None:
            self._why = code, sentence
            os.write(self._write, b".")

    @property
    def is_told(self) -> bool:
        return self._why is not None

    def is_told_within(self, timeout: float | None) -> bool:
        """Returns at once when the process is asked to end, or after `timeout` seconds."""
        while self._why is None:
            watched = [self._read] if self._follows is None else [self._read, self._follows]
            ready = select.select(watched, [], [], timeout)[0]
            if not ready:
                return False
            if self._read in ready:
                os.read(self._read, 4096)
            elif not os.read(ready[0], 4096):
                self.stop(Exit.OK, "whoever started this process has ended")
        return True

    def wait(self) -> tuple[int, str]:
        """Returns the exit code and why."""
        while self._why is None:
            self.is_told_within(None)
        return self._why
