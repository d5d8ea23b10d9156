"""A runtime as a plain child process: no isolation, so only for code that one trusts.

Its descendants are held together by the runtime itself, which adopts their orphans and
ends them all before it ends, also when the daemon dies. Should something kill the runtime
with SIGKILL, its descendants are found by a mark in their environment, or by their control group.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from manta.light.runtime.processes import CLEANING_TIME, kill_tree, marked
from manta.node.errors import LaunchError
from manta.node.isolation import enter
from manta.node.isolation.holding import Held
from manta.node.runners import local
from manta.node.runners.interface import RuntimeExit, RuntimeHandle, RuntimeSpec
from manta.node.runners.launcher import Ended
from manta.protocol.isolation import LIMITS

_MARK = "MANTA_SESSION"
_SWEEPING_TIME = 2.0


class ProcessRunner(local.LocalRunner):
    """Runs `python -m manta.light` with the node's own Python."""

    names: tuple[str, ...] = (LIMITS,)

    def start(self, spec: RuntimeSpec, on_exit: Callable[[RuntimeExit], None]) -> RuntimeHandle:
        """Raises LaunchError."""
        held = self.hold(spec)

        def ended(how: Ended) -> None:
            exit_ = _exit(spec.session, how, held)
            if held is not None:
                held.end()
            if how.code != 0:  # it may not have come to ending what it started
                end_marked(spec.session)
            on_exit(exit_)

        try:
            child = self.launcher.launch(
                self.command(spec, held),
                env=self.environment(spec, held),
                # Python 3.10 has no PYTHONSAFEPATH and looks first into the folder in which it is
                # started: what a task has left in its scratch folder must not hide what Manta
                # imports.
                cwd=local.SOURCES,
                on_exit=ended,
            )
        except LaunchError:
            if held is not None:
                held.end()
            raise
        if held is not None:
            held.watch(child.pid)
        datasets = {name: str(path) for name, path in spec.datasets.items()}
        kill, usage = (lambda: self.launcher.end(child)), local.usage_of(held)
        return RuntimeHandle(datasets, kill, child.pid, usage)

    def command(self, spec: RuntimeSpec, held: Held | None) -> Sequence[str]:
        """What is started."""
        program = local.runtime(_text(spec.environment))
        return program if held is None else held.command(program)

    def environment(self, spec: RuntimeSpec, held: Held | None) -> dict[str, str]:
        """All that it inherits."""
        return environment(spec) | (held.environment if held is not None else {})


def _exit(session: str, how: Ended, held: Held | None) -> RuntimeExit:
    code, stderr_tail, lost = how
    if lost:
        return local.lost(session, how)
    if held is None:
        return RuntimeExit(session, code, stderr_tail)
    if code == enter.REFUSED:
        sentence = f"The task could not be isolated: {stderr_tail.strip()}"
        return RuntimeExit(session, code, "", sentence, platform=True)
    return RuntimeExit(session, code, stderr_tail, held.verdict(code))


def environment(spec: RuntimeSpec) -> dict[str, str]:
    """What the runtime inherits that nothing holds to limits."""
    scratch = str(spec.scratch)
    path = {"PATH": os.environ["PATH"]} if "PATH" in os.environ else {}
    if spec.environment is not None:
        programs = f"{spec.environment}/bin"
        path = {"PATH": f"{programs}:{path.get('PATH', os.defpath)}"}
        path["VIRTUAL_ENV"] = str(spec.environment)
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


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def end_marked(session: str) -> None:
    """Kill all processes that were started in a session, wherever they hang by now."""
    start = time.monotonic()
    deadline = start + CLEANING_TIME + _SWEEPING_TIME
    while (found := marked(f"{_MARK}={session}")) and time.monotonic() < deadline:
        kill_tree(found, let_clean_up=time.monotonic() - start < CLEANING_TIME)
        time.sleep(0.002)
