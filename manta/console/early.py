"""What a signal does while a command is still being imported, which takes 0.1 to 0.5 s.

Python itself would raise KeyboardInterrupt in the middle of an import, and show a traceback.
Nothing has begun by then that would have to be put in order: the process just ends, and says
nothing. What is imported here every interpreter has in it: each millisecond is a gap.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # not typing's, which would have to be imported
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # what `signal` makes enumerations of

INTERRUPTED, TERMINATED = 130, 143
"""Of manta.console.exit_codes; a test compares them."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def guard(*, ending: bool = True) -> None:
    """End at once and quietly by a signal, until its handler is replaced.

    Daemons keep their default for all but Ctrl-C (`ending` is False): who supervises them knows
    it for an end that was asked for. What whoever started us has ignored stays so: nohup.
    """
    for number in SIGNALS if ending else SIGNALS[:1]:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def hold() -> None:
    """Before this process becomes another program: signals wait until that one has a guard."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _end(number: int, _: object) -> None:
    os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)
