"""What Python does at a process's end, done at an attempt's, within a bounded time.

An attempt's process ends by `os._exit`: a true end would take down all that it shares with its
template. So what the user's code counts on is done here: its threads are waited for, executors and
exit handlers run, objects are finalized, and open files are written out. The rest is cut off.
"""

from __future__ import annotations

import gc
import sys
from _thread import _count as thread_count
from _weakref import ref
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable
else:
    import _signal as signal  # `signal` makes enums of all, which each forked attempt would pay for

PATIENCE = 10.0
"""Seconds for all of it."""
STOPPED_PATIENCE = 2.0
"""From when the attempt is asked to end: its node kills it soon."""
_FLUSHING = 1.0
"""Seconds for writing out what is open, when all else has used up its own."""
_AGAIN = 0.5
"""Seconds until it is cut off again, since Python ignores what handlers and finalizers raise."""


class _CutOff(BaseException):
    """Time is up."""


class Ending:
    """The end of one attempt. Its time is kept by SIGALRM: the user's code is over."""

    def __init__(self, modules: Iterable[str], let_go: Callable[[], None]) -> None:
        """`modules` are the user's own, as they were imported; `let_go` drops what else there is
        of them."""
        self._modules = modules
        self._let_go = let_go
        self._doing = ""
        self.cut_off = ""
        """What was not done in time."""

    def run(self, patience: float) -> None:
        """Does what is left to do. Called in the main thread."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # forgets one that the user's code has set
        signal.signal(signal.SIGALRM, self._on_alarm)
        self.hurry(patience)
        try:
            try:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
                self._end()
            except _CutOff:
                self.hurry(_FLUSHING)
                self._write_out()
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _CutOff:
            return  # nothing more can be done for it

    def hurry(self, patience: float) -> None:
        """Gives it so many seconds from now."""
        signal.setitimer(signal.ITIMER_REAL, patience, _AGAIN)

    def _on_alarm(self, number: int, frame: object) -> NoReturn:
        self.cut_off = self.cut_off or _names(_threads()) or self._doing
        raise _CutOff

    def _end(self) -> None:
        self._doing = "an executor"
        threading: Any = sys.modules.get("threading")
        executors = getattr(threading, "_threading_atexits", [])
        while executors:  # they have their threads do what is left, and end
            _call(executors.pop())
        while threads := _threads():
            threads[0].join()
        self._doing = "an exit handler"
        atexit: Any = sys.modules.get("atexit")
        if atexit is not None:
            atexit._run_exitfuncs()
        self._doing = "writing out an open file"
        self._write_out()
        self._doing = "a finalizer"
        if thread_count() == 0:  # no thread still uses what is finalized
            self._finalize()
        self._doing = "writing out an open file"
        self._write_out()

    def _finalize(self) -> None:
        """Drops the user's modules. What still holds one is left without what is in it, as at
        Python's own end."""
        left = [ref(sys.modules.pop(name)) for name in self._modules if name in sys.modules]
        self._let_go()
        gc.collect()
        for module in filter(None, (at() for at in reversed(left))):
            held = vars(module)
            for key in sorted(held.keys() - {"__builtins__"}, key=lambda key: key[:1] != "_"):
                held[key] = None

    @staticmethod
    def _write_out() -> None:
        """Writes out all files that this attempt has opened: what its template holds is not in the
        collector's lists any more."""
        io: Any = sys.modules["io"]
        kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
        files = [item for item in gc.get_objects() if issubclass(type(item), kinds)]
        for file in sorted(files, key=lambda file: not isinstance(file, io.TextIOWrapper)):
            if not file.closed:
                _call(file.flush)


def _call(function: Callable[[], object]) -> None:
    """Calls what may fail, as Python calls it at its end: the user sees why, and all goes on."""
    try:
        function()
    except Exception:
        import traceback

        traceback.print_exc()


def _threads() -> list[Any]:
    """Those that Python waits for at its end."""
    threading: Any = sys.modules.get("threading")
    if threading is None:
        return []
    main = threading.main_thread()
    return [at for at in threading.enumerate() if not at.daemon and at is not main]


def _names(threads: list[Any]) -> str:
    if not threads:
        return ""
    more = f" and {len(threads) - 3} more" if len(threads) > 3 else ""
    names = ", ".join(repr(thread.name) for thread in threads[:3])
    return f"thread{'s' if len(threads) > 1 else ''} {names}{more}"
