"""The worker, as its runtime starts it and sees it."""

from __future__ import annotations

import os
import resource
import signal
import socket
from typing import TYPE_CHECKING, NamedTuple

from manta.light.runtime import ending, processes
from manta.light.runtime.orders import BROKEN
from manta.light.wire import MessageSocket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from manta.light.runtime.orders import Settings

_DESCRIPTORS = 65_536  # each large value that is mapped takes one, before Python 3.13
_OOM_SCORE = b"500"  # user code goes before the runtime and the node do


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
    output: list[int],
    keep_out: list[int],
    runtimes_children: processes.OwnChildren,
) -> Worker:
    """Forks a worker.

    `cold` are modules that it must not import, and None for all. `output` is where it prints and
    logs: stdout, stderr and the log socket; it closes `keep_out`, which is the runtime's.
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
        *printed, log = output
        for number, fd in enumerate(printed, 1):
            os.dup2(fd, number)
        for fd in (*keep_out, *printed):
            os.close(fd)
        _become_users(parent)
        if settings.is_confined:
            processes.signal_nobody_outside()
        from manta.light.runtime.template import Template  # a runtime needs nothing of it

        Template(settings, MessageSocket(theirs), log).serve(cold)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(BROKEN)
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
