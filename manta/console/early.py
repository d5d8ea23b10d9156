"""Signals while a command is still being imported, which takes 0.1 to 0.5 s.

Python itself would raise KeyboardInterrupt in the middle of an import, and show a traceback.
Nothing has begun by then that needs cleaning up: the process ends silently. Only what every
interpreter has built in is imported here: each millisecond is a gap.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing it from typing takes time
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # without the enumerations of `signal`

INTERRUPTED, TERMINATED = 130, 143
"""As in manta.console.exit_codes; a test compares them."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def guard(*, ending: bool = True) -> None:
    """Have a signal end the process silently, until its handler is replaced.

    Daemons keep the default for all but Ctrl-C (`ending` is False), which their supervisor takes
    for a requested end. A signal that was ignored (nohup) stays ignored.
    """
    for number in SIGNALS if ending else SIGNALS[:1]:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def forget_working_folder() -> None:
    """For `python -m`, which puts the folder where it is started first on sys.path: a random.py
    that lies there must not hide Python's own."""
    if not sys.flags.safe_path:
        del sys.path[0]


told = 0
"""The signal for which this command was asked to end, by `Interrupts`; 0 if there was none."""


def hold() -> None:
    """Block signals before this process becomes another program, until that one calls `guard`.

    Ends it if it was asked to and Python has dropped that: its alarm would end the other program.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if told and signal.setitimer(signal.ITIMER_REAL, 0)[0]:
        _end(told, None)


def _end(number: int, _: object) -> None:
    os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)
