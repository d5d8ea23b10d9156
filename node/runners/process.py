"""A runtime as a plain child process: no isolation, so only for code that one trusts.

A `Holder` keeps it within limits; without one nothing does.

Its descendants are held together by the runtime itself, which adopts their orphans and
ends them all before it ends, also when the daemon dies. Should something kill the runtime
with SIGKILL, its descendants are found by a mark in their environment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NoReturn

from manta.light import wire
from manta.light.runtime.processes import CLEANING_TIME, kill_tree, marked
from manta.node.errors import LaunchError
from manta.node.isolation import enter
from manta.node.isolation.holding import Held, Holder
from manta.node.runners.interface import ImageSpec, RuntimeExit, RuntimeHandle, RuntimeSpec
from manta.node.runners.launcher import Launcher
from manta.transports.errors import remedied

_PASSED_ON = (
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
)
_THREADS = (
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_MARK = "MANTA_SESSION"
_SWEEPING_TIME = 2.0
RUNTIME = (sys.executable, "-m", "manta.light")
SOURCES = Path(wire.__file__).parents[2]
"""The folder that holds Manta."""


class ProcessRunner:
    """Runs `python -m manta.light` with the node's own Python."""

    names: tuple[str, ...] = ("process",)

    def __init__(self, holder: Holder | None = None) -> None:
        self.launcher = Launcher()
        self.holder = holder

    def runs_in_image(self, image: str | None) -> bool:
        return False

    def prepare(self, image: str | None, tell: object) -> Future[None]:
        """There is nothing to prepare."""
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def start(self, spec: RuntimeSpec, on_exit: Callable[[RuntimeExit], None]) -> RuntimeHandle:
        """Raises LaunchError."""
        held = self._hold(spec)

        def ended(code: int, stderr_tail: str) -> None:
            exit_ = self._exit(spec, code, stderr_tail, held)
            if held is not None:
                held.end()
            if code != 0:  # it may not have come to ending what it started
                end_marked(spec.session)
            on_exit(exit_)

        try:
            child = self.launcher.launch(
                self._command(spec, held),
                env=self._environment(spec, held),
                # Python 3.10 has no PYTHONSAFEPATH and looks first into the folder in which it is
                # started: what a task has left in its scratch folder must not hide what Manta
                # imports.
                cwd=SOURCES,
                on_exit=ended,
            )
        except LaunchError:
            if held is not None:
                held.end()
            raise
        if held is not None:
            held.watch(child.pid)
        datasets = {name: str(path) for name, path in spec.datasets.items()}
        return RuntimeHandle(datasets, lambda: self.launcher.end(child), child.pid)

    def _hold(self, spec: RuntimeSpec) -> Held | None:
        if self.holder is None or self.launcher.is_closed:  # which then says so
            return None
        try:
            return self.holder.hold(spec.session, spec.memory, spec.cpu)
        except OSError as error:
            raise LaunchError(
                f"The task can't be held to its limits: {remedied(error)}; restart the node, which "
                "then looks anew for control groups that it may make."
            ) from error

    def _environment(self, spec: RuntimeSpec, held: Held | None) -> dict[str, str]:
        return environment(spec) | (held.environment if held is not None else {})

    def _command(self, spec: RuntimeSpec, held: Held | None) -> Sequence[str]:
        return RUNTIME if held is None else held.command(RUNTIME)

    def _exit(
        self, spec: RuntimeSpec, code: int, stderr_tail: str, held: Held | None
    ) -> RuntimeExit:
        if held is None:
            return RuntimeExit(spec.session, code, stderr_tail)
        if code == enter.REFUSED:
            sentence = f"The task could not be isolated: {stderr_tail.strip()}"
            return RuntimeExit(spec.session, code, "", sentence, platform=True)
        return RuntimeExit(spec.session, code, stderr_tail, held.verdict(code))

    def start_image(self, spec: ImageSpec, on_output: object, on_exit: object) -> NoReturn:
        """Raises LaunchError."""
        raise LaunchError(
            f"The image {spec.image!r} needs a container engine; this node runs plain processes: "
            "give the module a program, or set containers.runner on a node with an engine."
        )

    def recover(self) -> list[str]:
        """Processes die with the daemon that started them, unless they have killed the runtime
        that holds them together: then their control group still does."""
        return [] if self.holder is None else self.holder.recover()

    def close(self) -> None:
        self.launcher.close()
        if self.holder is not None:
            self.holder.close()


def environment(spec: RuntimeSpec) -> dict[str, str]:
    """All that the runtime inherits."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    scratch = str(spec.scratch)
    return {
        "LANG": "C.UTF-8",
        **passed_on,
        **thread_counts(spec.cpu),
        "HOME": scratch,
        "TMPDIR": scratch,
        "PYTHONPATH": str(SOURCES),
        "PYTHONSAFEPATH": "1",
        "MANTA_SOCKET": str(spec.socket),
        "MANTA_TOKEN": spec.token,
        "MANTA_MODULE": str(spec.module_folder),
        "MANTA_ENTRY": spec.entry,
        "MANTA_SCRATCH": scratch,
        "MANTA_PARENT": str(os.getpid()),
        _MARK: spec.session,
    }


def thread_counts(cpu: float | None) -> dict[str, str]:
    """Variables by which native libraries size their pools."""
    cores = cpu if cpu is not None else os.cpu_count() or 1
    return dict.fromkeys(_THREADS, str(max(1, int(cores))))


def end_marked(session: str) -> None:
    """Kill all processes that were started in a session, wherever they hang by now."""
    start = time.monotonic()
    deadline = start + CLEANING_TIME + _SWEEPING_TIME
    while (found := marked(f"{_MARK}={session}")) and time.monotonic() < deadline:
        kill_tree(found, let_clean_up=time.monotonic() - start < CLEANING_TIME)
        time.sleep(0.002)
