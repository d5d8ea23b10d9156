"""The worker: a template, from which each attempt is forked.

It is forked from the runtime. It imports the installed packages that attempts need, and never any
of the user's own files, which are imported anew in each attempt. Where the attempt's object lives
on (a class with execute()), so does the process that was forked: it takes further orders itself,
over the same connection, and the template goes on when that process has ended.

To the runtime they say ready(), once the template has imported what is known to be needed;
unsafe(name, why) where it has imported what must not be forked, and is of no use; and
exited(number, status, lives_on, learns), where the template becomes ready again after `learns`.
From the runtime comes run(number, token, brief, fds=4), as the node sent it. What would cost a
message of its own lies in memory that all of them share (`Shared`): with the number of the order
that was taken, an end within an attempt is told from one between two.

After a fork, whichever process writes to a page first has to copy it: an attempt that does nothing
spends most of its time on that. So the template does beforehand what can be done, and next to
nothing while the process that it has forked runs.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TextIO

import msgpack

from manta.light.context import Brief, usage
from manta.light.runtime import ending, processes
from manta.light.runtime.seeding import await_imports, renew
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


class Settings(NamedTuple):
    socket: str
    folder: str
    entry: str
    scratch: str
    shared: Shared
    is_confined: bool = False
    """The user's processes may signal each other and nobody else, their runtime neither."""


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
        if settings.is_confined:
            processes.signal_nobody_outside()
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


class _Template:
    def __init__(self, settings: Settings, connection: MessageSocket, notes: list[str]) -> None:
        from manta.light.runtime.loader import Program

        self._settings = settings
        self._connection = connection
        self._notes = notes
        self._program = Program(settings.folder, settings.entry, settings.scratch)
        self._imports = await_imports()
        self._outside = os.dup(1), os.dup(2)
        """Where it prints between attempts."""
        self._ended = 0
        """The number of the latest order whose end it has told."""
        self._notice: Notice | None = None
        self._importing = 0.0
        self._target: Target | None = None

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
            order = Order(*received)
            if order.message["number"] == self._ended:  # an object was about to take it, and died
                order.close()
                continue
            shared = self._settings.shared
            status = self._run(order)
            self._ended, shared.taken = shared.taken, 0
            if not self._ended:
                continue  # it has told the ends of all attempts itself, and ended between two
            modules, files = self._learned()
            modules = warmth.new(modules) if warmth is not None else []
            learns = bool(modules or files)
            self._tell_end(self._ended, status, lives_on=False, learns=learns)
            if learns:
                signal.alarm(_LONGEST_WARMING)
                self._program.compile(files)
                if warmth is not None and self._is_unsafe(warmth.learn(modules)):
                    return
                self._be_ready()

    def _learned(self) -> tuple[list[Noticed], list[str]]:
        """What the latest attempt has left word of; it may have written anything."""
        learned = self._settings.shared.learn()
        if not learned:
            return [], []
        from manta.light.runtime.warmth import Noticed

        try:
            modules, files = msgpack.unpackb(learned)
            return [Noticed(*module) for module in modules], files
        except Exception:
            return [], []

    def _is_unsafe(self, found: Unsafe | None) -> bool:
        if found is not None:
            self._flush()
            self._connection.send({"k": "unsafe", "name": found.name, "why": found.why})
        return found is not None

    def _be_ready(self) -> None:
        from manta.light.runtime.warmth import Notice

        signal.alarm(0)
        self._program.stage()
        self._notice = Notice(self._program.sources)
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
        path, program = self._settings.socket, self._program
        modules = program.sources.imported
        return Attempt(path, token, brief, program.folder, order.ends, modules, self._let_go)

    def _run(self, order: Order) -> int:
        """Runs an attempt, and all further ones where its object lives on, in a process of its own;
        returns how that ended."""
        shared, template = self._settings.shared, os.getpid()
        attempt = self._open(order)
        for note in self._notes:
            attempt.note("info", note)
        self._notes.clear()
        shared.taken = order.message["number"]
        shared.imports, shared.lives_on, shared.ending_since = True, None, None
        attempt.doing = f"Importing {self._program.entry}"
        self._imports.notice = self._note_import
        attempt.take_over()
        renew()
        gc.freeze()  # what the attempt does not make need not be looked through at its end
        self._program.enter()
        pid = os.fork()
        if not pid:
            self._be_attempt(attempt, order.message["brief"]["class_name"], template)
        self._print_outside()
        attempt.leave_streams()  # its object may live on, and what it prints is over before that
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        shared.attempt_pid = 0
        self._imports.notice = None
        self._program.leave()
        attempt.close()
        usage.context = None
        return status

    def _tell_end(self, number: int, status: int, *, lives_on: bool, learns: bool = False) -> None:
        report = {"number": number, "status": status, "lives_on": lives_on, "learns": learns}
        self._connection.send({"k": "exited", **report})

    def _print_outside(self) -> None:
        for number, fd in enumerate(self._outside, 1):
            os.dup2(fd, number)

    # In the process of an attempt.

    def _be_attempt(self, attempt: Attempt, class_name: str | None, template: int) -> NoReturn:
        try:
            self._settings.shared.attempt_pid = os.getpid()
            os.setsid()
            processes.die_with_parent(signal.SIGKILL, template)
            self._live(attempt, class_name)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(70)
        os._exit(0)

    def _live(self, attempt: Attempt, class_name: str | None) -> None:
        """Runs an attempt, and all further ones where its object lives on."""
        shared = self._settings.shared
        while True:
            attempt.run(partial(self._prepare, attempt, class_name))
            shared.leave(attempt.end())
            if not attempt.lives_on or attempt.stopped:
                shared.ending_since = time.monotonic()
                attempt.wind_down()
                self._teach()
                shared.leave(attempt.end())
                return
            attempt.close()
            self._print_outside()
            self._tell_end(shared.taken, 0, lives_on=True)
            shared.taken = 0
            order = self._next_order()
            if order is None:
                nowhere = os.open(os.devnull, os.O_WRONLY)  # its node reads no more
                os.dup2(nowhere, 1)
                os.dup2(nowhere, 2)
                attempt.dismiss(self._program.sources.imported, self._let_go)
                return
            attempt = self._open(order)
            attempt.take_over()

    def _prepare(self, attempt: Attempt, class_name: str | None) -> Target:
        """What the attempt runs, unless it was to end before it began."""
        if self._settings.shared.cancelled == self._settings.shared.taken:
            attempt.ask_to_end()
        if self._program.module is None:
            self._import(attempt)
        if self._target is None:
            self._target = self._program.target(class_name)
            self._settings.shared.lives_on = self._target.is_resident
            if not self._target.is_resident:
                self._tell_if_dear(attempt)
        return self._target

    def _let_go(self) -> None:
        self._target = self._program.module = self._program.main = None

    def _next_order(self) -> Order | None:
        """Waits for one; None where the object is not needed any more."""
        if self._connection.socket.recv(1, socket.MSG_PEEK):
            self._settings.shared.taken = self._settings.shared.ordered
        received = self._connection.receive()
        return None if received is None else Order(*received)

    def _import(self, attempt: Attempt) -> None:
        began = time.monotonic()
        self._program.load(partial(self._imported, attempt))
        self._importing = time.monotonic() - began

    def _imported(self, attempt: Attempt) -> None:
        self._settings.shared.imports = False
        attempt.imported()

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
