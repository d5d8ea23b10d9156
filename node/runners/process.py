"""A runtime as a plain child process: no isolation, so only for code that one trusts.

Its descendants are held together by the runtime itself, which adopts their orphans and
ends them all before it ends, also when the daemon dies. Should something kill the runtime
with SIGKILL, its descendants are found by a mark in their environment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from manta.light.runtime.processes import CLEANING_TIME, kill_tree, marked
from manta.node.runners import local
from manta.node.runners.interface import RuntimeExit, RuntimeHandle, RuntimeSpec
from manta.protocol.isolation import LIMITS

_MARK = "MANTA_SESSION"
_SWEEPING_TIME = 2.0


class ProcessRunner(local.LocalRunner):
    """Runs `python -m manta.light` with the node's own Python."""

    names: tuple[str, ...] = (LIMITS,)

    def start(self, spec: RuntimeSpec, on_exit: Callable[[RuntimeExit], None]) -> RuntimeHandle:
        """Raises LaunchError."""

        def ended(code: int, stderr_tail: str) -> None:
            if code != 0:  # it may not have come to ending what it started
                end_marked(spec.session)
            on_exit(RuntimeExit(spec.session, code, stderr_tail))

        child = self.launcher.launch(
            [sys.executable, "-m", "manta.light"],
            env=environment(spec),
            # Python 3.10 has no PYTHONSAFEPATH and looks first into the folder in which it is
            # started: what a task has left in its scratch folder must not hide what Manta imports.
            cwd=local.SOURCES,
            on_exit=ended,
        )
        datasets = {name: str(path) for name, path in spec.datasets.items()}
        return RuntimeHandle(datasets, lambda: self.launcher.end(child), child.pid)


def environment(spec: RuntimeSpec) -> dict[str, str]:
    """All that the runtime inherits."""
    scratch = str(spec.scratch)
    path = {"PATH": os.environ["PATH"]} if "PATH" in os.environ else {}
    return {
        **local.environment(spec),
        **path,
        "HOME": scratch,
        "TMPDIR": scratch,
        "MANTA_SOCKET": str(spec.socket),
        "MANTA_MODULE": str(spec.module_folder),
        "MANTA_SCRATCH": scratch,
        "MANTA_PARENT": str(os.getpid()),
        _MARK: spec.session,
    }


def end_marked(session: str) -> None:
    """Kill all processes that were started in a session, wherever they hang by now."""
    start = time.monotonic()
    deadline = start + CLEANING_TIME + _SWEEPING_TIME
    while (found := marked(f"{_MARK}={session}")) and time.monotonic() < deadline:
        kill_tree(found, let_clean_up=time.monotonic() - start < CLEANING_TIME)
        time.sleep(0.002)
