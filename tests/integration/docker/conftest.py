"""A real manager, real nodes whose tasks run in containers of a real engine, a user's API."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from manta import Module, Swarm, Task
from tests.integration.node.conftest import Lab
from tests.support.children import Child
from tests.support.engine import TestEngine


class DockerLab(Lab):
    """Its nodes run everything in containers, of the base image where none is named."""

    engine: TestEngine

    def node(self, number: int = 1, **sections: dict[str, Any]) -> Any:
        containers = sections.setdefault("containers", {})
        containers.setdefault("runner", "docker")
        containers.setdefault("default_image", self.engine.base())
        return super().node(number, **sections)

    @contextmanager
    def daemon(self, *prefix: str) -> Iterator[subprocess.Popen[bytes]]:
        """Node 1 as a process, started by a command that `prefix` begins; ended in the end."""
        state = self.known(1)
        image = self.engine.base()
        config = self.config("node-1", containers={"runner": "docker", "default_image": image})
        command = [*prefix, sys.executable, "-m", "manta.node", "--config", str(config.path)]
        command += ["--state", str(state.path), "--log", str(state.path / "node.log")]
        with (self.folder / "node-1.err").open("wb") as said:
            node: Child[bytes] = Child(command, stdout=subprocess.DEVNULL, stderr=said)
        with node:
            try:
                yield node
            finally:
                node.terminate()
                node.wait(60)

    def of(self, module: Module, *, iterations: int | None = None, **arguments: Any) -> Swarm:
        """A swarm of one task."""

        class Single(Swarm):
            def __init__(self) -> None:
                super().__init__(max_iteration=iterations)

            def execute(self) -> Task:
                return Task(module, **arguments)

        return Single()

    def gone(self) -> None:
        """Nothing is left: no container, no scratch, no runtime."""
        self.wait_until(lambda: not self.engine.containers(), 10, self.engine.containers)
        for node in self.nodes:
            tasks = node.context.state.tasks
            self.wait_until(lambda tasks=tasks: not list(tasks.iterdir()))  # type: ignore[misc]
            assert not node.context.runtimes


@pytest.fixture
def lab(
    request: pytest.FixtureRequest,
    docker_host: TestEngine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DockerLab]:
    with ExitStack() as undo:
        folder = tmp_path_factory.mktemp("lab")
        lab = DockerLab(folder, undo, getattr(request, "param", 1))
        lab.engine = docker_host
        undo.callback(lab.stop_manager)
        yield lab
