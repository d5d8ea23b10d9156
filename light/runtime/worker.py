"""The worker: the process that holds the user's module.

It is forked from the runtime, which never runs user code. As a *template* it imports the module
before any attempt and forks a child for each; a class with execute() runs in the worker itself
and so lives on. Where an attempt needs a process that has imported nothing yet, a worker is
forked for that attempt and imports the module within it.

To the runtime it says imported(mode, why), failed(error) and exited(status, resident); from it
comes run(number, token, brief, fds=4), as the node sent it. What would cost a message of its own
lies in memory that all of them share (`Shared`).
"""

from __future__ import annotations

import gc
import importlib
import mmap
import os
import resource
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

from manta.light.context import Brief
from manta.light.runtime import processes
from manta.light.wire import MAX_END, MessageSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.light.runtime.attempt import Attempt
    from manta.light.runtime.loader import Target

WARM = ("logging", "traceback", "numpy")
"""Imported beforehand once an attempt was seen to need them, for the next to find them there."""

_DESCRIPTORS = 65_536  # each large value that is mapped takes one, before Python 3.13
_OOM_SCORE = b"500"  # user code goes before the runtime and the node do


class Shared:
    """Memory that all processes of a runtime share: which process runs the attempt, how it ended,
    and what attempts have imported."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _END + MAX_END)

    @property
    def attempt_pid(self) -> int:
        """The process of the forked attempt that runs, 0 where none does."""
        return int.from_bytes(self._memory[:4], "little")

    @attempt_pid.setter
    def attempt_pid(self, pid: int) -> None:
        self._memory[:4] = pid.to_bytes(4, "little")

    @property
    def needed(self) -> list[str]:
        """Those of WARM that attempts have imported."""
        return [name for at, name in enumerate(WARM, _NEEDED) if self._memory[at]]

    def leave(self, end: bytes) -> None:
        """Called in an attempt that is over: keeps how it ended and what it has imported."""
        for at, name in enumerate(WARM, _NEEDED):
            if name in sys.modules:
                self._memory[at] = 1
        size = len(end)
        self._memory[_END : _END + size] = end
        self._memory[4:8] = size.to_bytes(4, "little")  # last: the process may die before

    def take(self) -> bytes:
        """What an attempt has left, nothing where it died."""
        size = int.from_bytes(self._memory[4:8], "little")
        self._memory[4:8] = bytes(4)
        return self._memory[_END : _END + min(size, MAX_END)]


_NEEDED = 8
_END = _NEEDED + len(WARM)


class Settings(NamedTuple):
    socket: str
    folder: str
    entry: str
    scratch: str
    shared: Shared


class Order(NamedTuple):
    """An attempt to run, with its stdout, stderr, log socket and connection."""

    message: dict[str, Any]
    ends: list[int]

    def close(self) -> None:
        for fd in self.ends:
            os.close(fd)
        self.ends.clear()


class Worker(NamedTuple):
    """A worker as its runtime sees it."""

    pid: int
    connection: MessageSocket


def start(
    settings: Settings,
    first: Order | None,
    output: list[int],
    keep_out: list[int],
    runtimes_children: processes.OwnChildren,
) -> Worker:
    """Forks a worker: a template, or one for this first attempt.

    `output` is where it prints outside attempts; it closes `keep_out`, which is the runtime's.
    """
    import socket

    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return Worker(pid, MessageSocket(ours))
    try:
        ours.close()
        runtimes_children.close()
        for number, fd in enumerate(output, 1):
            os.dup2(fd, number)
        for fd in (*keep_out, *output):
            os.close(fd)
        _become_users(parent)
        _Process(settings, MessageSocket(theirs)).serve(first)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(70)
    os._exit(0)


def _become_users(parent: int) -> None:
    """Sets up a process that will run user code."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    processes.die_with_parent(signal.SIGKILL, parent)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(_OOM_SCORE)
    except OSError:
        return  # /proc is read-only: the kernel chooses by size


def _stream(fd: int) -> TextIO:
    """A text stream in UTF-8 that passes each line on as soon as it is whole."""
    return open(fd, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)


def _no_terminal(*_: Any, **__: Any) -> NoReturn:
    """Called by breakpoint(), which would read the commands of a debugger from nowhere."""
    from manta.light.errors import LightError

    raise LightError(
        "breakpoint() has no terminal here: run the task in your own process with "
        "manta.testing.run_task, where it stops as anywhere else"
    )


