"""An attempt, in the process that runs it."""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident  # importing threading costs each forked attempt a tenth
from typing import TYPE_CHECKING, Any, NoReturn

import msgpack

from manta.light.context import Brief, usage
from manta.light.errors import LightError
from manta.light.runtime import ending
from manta.light.runtime.client import AttemptClient
from manta.light.runtime.seeding import seed
from manta.light.runtime.shared import BEGUN, IMPORTED

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence

    from manta.light.runtime.failures import Failure
    from manta.light.runtime.loader import Target
else:
    import _signal as signal  # `signal` makes enums of all, which each forked attempt would pay for


class Attempt:
    """One run of the user's code, and what its node is told of it."""

    def __init__(
        self,
        path: str,
        token: str,
        brief: Brief,
        folder: str,
        connection: int,
        log: int,
        modules: Sequence[str],
        let_go: Callable[[], None],
    ) -> None:
        """Takes over `connection`, and writes its log to `log`.

        `modules` are the names of the user's own, as they are imported; `let_go` drops what else
        there is of them.
        """
        self._folder = folder
        self._brief = brief
        self._log = log
        self._client = AttemptClient(path, token, brief, connection)
        self._started = 0.0
        self._loading: float | None = None
        self._owner = 0
        self._outcome: dict[str, Any] = {}
        self._ending: ending.Ending | None = None
        self._last: ending.Ending | None = ending.Ending(modules, let_go, self._cut_off, leave)
        self._patience = ending.STOPPED_PATIENCE
        self.is_running = False
        self.doing = brief.name
        """Begins the sentence that says what went wrong."""
        self.lives_on: bool | None = None
        """Whether the object that it runs lives on, once that is known."""
        self.stopped = False
        """Whether its code was asked to end: what it holds may be half done."""

    def take_over(self) -> None:
        """Done before the user's code runs: all that it asks and logs belongs to this attempt."""
        usage.context = self._client
        usage.log_sink = self._log

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._client.open(self._owner)
        seed(self._brief)
        self._started = time.monotonic()

    def run(self, prepare: Callable[[], Target], passed: Callable[[int], object]) -> None:
        """Runs what `prepare` returns; this process has taken over. `passed` is told which of
        `shared.PHASES` it has passed."""
        global _latest, _users_mask
        self._begin()
        passed(BEGUN)
        owner = self._owner
        outcome: dict[str, Any]
        _latest = self
        try:
            self.is_running = True
            if _users_mask is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, _users_mask)
            try:
                output = self._call(prepare, passed)
            finally:
                _users_mask = signal.pthread_sigmask(signal.SIG_BLOCK, _USERS_SIGNALS)
                self.is_running = False
            if os.getpid() != owner:
                _end_fork(0)
            outcome = self._kept(output)
            del output
        except SystemExit as error:
            if os.getpid() != owner:
                _end_fork(error.code)
            if self.stopped:
                outcome = {"error": ["Killed", f"{self._brief.name} was ended by SIGTERM.", ""]}
            elif error.code in (None, 0):  # by its own account all is well
                outcome = self._kept(None)
            else:
                outcome = {"error": self._describe(error)}
        except BaseException as error:
            if os.getpid() != owner:
                import traceback

                traceback.print_exc()
                _end_fork(1)
            outcome = {"error": self._describe(error)}
        self._outcome = outcome

    def end(self) -> bytes:
        """How it ended, as a packed `End` for the node."""
        active = self._active()
        loading = active if self._loading is None else self._loading
        flush()
        spent = {"loading": loading, "computing": active - loading, "moving": self._client.moving}
        end = {**spent, **self._outcome}
        packed: bytes = _packer.pack(end)
        return packed

    def _call(self, prepare: Callable[[], Target], passed: Callable[[int], object]) -> Any:
        target = prepare()
        self.imported()
        passed(IMPORTED)
        self.lives_on = target.is_resident
        return target.run(passed)

    def imported(self) -> None:
        """The module is there: from here on its code computes."""
        if self._loading is None:
            self.doing, self._loading = self._brief.name, self._active()

    def _active(self) -> float:
        """Seconds since it began, without its waits for the node: they never become less."""
        return max(self._loading or 0.0, time.monotonic() - self._started - self._client.moving)

    def wind_down(self) -> None:
        """Does what Python does at a process's end, where that is this attempt's.

        How the attempt ended has to be known to others: it may not return.
        """
        if not self.stopped:
            self._patience = ending.PATIENCE
        self._ending = self._last
        assert self._ending is not None
        self._ending.run(self._patience)

    def dismiss(self, modules: Sequence[str], let_go: Callable[[], None]) -> None:
        """The same where the object of this attempt, which was closed, has lived on until now."""
        self._ending = ending.Ending(modules, let_go, lambda what: None, leave)
        self._ending.run(ending.STOPPED_PATIENCE)

    def _cut_off(self, what: str) -> None:
        self.note("warning", ending.cut_off(self._brief.name, what, self._patience))

    def note(self, level: str, text: str) -> None:
        """Writes a line to the attempt's log."""
        try:
            os.write(self._log, msgpack.packb([time.time(), level, text]))
        except OSError:  # user code has closed it
            return

    def _return_claims(self) -> None:
        """Returns claims to messages that a signal or a timeout kept from the task."""
        brief = self._brief
        back = "return_letters" if brief.direct else "return_claims"
        for (source, tag), is_open in brief.receiving.items():
            if is_open:
                received = brief.received[source, tag]
                self._client.call(back, source=source, tag=tag, received=received)

    def _kept(self, output: Any) -> dict[str, Any]:
        try:
            self._return_claims()
            return {"output": self._client.payload(output)}
        except (TypeError, LightError) as error:
            from manta.light.runtime.failures import sendable

            sentence = f"{self._brief.name} returned what can't be kept as its output: {error}."
            return {"error": [type(error).__name__, sendable(sentence), ""]}

    def _describe(self, error: BaseException) -> Failure:
        from manta.light.runtime.failures import describe

        return describe(error, self.doing, self._folder)

    def close(self) -> None:
        """Called where the process goes on: what the attempt's code still asks is told that it is
        over."""
        usage.log_sink = None
        self._last = None  # it refers to this attempt
        self._client.close()

    def ask_to_end(self) -> None:
        """Called on SIGTERM; a second one changes nothing. Raises SystemExit in the user's code, so
        that `finally` and `with` run; when that code is over, it is too late."""
        if self._owner != os.getpid():  # in a process that the code has forked
            _die(signal.SIGTERM)
        elif not self.stopped:
            self.stopped = True
            if self.is_running:
                sys.exit("it was asked to end")
            if self._ending is not None:
                self._ending.hurry(ending.STOPPED_PATIENCE)


