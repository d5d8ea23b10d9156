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
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable
else:
    import _signal as signal  # `signal` makes enums of all, which each forked attempt would pay for

PATIENCE = 10.0
"""Seconds for all of it."""
STOPPED_PATIENCE = 2.0
"""From when it is asked to end, or where an object that lived on is not needed any more."""
_FLUSHING = 1.0
"""Seconds for writing out what is open, when all else has used up its own."""
_AGAIN = 0.5
"""Seconds from being cut off to being left: handlers and finalizers may ignore the first."""
SLACK = _AGAIN + _FLUSHING + 0.5
"""Seconds beyond these after which it hangs in what no signal interrupts, and is killed."""


class CutOff(BaseException):
    """Time is up."""


class Ending:
    """The end of an attempt, or of an object that lived on. Its time is kept by SIGALRM: the
    user's code is over."""

    def __init__(
        self,
        modules: Iterable[str],
        let_go: Callable[[], None],
        cut_off: Callable[[str], None],
        leave: Callable[[], None],
    ) -> None:
        """`modules` are the user's own, as they were imported; `let_go` drops what else there is
        of them. `cut_off` is told at once what was not done in time; `leave` ends the process,
        where what is cut off does not let go."""
        self._modules = modules
        self._let_go = let_go
        self._cut_off = cut_off
        self._leave = leave
        self._doing = ""
        self._is_cut_off = self._is_last = False
        self._patience = float("inf")

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
            except CutOff:
                self._write_last()
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
                signal.setitimer(signal.ITIMER_REAL, 0)
        except CutOff:
            return  # nothing more can be done for it

    def hurry(self, patience: float) -> None:
        """Gives it so many seconds from now, never more than before."""
        self._patience = min(self._patience, patience)
        given = None
        while given != self._patience:  # or a signal's handler has just given it less
            given = self._patience
            signal.setitimer(signal.ITIMER_REAL, given, _AGAIN)

    def _on_alarm(self, number: int, frame: object) -> None:
        if not self._is_cut_off:
            self._is_cut_off = True
            self._cut_off(names(self.threads()) or self._doing)
        else:  # what was raised came to nothing: handlers and finalizers are free to ignore it
            self._write_last()
            self._leave()
        raise CutOff

    def _write_last(self) -> None:
        if not self._is_last:
            self._is_last = True
            self.hurry(_FLUSHING)
            self.write_out()

    def _end(self) -> None:
        self._doing = "an executor"
        self.end_executors()
        while threads := self.threads():
            self.join(threads[0])
        self._doing = "an exit handler"
        self.call_handlers()
        self._doing = "writing out an open file"
        self.write_out()
        self._doing = "a finalizer"
        self._finalize()
        self._doing = "writing out an open file"
        self.write_out()

    def _finalize(self) -> None:
        """Drops the user's modules. What still holds one is left without what is in it, as at
        Python's own end, unless a daemon thread may still use it."""
        left = []
        for name in self._modules:
            module = sys.modules.get(name)
            if isinstance(module, type(sys)):
                left.append(ref(module))
            if module is not None:
                sys.modules[name] = None  # type: ignore[assignment]  # or a thread would run it anew
            del module
        self._let_go()
        gc.collect()
        if self.has_threads():
            return
        for module in filter(None, (at() for at in reversed(left))):
            held = vars(module)
            for key in sorted(held.keys() - {"__builtins__"}, key=lambda key: key[:1] != "_"):
                held[key] = None

    # What there is in a process that ends with it; in one that goes on it is less.

    def threads(self) -> list[Any]:
        """Those that Python waits for at its end."""
        threading: Any = sys.modules.get("threading")
        if threading is None:
            return []
        main = threading.main_thread()
        # enumerate() takes a lock, which the code that an alarm interrupts may hold.
        return [at for at in threading._enumerate() if not at.daemon and at is not main]

    def has_threads(self) -> bool:
        """Whether there is any besides this one, those that nobody waits for among them."""
        return bool(thread_count())

    def join(self, thread: Any) -> None:
        threading: Any = sys.modules["threading"]
        threading.Thread.join(thread)  # its own may do more

    def end_executors(self) -> None:
        """They have their threads do what is left, and end."""
        executors = getattr(sys.modules.get("threading"), "_threading_atexits", [])
        while executors:
            call(executors.pop())

    def call_handlers(self) -> None:
        atexit: Any = sys.modules.get("atexit")
        if atexit is not None:
            atexit._run_exitfuncs()

    def write_out(self) -> None:
        """Writes out all files that this attempt has opened: what its template holds is not in the
        collector's lists any more."""
        io: Any = sys.modules["io"]
        written = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
        objects = gc.get_objects()
        kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, written)}
        files = [item for item in objects if type(item) in kinds]
        for file in sorted(files, key=lambda file: not isinstance(file, io.TextIOWrapper)):
            call(partial(_flush, file))


def _flush(file: Any) -> None:
    try:
        is_open = not file.closed
    except ValueError:  # it was detached: what it had is another's
        return
    if is_open:
        file.flush()


def cut_off(name: str, what: str, patience: float) -> str:
    """What is told of it."""
    return (
        f"{name} was over, but not done within {patience:g} s: {what} is cut off. Wait in its code "
        "for all that it starts."
    )


def call(function: Callable[[], object]) -> None:
    """Calls what may fail, as Python calls it at its end: the user sees why, and all goes on."""
    try:
        function()
    except Exception:
        import traceback

        traceback.print_exc()


def names(threads: list[Any]) -> str:
    """Of those that are not done."""
    if not threads:
        return ""
    more = f" and {len(threads) - 3} more" if len(threads) > 3 else ""
    names = ", ".join(repr(thread.name) for thread in threads[:3])
    return f"thread{'s' if len(threads) > 1 else ''} {names}{more}"
