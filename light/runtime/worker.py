"""The worker: a template, from which each attempt is forked.

It is forked from the runtime. It imports the installed packages that attempts need, and never any
of the user's own files, which are imported anew in each attempt. Where the attempt's object lives
on (a class with execute()), so does the process that was forked, and the template hands further
orders to it.

To the runtime it says ready(), once it has imported what is known to be needed; unsafe(name, why)
where it has imported what must not be forked, and is of no use; and exited(status, lives_on,
learns), where it becomes ready again after `learns`. From the runtime comes run(number, token,
brief, fds=4), as the node sent it. What would cost a message of its own lies in memory that all of
them share (`Shared`).
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

import msgpack

from manta.light.context import Brief, usage
from manta.light.runtime import ending, processes
from manta.light.runtime.shared import Shared
from manta.light.wire import MessageSocket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from manta.light.runtime.attempt import Attempt
    from manta.light.runtime.loader import Target
    from manta.light.runtime.warmth import Notice, Noticed, Unsafe

_LONGEST_WARMING = 100
"""Seconds: a template that imports for longer is ended by SIGALRM."""
_DEAR = 0.5
"""Seconds from which on the log says once what importing the module costs each attempt."""
_DESCRIPTORS = 65_536  # each large value that is mapped takes one, before Python 3.13
_OOM_SCORE = b"500"  # user code goes before the runtime and the node do


_NOTHING: bytes = msgpack.packb([[], []])


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

    def dismiss(self) -> None:
        """Ends one that is ready, once the object that lives on in it has ended."""
        self.connection.close()
        processes.reap({self.pid}, ending.STOPPED_PATIENCE + ending.SLACK + 0.5)


def start(
    settings: Settings,
    cold: Mapping[str, str] | None,
    notes: list[str],
    output: list[int],
    keep_out: list[int],
    runtimes_children: processes.OwnChildren,
) -> Worker:
    """Forks a worker.

    `cold` are modules that it must not import, and None for all; `notes` are lines for the log of
    its first attempt. `output` is where it prints outside attempts; it closes `keep_out`, which is
    the runtime's.
    """
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
        _Template(settings, MessageSocket(theirs), notes).serve(cold)
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


class _Child(NamedTuple):
    """A process that was forked for an attempt, as its template sees it."""

    pid: int
    pidfd: int
    connection: MessageSocket
    class_name: str | None

    def wait(self) -> int | None:
        """How it ended; None where the attempt is over and the process lives on."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.register(self.connection.fileno(), select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        if self.connection.fileno() in ready and self.connection.receive() is not None:
            return None
        return self.end()

    def has_ended(self, patience: float = 0) -> bool:
        """Within so many seconds."""
        return bool(select.select([self.pidfd], [], [], patience)[0])

    def dismiss(self) -> None:
        """Ends one that waits for an order, once it has done what is left to do."""
        self.connection.close()
        if not self.has_ended(ending.STOPPED_PATIENCE + ending.SLACK):
            processes.send(self.pid, signal.SIGKILL)
        self.end()

    def end(self) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.pidfd)
        self.connection.close()
        return status


