"""The answers owed to those who ask."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

from manta.actors.address import Address
from manta.actors.errors import ActorDead, AskTimeout
from manta.actors.mailbox import Deadlines, Timer

LONGEST = 1e7  # seconds


def valid_seconds(timeout: float) -> float:
    """The time that a message is given, checked: there is no such thing as for ever."""
    if not 0 <= timeout <= LONGEST:
        raise ValueError(f"A timeout is between 0 and {LONGEST:.0e} seconds, not {timeout!r}.")
    return timeout


class Reply:
    """The answer owed to one ask: the first `set` or `fail`, from any thread, is the one."""

    __slots__ = ("_open", "on_done")

    def __init__(self) -> None:
        self._open = [True]  # list.pop is atomic: whoever takes the item answers
        self.on_done: Callable[[Reply], None] | None = None

    @property
    def done(self) -> bool:
        return not self._open

    def set(self, value: Any = None) -> bool:
        """Answer; False when someone did before, or the asker gave up."""
        return self._resolve(value, None)

    def fail(self, error: BaseException) -> bool:
        """Answer with an error; False when someone did before, or the asker gave up."""
        return self._resolve(None, error)

    def _resolve(self, value: Any, error: BaseException | None) -> bool:
        try:
            self._open.pop()
        except IndexError:
            return False
        if self.on_done is not None:
            self.on_done(self)
        self._deliver(value, error)
        return True

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        """To nobody: the answer to a tell."""


class BlockingReply(Reply):
    """For an asker that blocks: a bare lock is the cheapest thing to wait for."""

    __slots__ = ("_error", "_lock", "_value")

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._lock.acquire()
        self._value: Any = None
        self._error: BaseException | None = None

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        self._value = value
        self._error = error
        self._lock.release()

    def wait(self, timeout: float, address: Address) -> Any:
        if not self._lock.acquire(timeout=timeout):
            sentence = (
                f"{address} did not answer within {timeout:g} s; it may still do what it was "
                "asked to"
            )
            if not self.fail(AskTimeout(sentence)):
                self._lock.acquire()  # the answer is being put in place this very moment
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # no cycle through the traceback
        return self._value


class FutureReply(Reply):
    """For an asker that goes on with other things."""

    __slots__ = ("_timer", "future")

    def __init__(self) -> None:
        super().__init__()
        self.future: Future[Any] = Future()
        self._timer: Timer[Any] | None = None

    def expire(self, deadlines: Deadlines, timeout: float, address: Address) -> None:
        """Fail when the time is over, whatever the receiver is doing."""
        error = AskTimeout(f"{address} did not answer within {timeout:g} s")
        try:
            self._timer = deadlines.add(timeout, lambda: self.fail(error))
        except ActorDead as stopped:
            self.fail(stopped)
            return
        if self.done:
            self._timer.cancel()

    def end_with_future(self) -> None:
        """Nothing of it is kept once the asker cancels its future."""

        def given_up(future: Future[Any]) -> None:
            if future.cancelled():
                self.fail(CancelledError())

        self.future.add_done_callback(given_up)

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        timer = self._timer
        if timer is not None:
            timer.cancel()
        try:
            if error is None:
                self.future.set_result(value)
            else:
                self.future.set_exception(error)
        except InvalidStateError:
            pass  # the asker cancelled it: nobody waits
