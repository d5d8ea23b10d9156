"""Which runner a node has, as its operator wants it and its machine allows."""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from manta.node.errors import LaunchError
from manta.node.runners.interface import (
    ImageSpec,
    Runner,
    RuntimeExit,
    RuntimeHandle,
    RuntimeSpec,
)

if TYPE_CHECKING:
    from manta.node.config import NodeConfig
    from manta.node.state import StateFolder

log = logging.getLogger("manta.node")


def choose_runner(config: NodeConfig, folder: StateFolder, public_key: str) -> Runner:
    """Raises LaunchError."""
    has_engine = can_run_tasks(config)
    if has_engine and (config.runner == "docker" or not config.allow_unsandboxed):
        return _docker(config, folder, public_key)
    from manta.node.runners.process import ProcessRunner

    processes = ProcessRunner()
    return ByImage(_docker(config, folder, public_key), processes) if has_engine else processes


def can_run_tasks(config: NodeConfig) -> bool:
    """Returns whether it can in containers. Raises LaunchError if the node can run none at all."""
    has_engine = False
    if config.runner != "process":
        from manta.node.runners import engine  # with an HTTP client, needed only for it

        problem = engine.problem()
        has_engine = problem is None
        if not has_engine:
            log.info("Tasks do not run in containers: %s.", problem)
            if config.runner == "docker":
                raise LaunchError(
                    f'{config.path}: containers.runner is "docker", and {problem}: start it '
                    "(systemctl start docker) and let this user use its socket (usermod -aG docker "
                    'USER), or set it to "auto" or "process".'
                )
    if not (has_engine or config.allow_unsandboxed):
        raise LaunchError(
            f"{config.path}: containers.allow_unsandboxed is false, as it is unless it is set, and "
            "without a container engine tasks run as plain processes, which can do all that this "
            "user can: start an engine, or set it to true if you trust whoever deploys to this "
            "node's cluster."
        )
    return has_engine


def _docker(config: NodeConfig, folder: StateFolder, public_key: str) -> Runner:
    from manta.node.runners.docker import DockerRunner
    from manta.node.runners.runtime_copy import runtime_copy

    major, minor, _ = platform.python_version_tuple()
    image = config.default_image or f"python:{major}.{minor}-slim"
    return DockerRunner(label_of(public_key), config.alias, image, runtime_copy(folder.runtime))


def label_of(public_key: str) -> str:
    """What the containers of a node with that key are labelled with."""
    return hashlib.blake2b(public_key.encode(), digest_size=8).hexdigest()


class ByImage:
    """Modules that name an image run in containers, others as plain processes."""

    names: tuple[str, ...] = ("docker", "process")

    def __init__(self, containers: Runner, processes: Runner) -> None:
        self._containers = containers
        self._processes = processes

    def runs_in_image(self, image: str | None) -> bool:
        return image is not None

    def _of(self, image: str | None) -> Runner:
        return self._processes if image is None else self._containers

    def prepare(self, image: str | None, tell: Callable[[str], None]) -> Future[None]:
        return self._of(image).prepare(image, tell)

    def start(self, spec: RuntimeSpec, on_exit: Callable[[RuntimeExit], None]) -> RuntimeHandle:
        return self._of(spec.image).start(spec, on_exit)

    def start_image(
        self,
        spec: ImageSpec,
        on_output: Callable[[str, Sequence[tuple[float, str]]], None],
        on_exit: Callable[[RuntimeExit], None],
    ) -> RuntimeHandle:
        return self._containers.start_image(spec, on_output, on_exit)

    def recover(self) -> list[str]:
        return self._containers.recover()

    def close(self) -> None:
        self._containers.close()
        self._processes.close()
