"""How tasks are started, watched, ended and found again, whatever they run in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from manta.node.runners.gpus import Gpu
from manta.protocol.bundle import Usage

if TYPE_CHECKING:
    from concurrent.futures import Future

    from manta.node.outbound import Ways


class RuntimeSpec(msgspec.Struct, frozen=True):
    """What to start. Folders are the node's own paths; the runner maps them."""

    session: str
    module_folder: Path
    """The unpacked module, read-only for the task."""
    socket: Path
    token: str
    scratch: Path
    entry: str
    """The module's main file or package, relative to `module_folder`."""
    datasets: dict[str, Path] = {}
    environment: Path | None = None
    """What the module requires, installed; read-only for the task."""
    outbound: Ways | None = None
    """Where it may connect to; the runner closes them at its end."""
    image: str | None = None
    cpu: float | None = None
    """Cores: also the count of BLAS and OpenMP threads."""
    memory: int | None = None
    gpus: tuple[Gpu, ...] = ()
    """Those that it has; it sees no others."""
    task: str = ""
    """Whose it is, for people."""


class ImageSpec(msgspec.Struct, frozen=True):
    """An image that runs its own entry point, once."""

    session: str
    image: str
    scratch: Path
    environment: dict[str, str]
    datasets: dict[str, Path] = {}
    cpu: float | None = None
    memory: int | None = None
    gpus: tuple[Gpu, ...] = ()
    task: str = ""


class RuntimeExit(msgspec.Struct, frozen=True):
    """`code` as `subprocess` has it: negative for a signal. None: it is not known."""

    session: str
    code: int | None
    stderr_tail: str = ""
    sentence: str = ""
    """What the runner knows better than the code says."""
    platform: bool = False
    """Neither the task nor its image is to blame."""
    image: str = ""
    """What it ran in, by name and digest."""


def _nothing_known() -> Usage:
    return Usage()


class RuntimeHandle(msgspec.Struct, frozen=True):
    datasets: dict[str, str]
    """Where the task sees them, by their names."""
    kill: Callable[[], None]
    """Ends it with everything that it started, setsid or not. Idempotent; returns at once."""
    pid: int | None = None
    """Of a plain process."""
    usage: Callable[[], Usage] = _nothing_known
    """What it has used so far, and may; from any thread, at once."""
    image: str = ""
    """What it runs in, with its digest, where that is an image."""


class Runner(Protocol):
    """Callbacks come from threads of the runner's own; `on_exit` once, and last of all."""

    names: tuple[str, ...]
    """The levels at which it isolates tasks, as the node's capabilities say."""

    @property
    def trouble(self) -> str:
        """What its operator should know, in a sentence; "" for nothing."""

    def runs_in_image(self, image: str | None) -> bool:
        """Whether a module that names this image, or none, runs in a container."""

    def level(self, image: str | None) -> str:
        """At which level it isolates a module that names this image, or none."""

    def prepare(self, image: str | None, tell: Callable[[str], None]) -> Future[None]:
        """Have what a module with that image needs. Fails with ImageMissing or EngineError.

        `tell` takes a sentence for the task's user when that will take a while, from any thread.
        """

    def start(self, spec: RuntimeSpec, on_exit: Callable[[RuntimeExit], None]) -> RuntimeHandle:
        """Start `python -m manta.light`. May raise LaunchError, or tell it by `on_exit`."""

    def start_image(
        self,
        spec: ImageSpec,
        on_output: Callable[[str, Sequence[tuple[float, str]]], None],
        on_exit: Callable[[RuntimeExit], None],
    ) -> RuntimeHandle:
        """Run the image's own entry point. `on_output` takes stdout or stderr, and lines, each
        with its time in seconds since the epoch; while it blocks, the image's output waits.
        """

    def recover(self) -> list[str]:
        """End what a daemon of this node that was killed has left; whose it was, by sentence.

        Called once, before anything is started. Raises EngineError.
        """

    def close(self) -> None:
        """End all that runs, and wait for it."""