_packer = msgpack.Packer()
"""Made once: it would have an attempt that ends touch new memory."""

_USERS_SIGNALS = (
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGINT,
)
"""Handlers of these that the user's code has set, and timers that it left running, must not raise
outside that code: how the attempt ended would be lost, or the object of a class with execute()."""

_users_mask: set[signal.Signals] | set[int] | None = None
"""What the code of the previous attempt had blocked."""

_latest: Attempt | None = None
"""The latest attempt of this process, which may have ended."""


def heed_sigterm() -> None:
    """Makes SIGTERM ask this process's attempts to end, unless the user's code has set a handler
    of its own. A template does this before it forks."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)
        signal.signal(signal.SIGURG, _on_nudge)
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_fork
        )


def forget_attempts() -> None:
    """Leaves this process as it was before it ran any, which are all over."""
    global _latest, _users_mask
    assert _users_mask is not None
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _users_mask)
    _latest = _users_mask = None


_masks: dict[int, set[int]] = {}
"""Signals that threads blocked before they began to fork."""


def _before_fork() -> None:
    """Holds SIGTERM back: Python forgets signals that reach a process it has just forked."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    _masks[get_ident()] = set(blocked)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop(get_ident()))


def _in_fork() -> None:
    """What an attempt forks dies of SIGTERM at once: a handler runs only when the process comes
    back to Python, never if the signal came just before it began to wait for a lock."""
    of_attempt = _latest is not None and _latest.is_running
    if of_attempt and signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _after_fork()


def _on_sigterm(number: int, frame: object) -> None:
    if _latest is None:  # a template
        _die(number)
    else:
        _latest.ask_to_end()


def _on_nudge(number: int, frame: object) -> None:
    """Does nothing: interrupting what the process waits in is all that it is for."""


def _die(number: int) -> None:
    """Dies as if there were no handler."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _end_fork(code: object) -> NoReturn:
    """Ends a process that the user's code forked and that came back from that code."""
    flush()
    os._exit(code & 0xFF if isinstance(code, int) else 0 if code is None else 1)


def leave() -> NoReturn:
    """Ends this process, whose code is over."""
    os._exit(0)


def flush() -> None:
    """Writes out what user code printed; it may have closed or replaced the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
