"""How a runtime is started, watched and killed, whatever it runs in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
    image: str | None = None
    cpu: float | None = None
    """Cores: also the count of BLAS and OpenMP threads."""
    memory: int | None = None


class RuntimeExit(msgspec.Struct, frozen=True):
    """`code` as `subprocess` has it: negative for a signal."""

    session: str
    code: int
    stderr_tail: str


class RuntimeHandle(Protocol):
    @property
    def pid(self) -> int: ...

    def dataset_paths(self) -> dict[str, str]:
        """Where the task sees its datasets."""

    def kill(self) -> None:
        """End the runtime with everything that it started, setsid or not. Idempotent."""


class Runner(Protocol):
    name: str

    def start(self, spec: RuntimeSpec, on_exit: Callable[[RuntimeExit], None]) -> RuntimeHandle:
        """Start `python -m manta.light`; `on_exit` is called once, from the launcher thread.

        Raises LaunchError with one sentence.
        """

    def close(self) -> None: ...
