"""What runners that use the node's own Python have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import NoReturn

from manta.light import wire
from manta.node.errors import LaunchError
from manta.node.isolation.holding import Held, Holder
from manta.node.runners import gpus
from manta.node.runners.interface import ImageSpec, RuntimeExit, RuntimeSpec
from manta.node.runners.launcher import Ended, Launcher
from manta.protocol.bundle import Usage
from manta.transports.errors import remedied

_PASSED_ON = (
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
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
SOURCES = Path(wire.__file__).parents[2]
"""The folder that holds Manta."""


class LocalRunner:
    """Has a launcher, and no images. Tasks are within limits if there is a holder."""

    names: tuple[str, ...]

    def __init__(
        self, holder: Holder | None = None, give_up: Callable[[str], None] | None = None
    ) -> None:
        """`give_up` is called with a sentence when nothing can be started any more."""
        self.launcher = Launcher(give_up)
        self.holder = holder

    @property
    def trouble(self) -> str:
        return self.launcher.trouble

    def hold(self, spec: RuntimeSpec) -> Held | None:
        """Prepares to hold a task to its limits. Raises LaunchError."""
        if self.holder is None or self.launcher.is_closed:  # which then says so
            return None
        try:
            return self.holder.hold(spec.session, spec.memory, spec.cpu)
        except OSError as error:
            raise LaunchError(
                f"The task can't be held to its limits: {remedied(error)}; restart the node, which "
                "then looks anew for control groups that it may make."
            ) from error

    def runs_in_image(self, image: str | None) -> bool:
        return False

    def level(self, image: str | None) -> str:
        return self.names[0]

    def prepare(self, image: str | None, tell: object) -> Future[None]:
        """There is nothing to prepare."""
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def start_image(self, spec: ImageSpec, on_output: object, on_exit: object) -> NoReturn:
        """Raises LaunchError."""
        raise LaunchError(
            f"The image {spec.image!r} needs a container engine, which this node does not use: "
            "give the module a program, or set containers.runner on a node with an engine."
        )

    def recover(self) -> list[str]:
        """What was started dies with the daemon that started it, unless it has killed the runtime
        that holds it together: then its control group still does."""
        return [] if self.holder is None else self.holder.recover()

    def close(self) -> None:
        self.launcher.close()
        if self.holder is not None:
            self.holder.close()


def runtime(environment: str | None = None) -> tuple[str, ...]:
    """What is started: the Python of an environment that the task sees there, or the node's."""
    python = sys.executable if environment is None else f"{environment}/bin/python"
    return (python, "-m", "manta.light")


def lost(session: str, how: Ended) -> RuntimeExit:
    """Of a runtime that has ended with the thread that launched it."""
    return RuntimeExit(session, None, how.said, how.lost, platform=True)


def usage_of(held: Held | None) -> Callable[[], Usage]:
    """What is known of a task, held or not."""
    return Usage if held is None else held.usage


def interpreter() -> dict[str, str]:
    """By which the node's Python starts, and finds Manta."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        "LANG": "C.UTF-8",
        **passed_on,
        "PYTHONPATH": str(SOURCES),
        "PYTHONSAFEPATH": "1",
    }


def environment(spec: RuntimeSpec) -> dict[str, str]:
    """What every runtime inherits, wherever it finds what belongs to its task."""
    return {
        **interpreter(),
        **thread_counts(spec.cpu),
        **gpus.environment(spec.gpus),
        "MANTA_TOKEN": spec.token,
        "MANTA_ENTRY": spec.entry,
    }


def thread_counts(cpu: float | None) -> dict[str, str]:
    """Variables by which native libraries size their pools."""
    cores = cpu if cpu is not None else os.cpu_count() or 1
    return dict.fromkeys(_THREADS, str(max(1, int(cores))))
