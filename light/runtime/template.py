"""The worker's own process: a template, from which each attempt is forked.

It imports the installed packages that attempts need, and never any of the user's own files, which
are imported anew in each attempt. Where the attempt's object lives on (a class with execute()), so
does the process that was forked: it takes further orders itself, over the same connection, and the
template goes on when that process has ended.

To the runtime they say ready(), once the template has imported what is known to be needed;
unsafe(name, why) where it has imported what must not be forked, and is of no use; and
exited(number, status, lives_on, learns), where the template becomes ready again after `learns`.
From the runtime comes run(number, token, brief, fds=1), as the node sent it, with `notes` for the
attempt's log, if there are any. What would cost a message of its own lies in memory that all of
them share (`Shared`): with the number of the order that was taken, an end within an attempt is told
from one between two.

An attempt's process is forked before its order comes, and waits for that, so that nobody waits for
the fork. After it, whichever process writes to a page first has to copy it: an attempt that does
nothing spends most of its time on that. So the template does beforehand what can be done, and next
to nothing while the process that it has forked runs.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import signal
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import msgpack

from manta.light.context import Brief, usage
from manta.light.runtime import processes
from manta.light.runtime.attempt import Attempt, flush, forget_attempts, heed_sigterm
from manta.light.runtime.client import AttemptClient
from manta.light.runtime.loader import Program
from manta.light.runtime.orders import BROKEN, Order, Settings
from manta.light.runtime.seeding import await_imports, renew
from manta.light.runtime.shared import Shared
from manta.light.runtime.warmth import Notice, Noticed, Warmth
from manta.light.wire import MessageSocket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from manta.light.runtime.loader import Target
    from manta.light.runtime.warmth import Unsafe

_LONGEST_WARMING = 100
"""Seconds: a template that imports for longer is ended by SIGALRM."""
_REHEARSALS = 20
"""How often code runs before CPython has adapted it (PEP 659), with some to spare."""
_NOTHING = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rehearsal", "manta_nothing.py")
_DEAR = 0.5
"""Seconds from which on the log says once what importing the module costs each attempt."""


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


class Template:
    def __init__(self, settings: Settings, connection: MessageSocket, log: int) -> None:
        self._settings = settings
        self._connection = connection
        self._program = Program(settings.folder, settings.entry, settings.scratch)
        self._imports = await_imports()
        self._printed = os.dup(1), os.dup(2)
        self._log = log
        self._ended = 0
        """The number of the latest order whose end it has told."""
        self._used: list[float] = []
        """Seconds of cpu, and the most bytes, of the process that ran the latest attempt."""
        self._notice: Notice | None = None
        self._importing = 0.0
        self._target: Target | None = None

    def serve(self, cold: Mapping[str, str] | None) -> None:
        """Has attempts run until the runtime has no more, or this process is of no use."""
        faulthandler.enable()
        self._settings.stacks.register()
        sys.breakpointhook = _no_terminal
        sys.stdout = _stream(1)
        sys.stderr = _stream(2)
        usage.is_on_node = True
        if "logging" in sys.modules:
            import manta.light.log  # noqa: F401
        if not atexit._ncallbacks():  # or they would be called
            rehearse(self._settings, self._log)
        heed_sigterm()
        self._program.prepare()
        self._program.sources.install()
        warmth = None if cold is None else Warmth(frozenset(cold))
        if warmth is not None:
            signal.alarm(_LONGEST_WARMING)
            if self._is_unsafe(warmth.begin(self._program.leading_imports())):
                return
        self._be_ready()
        while True:
            status, shared = self._run(), self._settings.shared
            self._ended, shared.taken = shared.taken, 0
            if not self._ended:  # it has told the ends of all attempts itself, or has run none
                if status == BROKEN or self._is_over():
                    return
                continue
            modules, files = self._learned()
            modules = warmth.new(modules) if warmth is not None else []
            learns = bool(modules or files)
            self._tell_end(self._ended, status, lives_on=False, learns=learns, used=self._used)
            if learns:
                self._program.leave()
                signal.alarm(_LONGEST_WARMING)
                self._program.compile(files)
                if warmth is not None and self._is_unsafe(warmth.learn(modules)):
                    return
                self._be_ready()

    def _is_over(self) -> bool:
        """Whether the runtime has no more orders."""
        try:
            return not self._connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False

    def _learned(self) -> tuple[list[Noticed], list[str]]:
        """What the latest attempt has left word of; it may have written anything."""
        learned = self._settings.shared.learn()
        if not learned:
            return [], []
        try:
            modules, files = msgpack.unpackb(learned)
            return [Noticed(*module) for module in modules], files
        except Exception:
            return [], []

    def _is_unsafe(self, found: Unsafe | None) -> bool:
        if found is not None:
            flush()
            self._connection.send({"k": "unsafe", "name": found.name, "why": found.why})
        return found is not None

    def _be_ready(self) -> None:
        signal.alarm(0)
        self._program.stage()
        self._notice = Notice(self._program.sources)
        flush()  # or every attempt would print what is left in the buffers
        gc.collect()
        gc.freeze()  # what an attempt does not make need not be looked through at its end
        self._program.enter()
        self._connection.send({"k": "ready"})

    def _open(self, order: Order) -> Attempt:
        token, fields = order.message["token"], order.message["brief"]
        brief = Brief(**fields, scratch=self._settings.scratch)
        path, program = self._settings.socket, self._program
        modules = program.sources.imported
        (connection,), log = order.ends, self._log
        return Attempt(path, token, brief, program.folder, connection, log, modules, self._let_go)

    def _run(self) -> int:
        """Forks the process that takes the next order, and all further ones where its object lives
        on; returns how it ended. It is there before the order is: forking it takes nobody's time.
        """
        template = os.getpid()
        renew()
        pid = os.fork()
        if not pid:
            self._be_attempt(template)
        _, status, used = os.wait4(pid, 0)
        self._settings.shared.attempt_pid = 0
        self._used = [used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]
        return os.waitstatus_to_exitcode(status)

    def _tell_end(
        self,
        number: int,
        status: int,
        *,
        lives_on: bool,
        learns: bool = False,
        used: Sequence[float] = (),
    ) -> None:
        report = {"number": number, "status": status, "lives_on": lives_on, "learns": learns}
        self._connection.send({"k": "exited", "used": used, **report})

    def _take_back(self) -> None:
        """What an attempt's code has done to its output is over with it."""
        for number, fd in enumerate(self._printed, 1):
            os.dup2(fd, number)

    def close(self) -> None:
        """Called where it has rehearsed."""
        self._connection.close()
        for fd in self._printed:
            os.close(fd)
        self._imports.brief = self._imports.notice = None

    # In the process of an attempt.

    def _be_attempt(self, template: int) -> NoReturn:
        try:
            self._settings.shared.attempt_pid = os.getpid()
            os.setsid()
            processes.die_with_parent(signal.SIGKILL, template)
            self._live()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(BROKEN)
        os._exit(0)

    def _live(self) -> None:
        """Runs an attempt, and all further ones where its object lives on."""
        shared = self._settings.shared
        attempt = None
        while (order := self._next_order()) is not None:
            is_first, attempt = attempt is None, self._open(order)
            for fd in (1, 2, self._log):
                os.set_blocking(fd, True)  # all attempts share them, and asyncio sets that
            attempt.take_over()
            if is_first:
                shared.imports, shared.lives_on = True, None
                attempt.doing = f"Importing {self._program.entry}"
                self._imports.notice = self._note_import
            for note in order.message.get("notes", ()):
                attempt.note("info", note)
            prepare = partial(self._prepare, attempt, order.message["brief"]["class_name"])
            attempt.run(prepare, shared.passed)
            shared.leave(attempt.end())
            if not attempt.lives_on or attempt.stopped:
                shared.ending_since = time.monotonic()
                attempt.wind_down()
                self._teach()
                shared.leave(attempt.end())
                return
            attempt.close()
            self._take_back()
            self._tell_end(shared.taken, 0, lives_on=True)
            shared.taken = 0
        if attempt is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)  # its node reads no more
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            attempt.dismiss(self._program.sources.imported, self._let_go)

    def _next_order(self) -> Order | None:
        """Waits for one; None where there are no more."""
        shared = self._settings.shared
        while size := self._connection.peek():
            shared.taken = shared.ordered
            order = Order(*self._connection.take(size))
            if order.message["number"] != self._ended:
                return order
            order.close()  # who was about to take it has died
            shared.taken = 0
        return None

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

    # Before there are any attempts.

    def rehearse(self, runtime: MessageSocket) -> None:
        """Runs an attempt in this process, which does not end with it."""
        shared = self._settings.shared
        shared.ordered += 1
        connection, other = socket.socketpair()
        names = ("swarm_id", "alias", "node_id", "task_id", "class_name", "timeout")
        numbers = dict.fromkeys(("index", "iteration", "attempt", "size", "seed"), 0)
        brief: dict[str, Any] = {**dict.fromkeys(names), **numbers, "datasets": {}, "direct": False}
        order = {"k": "run", "number": shared.ordered, "token": "", "brief": brief}
        with connection, other:
            runtime.send(order, (connection.fileno(),))
        self._program.enter()
        self._live()
        self._program.leave()
        assert isinstance(usage.context, AttemptClient)
        usage.context.close()


def rehearse(settings: Settings, log: int) -> None:
    """Runs attempts that do nothing, in a process that has not forked any yet.

    While it runs code, CPython counts, and keeps what it learns in the code and in the caches of
    types. Each forked process would learn that anew, would have to copy the pages for it first, and
    would be slower until it has.
    """
    folder, entry = os.path.split(_NOTHING)
    runtime, theirs = map(MessageSocket, socket.socketpair())
    at = settings._replace(folder=folder, entry=entry, shared=Shared())
    template = Template(at, theirs, log)
    for _ in range(_REHEARSALS):
        template.rehearse(runtime)
    template.close()
    runtime.close()
    forget_attempts()
    usage.context = usage.log_sink = None
