"""Replies: each delivers the answer to one ask to its asker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

from manta.actors.address import Address
from manta.actors.errors import ActorDead, AskTimeout
from manta.actors.mailbox import Deadlines, Timer

LONGEST = 1e7
"""The longest timeout, in seconds."""


def valid_seconds(timeout: float) -> float:
    """Returns the timeout; raises ValueError unless it is a number of seconds up to LONGEST."""
    if not 0 <= timeout <= LONGEST:
        raise ValueError(f"A timeout is between 0 and {LONGEST:.0e} seconds, not {timeout!r}.")
    return timeout


class Reply:
    """The answer to one ask. The first `set` or `fail` counts; any thread may call them."""

    __slots__ = ("_open", "on_done")

    def __init__(self) -> None:
        self._open = [True]  # list.pop is atomic: the caller that takes the item answers
        self.on_done: Callable[[Reply], None] | None = None

    @property
    def done(self) -> bool:
        return not self._open

    def set(self, value: Any = None) -> bool:
        """Answers; returns False when it was answered before, or the asker gave up."""
        return self._resolve(value, None)

    def fail(self, error: BaseException) -> bool:
        """Answers with an error; returns False as `set` does."""
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

    def taken(self) -> None:
        """The message was taken out of the mailbox."""

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        """Does nothing: nobody waits for the answer to a tell."""


class BlockingReply(Reply):
    """For an asker that blocks. It waits for a bare lock, the cheapest thing there is."""

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
        """Blocks for the answer, `timeout` real seconds at most; raises the error it gets."""
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
    """For an asker that goes on meanwhile: resolves a future."""

    __slots__ = ("_timer", "future")

    def __init__(self) -> None:
        super().__init__()
        self.future: Future[Any] = Future()
        self._timer: Timer[Any] | None = None

    def expire(self, deadlines: Deadlines, timeout: float, address: Address) -> None:
        """Fails it after `timeout` seconds with AskTimeout, whatever the receiver is doing."""
        error = AskTimeout(f"{address} did not answer within {timeout:g} s")
        try:
            self._timer = deadlines.add(timeout, lambda: self.fail(error))
        except ActorDead as stopped:
            self.fail(stopped)
            return
        if self.done:
            self._timer.cancel()

    def fail_when_cancelled(self) -> None:
        """Fails it when the asker cancels the future, so that nothing of it is kept."""

        def done(future: Future[Any]) -> None:
            if future.cancelled():
                self.fail(CancelledError())

        self.future.add_done_callback(done)

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
