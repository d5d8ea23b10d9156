"""The one thread that launches every child, and hears of every child's end.

The kernel ends a child with the *thread* that launched it (PR_SET_PDEATHSIG), so this
thread lives as long as the daemon. Children are asked to end, by SIGTERM unless whoever
launched one knows better; one that does not is killed after a grace time with all its descendants.

Should the thread fail, nobody would hear of its children any more. They are ended, whoever launched
them is told so, and another thread takes its place: a few times a minute, then no more.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Final, NamedTuple

from manta.light.runtime.processes import ENDING_TIME, kill_tree
from manta.node.errors import LaunchError
from manta.node.task_server.loop import PollThread

log = logging.getLogger("manta.node.runners.launcher")

MOST_FAILURES: Final = 5
"""Threads that may fail within `PERIOD` seconds before no other is begun."""
PERIOD: Final = 60.0
_GRACE = 1.0  # seconds from one SIGKILL to the next
_CLOSING_TIME = 10.0
_REAPING_TIME = 5.0  # for a child that was killed, since its thread had failed
_TAIL = 4096  # bytes kept of what a child says on stderr
_STOPPING = "The node is stopping: nothing is started any more."
_BEGUN_ANEW = (
    "The node's thread that starts tasks has failed, and another one is being begun; see the "
    "node's log."
)


class Ended(NamedTuple):
    """How a child has ended."""

    code: int
    """As `subprocess` has it."""
    said: str
    """The end of what it said on stderr."""
    lost: str = ""
    """Why it was ended though nobody had asked for that, in a sentence: its thread has failed."""


OnExit = Callable[[Ended], None]
RequestEnd = Callable[["subprocess.Popen[bytes]"], None]
"""Asks a child to end."""


def _terminate(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)


class Child:
    """A process that this launcher started."""

    def __init__(
        self, process: subprocess.Popen[bytes], on_exit: OnExit, request_end: RequestEnd
    ) -> None:
        self.process = process
        self.on_exit = on_exit
        self.request_end = request_end
        self.pidfd = os.pidfd_open(process.pid)
        self.tail = b""
        self.killed_at: float | None = None
        """When it is killed if it still lives."""

    @property
    def pid(self) -> int:
        return self.process.pid


class Launcher:
    """Starts its thread at once; `close` ends all children, then the thread.

    `give_up` is called with a sentence, on the last of several threads that have failed one soon
    after the other, if no other is begun: nothing is started any more.
    """

    def __init__(self, give_up: Callable[[str], None] | None = None) -> None:
        self._give_up = give_up
        self._lock = threading.Lock()
        self._why_not = ""
        """Why nothing is started any more."""
        self._failed = 0
        self._lately: deque[float] = deque(maxlen=MOST_FAILURES)
        """When threads have failed."""
        self._last = ""
        """Of what the last of them has."""
        self._threads = [_Thread(self._on_failure)]
        """The last one starts children; those before it have failed, and end theirs."""

    def launch(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        on_exit: OnExit,
        descriptors: Sequence[int] = (),
        request_end: RequestEnd = _terminate,
    ) -> Child:
        """Start a process in a session of its own, without input, and with no descriptors but
        those given.

        `on_exit` is called once, from the launcher thread, as is `request_end`, by which the child
        is asked to end. Raises LaunchError.
        """

        def start() -> subprocess.Popen[bytes]:
            if self._why_not:
                raise LaunchError(self._why_not)
            return _start(command, env, cwd, descriptors)

        started = self._threads[-1].launch(start, on_exit, request_end)
        if started is None:
            raise LaunchError(self._why_not or _BEGUN_ANEW)
        return started.result()

    @property
    def is_closed(self) -> bool:
        return bool(self._why_not)

    @property
    def trouble(self) -> str:
        """What its operator should know, in a sentence; "" for nothing."""
        if not self._failed:
            return ""
        often = "once" if self._failed == 1 else f"{self._failed} times"
        return (
            f"The thread that starts tasks has failed {often} since the node began ({self._last}): "
            "what ran then was interrupted; see the node's log."
        )

    def close(self) -> None:
        """End all children and wait for them, then for the thread. Idempotent."""
        with self._lock:
            self._why_not = self._why_not or _STOPPING
            threads = self._threads
        for thread in threads:
            thread.close()

    def end(self, child: Child) -> None:
        """Have it end with all that it started; from any thread, idempotent."""
        self._threads[-1].end(child)  # those of others are being ended

    def _on_failure(self, error: BaseException) -> None:
        """On a thread that has failed: begins another, unless that is in vain."""
        with self._lock:
            self._failed += 1
            self._last = repr(error)[:200]
            if self._why_not:
                return
            now = time.monotonic()
            if len(self._lately) == MOST_FAILURES and now - self._lately[0] < PERIOD:
                self._why_not = (
                    f"The node's thread that starts tasks has failed {MOST_FAILURES + 1} times "
                    f"within {PERIOD:g} s, at last by {self._last}: nothing is started any more; "
                    "see the node's log."
                )
            else:
                self._lately.append(now)
                self._why_not = self._begin()
            why_not = self._why_not
        if why_not:
            log.critical("%s", why_not)
            if self._give_up is not None:
                self._give_up(why_not)

    def _begin(self) -> str:
        """Begins another thread; why that can't be done, in a sentence, or ""."""
        try:
            ending = [one for one in self._threads if one.is_alive]
            self._threads = [*ending, _Thread(self._on_failure)]
        except (OSError, RuntimeError, MemoryError) as error:
            return (
                f"The node's thread that starts tasks has failed ({self._last}), and no other can "
                f"be begun ({error!r}): nothing is started any more; see the node's log."
            )
        return ""


