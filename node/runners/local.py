"""What runners that use the node's own Python have in common."""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from typing import NoReturn

from manta.light import wire
from manta.node.errors import LaunchError
from manta.node.runners.interface import ImageSpec, RuntimeSpec
from manta.node.runners.launcher import Launcher

_PASSED_ON = (
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "NVIDIA_VISIBLE_DEVICES",
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
    """Has a launcher, and no images."""

    def __init__(self) -> None:
        self.launcher = Launcher()

    def runs_in_image(self, image: str | None) -> bool:
        return False

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
        """Nothing: what was started dies with the daemon that started it."""
        return []

    def close(self) -> None:
        self.launcher.close()


def environment(spec: RuntimeSpec) -> dict[str, str]:
    """What every runtime inherits, wherever it finds what belongs to its task."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        "LANG": "C.UTF-8",
        **passed_on,
        **thread_counts(spec.cpu),
        "PYTHONPATH": str(SOURCES),
        "PYTHONSAFEPATH": "1",
        "MANTA_TOKEN": spec.token,
        "MANTA_ENTRY": spec.entry,
    }


def thread_counts(cpu: float | None) -> dict[str, str]:
    """Variables by which native libraries size their pools."""
    cores = cpu if cpu is not None else os.cpu_count() or 1
    return dict.fromkeys(_THREADS, str(max(1, int(cores))))
