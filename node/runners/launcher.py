"""The one thread that launches every child, and hears of every child's end.

The kernel ends a child with the *thread* that launched it (PR_SET_PDEATHSIG), so this
thread lives as long as the daemon. Children are asked to end, by SIGTERM unless whoever
launched one knows better; one that does not is killed after a grace time with all its descendants.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from manta.light.runtime.processes import ENDING_TIME, kill_tree
from manta.node.errors import LaunchError
from manta.node.task_server.loop import PollThread

log = logging.getLogger("manta.node.runners.launcher")

_GRACE = 1.0  # seconds from one SIGKILL to the next
_CLOSING_TIME = 10.0
_TAIL = 4096  # bytes kept of what a child says on stderr

OnExit = Callable[[int, str], None]
"""Takes the exit code, as `subprocess` has it, and the end of what it said on stderr."""
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
    """Starts its thread at once; `close` ends all children, then the thread."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        self._is_closed = False
        self._loop = PollThread(
            "manta-launcher", lambda: None, self._tick, self._finish, self._on_failure
        )
        self._loop.start()

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
        started: Future[Child] = Future()
        stopping = LaunchError("The node is stopping: nothing is started any more.")

        def job() -> None:
            try:
                if self._is_closed:
                    raise stopping
                process = _start(command, env, cwd, descriptors)
                started.set_result(self._watch(Child(process, on_exit, request_end)))
            except (OSError, ValueError) as error:
                sentence = f"{command[0]} could not be started: {error}."
                started.set_exception(LaunchError(sentence))
            except LaunchError as error:
                started.set_exception(error)

        if not self._loop.post(job):
            raise stopping
        return started.result()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        """End all children and wait for them, then for the thread. Idempotent."""
        if self._is_closed:
            return
        done: Future[None] = Future()

        def job() -> None:
            self._is_closed = True
            try:
                for child in self._children.values():
                    self._end(child)
            finally:
                done.set_result(None)

        if self._loop.post(job):
            done.result()
        deadline = time.monotonic() + _CLOSING_TIME
        while self._children and time.monotonic() < deadline:
            time.sleep(0.005)
        self._loop.stop()

    def end(self, child: Child) -> None:
        """Have it end with all that it started; from any thread, idempotent."""
        self._loop.post(lambda: self._end(child))

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
        self._is_closed = True
        log.critical("The launcher thread failed, and with it all tasks.", exc_info=error)

    def _watch(self, child: Child) -> Child:
        stderr = child.process.stderr
        assert stderr is not None
        os.set_blocking(stderr.fileno(), False)
        self._children[child.pid] = child
        self._loop.register(child.pidfd, lambda _: self._on_exit(child))
        self._loop.register(stderr, lambda _: self._on_stderr(child))
        return child

    def _end(self, child: Child) -> None:
        if child.pid in self._children and child.killed_at is None:
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
        code = child.process.wait()
        self._on_stderr(child)  # a pipe holds no more than one read takes
        self._loop.unregister(child.pidfd)
        self._loop.unregister(child.process.stderr)
        os.close(child.pidfd)
        assert child.process.stderr is not None
        child.process.stderr.close()
        try:
            child.on_exit(code, child.tail.decode(errors="replace"))
        except Exception:
            log.exception("Nobody could be told that process %d ended.", child.pid)
        finally:
            del self._children[child.pid]


def _start(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, descriptors: Sequence[int]
) -> subprocess.Popen[bytes]:
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