class _Thread:
    """A thread with the children that it has launched, which end with it."""

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        """`on_failure` is called before those who launched its children are told of their ends."""
        self._tell_failure = on_failure
        self._children: dict[int, Child] = {}
        self._lost = ""
        self._loop = PollThread(
            "manta-launcher", lambda: None, self._tick, self._finish, self._on_failure
        )
        self._loop.start()

    @property
    def is_alive(self) -> bool:
        return self._loop.is_alive

    def launch(
        self, start: Callable[[], subprocess.Popen[bytes]], on_exit: OnExit, request_end: RequestEnd
    ) -> Future[Child] | None:
        """Fails with LaunchError. None: the thread has failed."""
        started: Future[Child] = Future()

        def job() -> None:
            try:
                if self._lost:
                    raise LaunchError(self._lost)
                started.set_result(self._watched(start(), on_exit, request_end))
            except LaunchError as error:
                started.set_exception(error)
            except OSError as error:
                started.set_exception(LaunchError(f"A task can't be watched: {error}."))
            except BaseException as error:
                started.set_exception(LaunchError(f"A task could not be started: {error!r}."))
                raise

        return started if self._loop.post(job) else None

    def end(self, child: Child) -> None:
        self._loop.post(lambda: self._end(child))

    def close(self) -> None:
        """End all children and wait for them, then for the thread. Idempotent."""
        asked: Future[None] = Future()

        def job() -> None:
            try:
                for child in self._children.values():
                    self._end(child)
            finally:
                asked.set_result(None)

        if self._loop.post(job):
            asked.result()
        deadline = time.monotonic() + _CLOSING_TIME
        while self._children and time.monotonic() < deadline:
            time.sleep(0.005)
        self._loop.stop()

    # The thread.

    def _tick(self) -> float | None:
        now = time.monotonic()
        due = [child.killed_at for child in self._children.values() if child.killed_at is not None]
        for child in self._children.values():
            if child.killed_at is not None and now >= child.killed_at:
                log.warning("Process %d did not end in time: it is killed.", child.pid)
                kill_tree({child.pid}, let_clean_up=True)
                child.killed_at = now + _GRACE
        return max(0.0, min(due) - now) if due else None

    def _finish(self) -> None:
        for child in self._children.values():  # in uninterruptible sleep
            log.error("Process %d could not be ended.", child.pid)
            os.close(child.pidfd)

    def _on_failure(self, error: BaseException) -> None:
        log.critical("The launcher thread failed: what it had started is ended.", exc_info=error)
        self._lost = (
            f"The node's thread that starts tasks has failed ({str(error) or repr(error)}), and "
            "what it had started was ended; see the node's log."
        )
        self._tell_failure(error)
        for child in [*self._children.values()]:
            self._lose(child)

    def _lose(self, child: Child) -> None:
        code: int = -signal.SIGKILL
        try:
            kill_tree({child.pid})
            code = child.process.wait(_REAPING_TIME)
        except Exception:
            log.exception("Process %d could not be ended.", child.pid)
        self._tell(child, code)

    def _watched(
        self, process: subprocess.Popen[bytes], on_exit: OnExit, request_end: RequestEnd
    ) -> Child:
        """Raises OSError; then the process has been ended."""
        try:
            child = Child(process, on_exit, request_end)
        except BaseException:
            _discard(process)
            raise
        stderr = process.stderr
        assert stderr is not None
        try:
            os.set_blocking(stderr.fileno(), False)
            self._loop.register(child.pidfd, lambda _: self._on_exit(child))
            self._loop.register(stderr, lambda _: self._on_stderr(child))
        except BaseException:
            self._loop.unregister(child.pidfd)
            os.close(child.pidfd)
            _discard(process)
            raise
        self._children[child.pid] = child
        return child

    def _end(self, child: Child) -> None:
        if self._children.get(child.pid) is child and child.killed_at is None:
            try:
                child.request_end(child.process)
            except Exception:
                log.exception("Process %d can't be asked to end: it is killed.", child.pid)
                kill_tree({child.pid}, let_clean_up=True)
            child.process.send_signal(signal.SIGCONT)  # its own task may have stopped it
            child.killed_at = time.monotonic() + ENDING_TIME

    def _on_stderr(self, child: Child) -> None:
        assert child.process.stderr is not None
        data = child.process.stderr.read(65536)
        if data is not None:
            child.tail = (child.tail + data)[-_TAIL:]
            if not data:
                self._loop.unregister(child.process.stderr)

    def _on_exit(self, child: Child) -> None:
        self._tell(child, child.process.wait())

    def _tell(self, child: Child, code: int) -> None:
        del self._children[child.pid]  # first: whatever fails now, it is told once
        try:
            self._on_stderr(child)  # a pipe holds no more than one read takes
            self._loop.unregister(child.pidfd)
            self._loop.unregister(child.process.stderr)
            os.close(child.pidfd)
            assert child.process.stderr is not None
            child.process.stderr.close()
        finally:
            try:
                child.on_exit(Ended(code, child.tail.decode(errors="replace"), self._lost))
            except Exception:
                log.exception("Nobody could be told that process %d ended.", child.pid)


def _start(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, descriptors: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Raises LaunchError."""
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=cwd,
            pass_fds=descriptors,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise LaunchError(f"{command[0]} could not be started: {error}.") from error


def _discard(process: subprocess.Popen[bytes]) -> None:
    """Ends a process of which nobody could hear."""
    kill_tree({process.pid})
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