class _Template:
    def __init__(self, settings: Settings, connection: MessageSocket, notes: list[str]) -> None:
        from manta.light.runtime.loader import Program
        from manta.light.runtime.seeding import await_imports

        self._settings = settings
        self._connection = connection
        self._notes = notes
        self._program = Program(settings.folder, settings.entry, settings.scratch)
        self._imports = await_imports()
        self._living: _Child | None = None
        self._notice: Notice | None = None
        self._importing = 0.0

    def serve(self, cold: Mapping[str, str] | None) -> None:
        """Runs attempts until the runtime has no more, or this process is of no use."""
        import faulthandler

        from manta.light.runtime.attempt import heed_sigterm
        from manta.light.runtime.warmth import Warmth

        faulthandler.enable()
        sys.breakpointhook = _no_terminal
        sys.stdout = _stream(1)
        sys.stderr = _stream(2)
        usage.is_on_node = True
        if "logging" in sys.modules:
            import manta.light.log  # noqa: F401
        heed_sigterm()
        self._program.prepare()
        self._program.sources.install()
        warmth = None if cold is None else Warmth(frozenset(cold))
        if warmth is not None:
            signal.alarm(_LONGEST_WARMING)
            if self._is_unsafe(warmth.begin(self._program.leading_imports())):
                return
        self._be_ready()
        while (received := self._connection.receive()) is not None:
            status = self._run(Order(*received))
            modules, files = self._learned()
            modules = warmth.new(modules) if warmth is not None else []
            learns = bool(modules or files)
            report = {"k": "exited", "status": status or 0, "learns": learns}
            self._connection.send({**report, "lives_on": status is None})
            if learns:
                signal.alarm(_LONGEST_WARMING)
                self._program.compile(files)
                if warmth is not None and self._is_unsafe(warmth.learn(modules)):
                    return
                self._be_ready()
        if self._living is not None:
            self._living.dismiss()

    def _learned(self) -> tuple[list[Noticed], list[str]]:
        """What the latest attempt has left word of; it may have written anything."""
        from manta.light.runtime.warmth import Noticed

        try:
            modules, files = msgpack.unpackb(self._settings.shared.learn() or _NOTHING)
            return [Noticed(*module) for module in modules], files
        except Exception:
            return [], []

    def _is_unsafe(self, found: Unsafe | None) -> bool:
        if found is not None:
            self._flush()
            self._connection.send({"k": "unsafe", "name": found.name, "why": found.why})
        return found is not None

    def _be_ready(self) -> None:
        signal.alarm(0)
        self._program.stage()
        self._flush()  # or every attempt would print what is left in the buffers
        gc.collect()
        gc.freeze()
        self._connection.send({"k": "ready"})

    @staticmethod
    def _flush() -> None:
        from manta.light.runtime.attempt import flush

        flush()

    def _open(self, order: Order) -> Attempt:
        from manta.light.runtime.attempt import Attempt

        token, fields = order.message["token"], order.message["brief"]
        brief = Brief(**fields, scratch=self._settings.scratch)
        return Attempt(self._settings.socket, token, brief, self._program.folder, order.ends)

    def _run(self, order: Order) -> int | None:
        """Runs an attempt; returns how its process ended, None where that lives on."""
        class_name = order.message["brief"]["class_name"]
        living = self._living
        if living is not None and (living.class_name != class_name or living.has_ended()):
            living.dismiss()
            living = None
        if living is not None:
            living.connection.send(order.message, tuple(order.ends))
            order.close()
        child = living or self._fork(order, class_name)
        status = child.wait()
        self._living = child if status is None else None
        if status is not None:
            self._settings.shared.attempt_pid = 0
        return status

    def _fork(self, order: Order, class_name: str | None) -> _Child:
        from manta.light.runtime.warmth import Notice

        attempt = self._open(order)
        for note in self._notes:
            attempt.note("info", note)
        self._notes.clear()
        self._notice = Notice(self._program.sources)  # here, where it costs less than in the child
        ours, theirs = socket.socketpair()
        shared, template = self._settings.shared, os.getpid()
        shared.imports, shared.lives_on, shared.ending_since = True, None, None
        pid = os.fork()
        if not pid:
            ours.close()
            self._be_attempt(attempt, class_name, MessageSocket(theirs), template)
        shared.attempt_pid = pid
        theirs.close()
        attempt.close()
        return _Child(pid, os.pidfd_open(pid), MessageSocket(ours), class_name)

    # In the process of an attempt.

    def _be_attempt(
        self, attempt: Attempt, class_name: str | None, connection: MessageSocket, template: int
    ) -> NoReturn:
        try:
            self._connection.close()
            os.setsid()
            processes.die_with_parent(signal.SIGKILL, template)
            from manta.light.runtime.seeding import renew

            renew()
            self._live(attempt, class_name, connection)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(70)
        os._exit(0)

    def _live(self, attempt: Attempt, class_name: str | None, connection: MessageSocket) -> None:
        """Runs an attempt, and all further ones where its object lives on."""
        shared, target = self._settings.shared, None
        outside = os.dup(1), os.dup(2)

        def prepare() -> Target:
            nonlocal target
            if self._program.module is None:
                self._import(attempt)
            if target is None:
                target = self._program.target(class_name)
                shared.lives_on = target.is_resident
                if not target.is_resident:
                    self._tell_if_dear(attempt)
            return target

        def let_go() -> None:
            nonlocal target
            target = self._program.module = self._program.main = None

        modules = self._program.sources.imported
        while True:
            attempt.run(prepare)
            shared.leave(attempt.end())
            if not attempt.lives_on or attempt.stopped:
                shared.ending_since = time.monotonic()
                attempt.wind_down(modules, let_go)
                self._teach()
                shared.leave(attempt.end())
                return
            attempt.close()
            for number, fd in enumerate(outside, 1):
                os.dup2(fd, number)
            connection.send({"k": "over"})
            received = connection.receive()
            if received is None:
                nowhere = os.open(os.devnull, os.O_WRONLY)  # its node reads no more
                os.dup2(nowhere, 1)
                os.dup2(nowhere, 2)
                attempt.dismiss(modules, let_go)
                return
            attempt = self._open(Order(*received))

    def _import(self, attempt: Attempt) -> None:
        program, shared = self._program, self._settings.shared
        name, attempt.doing = attempt.doing, f"Importing {program.entry}"

        def imported() -> None:
            attempt.doing, shared.imports = name, False
            attempt.imported()

        self._imports.notice = self._note_import
        began = time.monotonic()
        program.load(imported)
        self._importing = time.monotonic() - began

    def _note_import(self, name: str) -> None:
        self._program.found(name)
        if self._notice is not None:
            self._notice(name)

    def _tell_if_dear(self, attempt: Attempt) -> None:
        """Says once what importing the user's own files costs each attempt."""
        shared = self._settings.shared
        if self._importing < _DEAR or shared.dear_told or (self._notice and self._notice.found()):
            return
        shared.dear_told = True
        attempt.note(
            "info",
            f"Importing {self._program.entry} takes {self._importing:.1f} s, and each attempt does "
            "it anew: keep what is dear in an object of a class with setup() and execute().",
        )

    def _teach(self) -> None:
        """Leaves word of what the template could have ready for the next attempt."""
        if self._notice is not None:
            modules, files = self._notice.found(), self._program.sources.uncompiled
            if modules or files:
                self._settings.shared.teach(msgpack.packb([modules, files]))