class _Process:
    def __init__(self, settings: Settings, connection: MessageSocket) -> None:
        self._settings = settings
        self._connection = connection
        self._runtimes_end = connection.fileno()
        from manta.light.runtime.loader import Program

        self._program: Program = Program(settings.folder, settings.entry)
        self._targets: dict[str | None, Target] = {}

    def serve(self, first: Order | None) -> None:
        """Runs attempts until the runtime has no more, or this process can run no more."""
        import faulthandler

        faulthandler.enable()
        sys.breakpointhook = _no_terminal
        sys.stdout = _stream(1)
        sys.stderr = _stream(2)
        from manta.light.log import reach_node

        reach_node()
        if first is not None:
            if not self._run_afresh(first):
                return
        elif not self._import():
            return
        self._warm(always=True)
        while True:
            received = self._connection.receive()
            if received is None:
                return
            if not self._run(Order(*received)):
                return

    def _import(self) -> bool:
        """Imports the module as a template; returns whether attempts can run here."""
        from manta.light.runtime.forksafe import obstacle
        from manta.light.runtime.loader import Probe

        entry = self._settings.entry
        started = time.monotonic()
        try:
            why = Probe(self._program).load()
            mode = "spawn" if why else self._mode()
            if mode == "fork" and (why := obstacle()):
                mode = "spawn"
        except BaseException as error:
            from manta.light.runtime.failures import describe

            return self._fail(describe(error, f"Importing {entry}", self._program.folder))
        self._flush()  # or every attempt would print what is left in the buffers
        loading = time.monotonic() - started
        imported = {"k": "imported", "mode": mode, "why": why or "", "loading": loading}
        self._connection.send(imported)
        return mode != "spawn"

    def _mode(self) -> str:
        """Raises NothingToRun."""
        from manta.light.runtime.loader import NothingToRun

        try:
            return "resident" if self._target(None).is_resident else "fork"
        except NothingToRun:
            if not self._program.has_classes:
                raise
            return "fork"  # each attempt may name a class

    def _fail(self, error: list[str]) -> bool:
        self._flush()
        self._connection.send({"k": "failed", "error": error})
        return False

    @staticmethod
    def _flush() -> None:
        from manta.light.runtime.attempt import flush

        flush()

    def _target(self, class_name: str | None) -> Target:
        if class_name not in self._targets:
            self._targets[class_name] = self._program.target(class_name)
        return self._targets[class_name]

    def _is_resident(self, class_name: str | None) -> bool:
        from manta.light.runtime.loader import NothingToRun

        try:
            return self._target(class_name).is_resident
        except NothingToRun:
            return False  # the child says what is wrong

    def _open(self, order: Order) -> Attempt:
        from manta.light.runtime.attempt import Attempt

        token, fields = order.message["token"], order.message["brief"]
        brief = Brief(**fields, scratch=self._settings.scratch)
        return Attempt(self._settings.socket, token, brief, self._program.folder, order.ends)

    def _run_afresh(self, order: Order) -> bool:
        """Imports within the attempt; returns whether its object lives on."""
        class_name = order.message["brief"]["class_name"]

        def prepare() -> Target:
            self._program.load(in_attempt=True)
            return self._target(class_name)

        stopped = self._run_here(order, prepare)
        target = self._targets.get(class_name)
        if stopped or target is None or not target.is_resident:
            return False
        self._connection.send({"k": "exited", "status": 0, "resident": True})
        return True

    def _run_here(self, order: Order, prepare: Callable[[], Target]) -> bool:
        """Runs an attempt in this process; returns whether its code was asked to end."""
        self._flush()
        from manta.light.runtime.attempt import heed_sigterm

        heed_sigterm()
        kept = os.dup(1), os.dup(2)
        attempt = self._open(order)
        try:
            self._settings.shared.leave(attempt.run(prepare))
        finally:
            attempt.close()
        for number, fd in enumerate(kept, 1):
            os.dup2(fd, number)
            os.close(fd)
        return attempt.stopped

    def _run(self, order: Order) -> bool:
        """Runs an attempt; returns whether there may be another here, since an object that was
        stopped in the middle of its work is not used again."""
        class_name = order.message["brief"]["class_name"]
        if self._is_resident(class_name):
            if self._run_here(order, lambda: self._target(class_name)):
                return False
            self._connection.send({"k": "exited", "status": 0, "resident": True})
            return True
        template, attempt = os.getpid(), self._open(order)
        pid = os.fork()
        if not pid:
            self._be_attempt(attempt, class_name, template)
        self._settings.shared.attempt_pid = pid
        attempt.close()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._settings.shared.attempt_pid = 0
        self._connection.send({"k": "exited", "status": status, "resident": False})
        self._warm()
        return True

    def _be_attempt(self, attempt: Attempt, class_name: str | None, template: int) -> NoReturn:
        try:
            os.close(self._runtimes_end)
            os.setsid()
            processes.die_with_parent(signal.SIGKILL, template)
            self._settings.shared.leave(attempt.run(lambda: self._target(class_name)))
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(70)
        os._exit(0)

    def _warm(self, always: bool = False) -> None:
        if always:
            from manta.light.runtime.attempt import heed_sigterm
            from manta.light.runtime.seeding import await_imports

            heed_sigterm()
            await_imports()
        if warm(self._settings) or always:
            gc.collect()
            gc.freeze()


def warm(settings: Settings) -> bool:
    """Imports what attempts were seen to need; returns whether there was anything to import."""
    missing = [name for name in settings.shared.needed if name not in sys.modules]
    for name in missing:
        importlib.import_module(name)
    return bool(missing)
