"""The runtime: it never runs user code, and so outlives whatever that does.

It speaks to the node, keeps a worker that forks attempts, and gives it one at a time. It kills what
an attempt leaves behind and, at its own end, everything below it: the orphans of all its
descendants become its children.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgpack

from manta.light import wire
from manta.light.runtime import ending, memory, processes
from manta.light.runtime.installed import installed
from manta.light.runtime.orders import Order, Settings
from manta.light.runtime.shared import Shared
from manta.light.runtime.stacks import Stacks
from manta.light.runtime.worker import Worker, start
from manta.light.wire import BrokenFrame, MessageSocket

_MAX_COLD = 8  # modules that may not be kept warm: with more, none is
_PAUSE = 0.05  # seconds between attempts to reach the node's service
_LOOK = 2.0  # seconds between looks at whether an attempt hangs when it is over
_NUDGES = (0.05, 0.2, 1.0)
"""Seconds from asking an attempt to end to each nudge. Python looks for signals before it begins
to wait and when one interrupts the wait: a signal in between is seen only with the next. That is
SIGURG, because it is ignored by default and the user's code may handle SIGTERM itself."""


class _Stop(Exception):
    """The runtime is to end."""


class Runtime:
    """One task process and its attempts."""

    def __init__(
        self, settings: Settings, token: str, *, is_limited: bool, memory_events: str | None = None
    ) -> None:
        """`is_limited`: it may take so much memory and no more; `memory_events` counts whom the
        kernel has killed for that, None where it is the container's own file."""
        self._settings = settings
        self._is_limited = is_limited
        self._memory_events = memory_events
        self._kills = 0  # for memory, before the attempt
        self._token = token
        self._control: MessageSocket | None = None
        self._lost_at = time.monotonic()
        self._worker: Worker | None = None
        self._is_deaf = False  # the worker has closed its connection
        self._is_ready = False  # the worker takes an attempt
        self._was_ready = False  # a worker was
        self._cold: dict[str, str] | None = {}  # modules that workers must not import; None for all
        self._notes: list[str] = []  # lines for the log of the next attempt
        self._output: list[int] | None = None
        self._orders: list[Order] = []
        self._current: int | None = None
        self._class_name: str | None = None
        """What the latest attempt ran, whose object may live on."""
        self._nudges: list[float] = []  # when the attempt is to be nudged
        self._is_cut_off = False  # it was killed in what was left to do
        self._exits: list[dict[str, Any]] = []
        self._seen = 0
        self._wake_up, self._wake_up_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._children = processes.OwnChildren()

    def run(self) -> None:
        """Returns when the node has closed the session or is gone."""
        signal.set_wakeup_fd(self._wake_up_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the node
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        gc.freeze()  # what is there stays: the collector need not look through it again
        try:
            while not self._stopping:
                if self._control is None:
                    self._connect()
                self._step()
        except _Stop:
            return
        finally:
            self._dismiss()
            processes.kill_descendants()

    def _dismiss(self) -> None:
        """Lets an object that lives on end, where no attempt runs."""
        is_idle = self._is_ready and self._current is None
        if self._worker is not None and is_idle and self._settings.shared.lives_on:
            self._worker.dismiss()

    def _on_stop(self, *_: object) -> None:
        self._stopping = True

    def _step(self) -> None:
        poll = select.poll()
        sources = {self._wake_up: self._on_children}
        if self._control is not None:
            sources[self._control.fileno()] = self._on_control
        if self._worker is not None and not self._is_deaf:
            sources[self._worker.connection.fileno()] = self._on_worker
        for fd in sources:
            poll.register(fd, select.POLLIN)
        pauses = [] if self._control is not None else [_PAUSE]
        if self._nudges:
            pauses.append(max(0.0, self._nudges[0] - time.monotonic()))
        if self._current is not None:
            pauses.append(_LOOK)
        ready = poll.poll(int(min(pauses) * 1000) + 1 if pauses else None)
        for fd, _ in sorted(ready, key=lambda event: event[0] == self._wake_up):  # ends last
            sources[fd]()
        while self._nudges and time.monotonic() >= self._nudges[0]:
            self._nudges.pop(0)
            self._signal_attempt(signal.SIGURG)
        self._cut_off()
        self._dispatch()

    # The node.

    def _connect(self) -> None:
        try:
            self._control = MessageSocket.to(self._settings.socket)
        except OSError as error:
            if time.monotonic() - self._lost_at > wire.PATIENCE:
                sentence = f"The node's service can't be reached ({error}): the task ends.\n"
                sys.stderr.write(sentence)
                raise _Stop from None
            return
        hello = {"k": "runtime", "token": self._token, "version": wire.VERSION, "pid": os.getpid()}
        self._tell(hello)
        if self._was_ready:
            self._tell_ready()
        for exit_ in self._exits:
            self._tell(exit_)

    def _tell(self, message: dict[str, Any]) -> None:
        """Says it if there is a connection; what matters is said again after a reconnect."""
        if self._control is None:
            return
        try:
            self._control.send(message)
        except OSError:
            self._disconnect()

    def _tell_ready(self) -> None:
        self._tell({"k": "ready"})
        # Nobody waits for this one.
        self._tell({"k": "packages", "packages": installed(sys.path)})

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
            self._lost_at = time.monotonic()

    def _on_control(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            if not control.fill():
                raise ConnectionResetError
            while (received := control.next()) is not None:
                self._on_message(*received)
                if control is not self._control:
                    return
        except (OSError, BrokenFrame):
            self._disconnect()

    def _on_message(self, message: dict[str, Any], fds: list[int]) -> None:
        kind = message["k"]
        order = Order(message, fds)
        if kind == "welcome" and self._output is None:
            self._output = fds
            self._start()
        elif kind == "run" and message["number"] > self._seen:
            self._seen = message["number"]
            self._orders.append(order)
        elif kind in ("welcome", "run"):
            order.close()  # said again after a reconnect
        elif kind == "stacks":
            self._tell_stacks(message["number"], asked=True)
        elif kind == "stop":
            if message.get("stacks"):
                self._tell_stacks(message["number"])
            self._cancel(message["number"], kill=False)
        elif kind == "cancel":
            self._cancel(message["number"], kill=True)
        else:  # close, refused
            raise _Stop

    def _cancel(self, number: int, *, kill: bool) -> None:
        for order in self._orders:
            if order.message["number"] == number:
                self._orders.remove(order)
                order.close()
                self._ended(number, -signal.SIGKILL, b"")
                return
        if self._current != number:
            return
        self._settings.shared.cancelled = number
        if kill:
            if pid := self._attempt_pid():
                processes.kill_tree({pid}, let_clean_up=True)
        else:
            self._signal_attempt(signal.SIGTERM)
            now = time.monotonic()
            self._nudges = [now + after for after in _NUDGES]

    def _tell_stacks(self, number: int, *, asked: bool = False) -> None:
        """Of an attempt that does not run, there are none."""
        text, worker = "", self._worker
        if number == self._current and worker is not None:
            settings, attempt = self._settings, self._attempt_pid()
            text = settings.stacks.take(os.getpid(), worker.pid, attempt, settings.folder)
        self._tell({"k": "stacks", "number": number, "text": text, "asked": asked})

    def _attempt_pid(self) -> int:
        """The process that runs the attempt, 0 where there is none."""
        pid = self._settings.shared.attempt_pid
        return self._worker.pid if not pid and self._worker is not None else pid

    def _signal_attempt(self, number: int) -> None:
        if pid := self._attempt_pid():
            processes.send(pid, number)

    def _cut_off(self) -> None:
        """Kills an attempt that is over and hangs in what is left to do."""
        since = self._settings.shared.ending_since
        if self._current is None or since is None or self._is_cut_off:
            return
        if time.monotonic() - since > ending.PATIENCE + ending.SLACK:
            self._is_cut_off = True
            self._tell_stacks(self._current)
            self._cancel(self._current, kill=True)

    # Attempts.

    def _dispatch(self) -> None:
        """Gives the next attempt to a worker, if there is one that can take it."""
        if self._current is not None or not self._orders:
            return
        if self._worker is None:
            self._start()  # the last one has died
        if self._worker is None or not self._is_ready:
            return
        class_name = self._orders[0].message["brief"]["class_name"]
        if self._settings.shared.lives_on and class_name != self._class_name:
            self._replace_worker()
            return
        order = self._orders.pop(0)
        self._class_name = class_name
        shared = self._settings.shared
        shared.ordered = self._current = order.message["number"]
        shared.ending_since = None
        shared.forget_moments()
        message = {**order.message, "notes": self._notes} if self._notes else order.message
        self._kills = memory.kills(self._memory_events) if self._is_limited else 0
        try:
            self._worker.connection.send(message, tuple(order.ends))
        except OSError:  # it has just died: its status comes next
            self._current = None
            self._orders.insert(0, order)
            return
        self._notes.clear()
        order.close()

    def _replace_worker(self) -> None:
        """Lets the object that lives on end: what comes next is of another class."""
        self._dismiss()
        if (worker := self._worker) is not None:
            processes.kill_tree({worker.pid})
            processes.reap({worker.pid})
        self._kill_orphans()
        self._start()

    def _start(self) -> None:
        """Forks a worker."""
        keep_out = [self._wake_up, self._wake_up_end]
        if self._control is not None:
            keep_out.append(self._control.fileno())
        for order in self._orders:
            keep_out += order.ends
        self._is_ready = self._is_deaf = False
        shared = self._settings.shared
        shared.attempt_pid, shared.taken, shared.lives_on = 0, 0, None
        self._worker = start(
            self._settings, self._cold, self._output or [], keep_out, self._children
        )

    def _on_worker(self) -> None:
        worker = self._worker
        if worker is None:
            return
        try:
            alive = worker.connection.fill()
        except OSError:
            alive = False
        while (received := worker.connection.next()) is not None:
            self._on_report(received[0])
        self._is_deaf = not alive

    def _on_report(self, report: dict[str, Any]) -> None:
        kind = report["k"]
        if kind == "exited":
            if report["number"] == self._current:  # else an object has told it, and died after that
                self._is_ready = not report["learns"]
                self._attempt_ended(report["status"], report["lives_on"], report["used"])
        elif kind == "ready":
            self._is_ready = True
            if not self._was_ready:
                self._was_ready = True
                self._tell_ready()
        else:
            self._leave_out(report["name"], report["why"])

    def _leave_out(self, name: str, why: str) -> None:
        """Replaces a worker that has imported what must not be forked."""
        if self._cold is not None:
            self._cold[name] = why
            self._notes.append(f"{name} is imported anew in each attempt, because {why}.")
            if len(self._cold) > _MAX_COLD:
                self._cold = None
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.connection.close()
            processes.kill_tree({worker.pid})
            processes.reap({worker.pid})
            self._kill_orphans()
            self._start()

    def _on_children(self) -> None:
        """A child has ended: the worker, or an adopted orphan."""
        try:
            os.read(self._wake_up, 4096)
        except BlockingIOError:
            return
        worker = self._worker
        for pid in self._children.pids():
            if worker is None or pid != worker.pid:
                processes.reap({pid}, patience=0)
        if worker is None:
            return
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if not pid:
            return
        self._worker = None
        worker.connection.close()
        code = os.waitstatus_to_exitcode(status)
        if not self._is_ready:  # importing has ended it: attempts do so themselves, and tell
            if self._cold is None:
                sys.exit(f"The worker of {self._settings.entry} can't start: exit code {code}.")
            self._cold = None
            self._start()
        self._attempt_ended(code, lives_on=False)

    def _attempt_ended(self, status: int, lives_on: bool, used: Sequence[float] = ()) -> None:
        number, self._current = self._current, None
        self._nudges.clear()
        if number is None:
            return
        if not lives_on:
            self._kill_orphans()
        shared = self._settings.shared
        end = shared.take()
        if shared.ending_since is not None and status and not self._is_cut_off:
            end = b""  # it died in what was left to do
        if not end and shared.imports:
            end = _import_died(self._settings.entry, status)
        shared.imports = False
        self._ended(number, status, end, used)

    def _ended(self, number: int, status: int, end: bytes, used: Sequence[float] = ()) -> None:
        shared = self._settings.shared
        message = {"k": "exited", "number": number, "status": status, "end": end}
        message["lives_on"], message["moments"] = shared.lives_on, shared.moments
        if used:
            message["cpu"], message["memory"] = used
        message["cut_off"] = self._is_cut_off
        if self._is_limited:
            message["no_memory"] = memory.kills(self._memory_events) > self._kills
        self._is_cut_off = False
        self._exits = [*self._exits[-7:], message]
        self._tell(message)

    def _kill_orphans(self) -> None:
        """Ends what an attempt has left behind."""
        keep = frozenset(() if self._worker is None else (self._worker.pid,))
        if self._children.pids() - keep:
            processes.kill_descendants(keep)


def _import_died(entry: str, status: int) -> bytes:
    """The end of an attempt that died while it imported its module."""
    error = ["Exited", f"Importing {entry} ended its process with exit code {status}.", ""]
    if status < 0:
        error = ["Killed", f"Importing {entry} was ended by {signal.Signals(-status).name}.", ""]
    end: bytes = msgpack.packb({"computing": 0.0, "moving": 0.0, "error": error})
    return end


def main() -> int:
    """Runs as `python -m manta.light`; the environment says what to run."""
    environment = os.environ
    environment.pop("PYTHONSAFEPATH", None)
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(wire.__file__))))
    if environment.pop("PYTHONPATH", None) is not None and folder in sys.path:
        # The task's own modules come first.
        sys.path[:] = [*(entry for entry in sys.path if entry != folder), folder]
    packages = environment.pop("MANTA_PACKAGES", None)
    if packages is not None:
        made_for, here = environment.pop("MANTA_INTERPRETER"), wire.interpreter()
        if made_for != here:
            sys.stderr.write(f"{made_for}\n{here}\n")
            return wire.UNFIT
        environment["PYTHONPATH"] = packages  # for what the task starts
    try:
        path, token, module, entry, scratch = (
            environment.pop(f"MANTA_{name}")
            for name in ("SOCKET", "TOKEN", "MODULE", "ENTRY", "SCRATCH")
        )
    except KeyError as missing:
        name = missing.args[0]
        sys.stderr.write(f"python -m manta.light is started by a node, which sets {name}.\n")
        return 2
    if (ways := environment.pop("MANTA_WAYS", None)) is not None:
        from manta.light.runtime.ways import hand_over_at

        try:
            hand_over_at(environment.pop("MANTA_WAYS_SOCKET"), ways)
        except OSError as error:
            sys.stderr.write(f"The task's ways out can't be made: {error}.\n")
            return 2
    is_limited = environment.pop("MANTA_MEMORY", None) is not None
    memory_events = environment.pop("MANTA_MEMORY_EVENTS", None)
    environment.pop("MANTA_NODE", None)  # by which the node finds this process
    parent = environment.pop("MANTA_PARENT", None)
    if parent is not None:
        processes.die_with_parent(signal.SIGTERM, int(parent))
    processes.adopt_orphans()
    os.chdir(scratch)
    is_confined = environment.pop("MANTA_CONFINED", None) is not None
    settings = Settings(path, module, entry, scratch, Shared(), Stacks(), is_confined)
    Runtime(settings, token, is_limited=is_limited, memory_events=memory_events).run()
    return 0
