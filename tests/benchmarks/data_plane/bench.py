"""What figures are measured with: a cluster on this machine, and crews of other programs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from manta import UserAPI
from manta.cli.exit_codes import LocalError
from manta.cli.local.cluster import LocalCluster
from manta.testing.clusters import client, running
from tests.benchmarks.data_plane.crew import ProcessCrew, SwarmCrew, python
from tests.benchmarks.data_plane.figures import (
    CURVE,
    DASK,
    FLOWER,
    GLOO,
    HIVEMIND,
    MESH,
    MPI,
    MPI_TCP,
    RAY,
    TCP,
    Figure,
)
from tests.benchmarks.data_plane.members.control import Job
from tests.benchmarks.data_plane.turns import NotMeasured, Side

NODES = 8
"""Of a cluster, unless a figure needs fewer; figures take as many of them as they name."""
_LONGEST = 120.0
"""Seconds within which a program has printed what it measured."""
_MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "{members}"]
_BY_TCP = ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "lo"]
_MANY = ("{address}", "{rank}", "{members}")


class Program(NamedTuple):
    """Another program, with what has to be there for it."""

    command: list[str]
    package: str = ""
    executable: str = ""
    remedy: str = ""

    def check(self) -> None:
        """Raises NotMeasured."""
        if self.package and importlib.util.find_spec(self.package) is None:
            raise NotMeasured(f"{self.package} is not installed ({self.remedy})")
        if self.executable and shutil.which(self.executable) is None:
            raise NotMeasured(f"{self.executable} is not installed ({self.remedy})")


_TORCH = "pip install torch==2.13.0, a build for the CPU"
_OPENMPI = "apt install openmpi-bin"
PROGRAMS = {
    GLOO: Program(python("gloo", *_MANY), "torch", remedy=_TORCH),
    MPI: Program([*_MPIRUN, *python("openmpi", "{address}")], executable="mpirun", remedy=_OPENMPI),
    MPI_TCP: Program(
        [*_MPIRUN, *_BY_TCP, *python("openmpi", "{address}")],
        executable="mpirun",
        remedy=_OPENMPI,
    ),
    MESH: Program(python("mesh", *_MANY)),
    TCP: Program(python("bare", "tcp", *_MANY)),
    CURVE: Program(python("bare", "curve", *_MANY)),
    RAY: Program(python("ray_driver", *_MANY), "ray", remedy="pip install ray"),
    DASK: Program(python("dask_client", *_MANY), "distributed", remedy="pip install distributed"),
    FLOWER: Program(python("flower_rounds"), "flwr", remedy="pip install flwr ray"),
    HIVEMIND: Program(python("hivemind_start"), "hivemind", remedy="pip install hivemind"),
}


class Bench:
    """Starts what a figure asks for, once, and keeps it for the figures that follow."""

    def __init__(self) -> None:
        self._crews: dict[tuple[str, int], ProcessCrew | NotMeasured] = {}
        self._cluster = ExitStack()
        self._runs: tuple[str, int] | None = None
        self._kind = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._release()
        self._cluster.close()

    def begin(self, figure: Figure) -> None:
        """Ends crews that figures of another kind have used."""
        if figure.kind != self._kind:
            self._release()
        self._kind = figure.kind

    def api(self, form: str, nodes: int = NODES) -> UserAPI:
        """Of a cluster with links of that form. Raises NotMeasured."""
        if self._runs != (form, nodes):
            self._cluster.close()
            self._runs = None
            try:
                self.local = self._cluster.enter_context(
                    running(partial(LocalCluster, links=form), nodes)
                )
                self._api = self._cluster.enter_context(client(self.local))
            except LocalError as error:
                raise NotMeasured(str(error)) from error
            self._runs = form, nodes
        return self._api

    def instances(self, figure: Figure, members: int) -> SwarmCrew:
        """Members of a swarm on so many nodes as the figure says. Raises NotMeasured."""
        nodes = [f"node-{number + 1}" for number in range(figure.nodes)]
        return SwarmCrew(self.api(figure.form), nodes, members)

    def crew(self, program: str, members: int) -> ProcessCrew:
        """Processes of another program. Raises NotMeasured."""
        key = program, members
        if key not in self._crews:
            PROGRAMS[program].check()
            try:
                self._crews[key] = ProcessCrew(PROGRAMS[program].command, members)
            except NotMeasured as reason:
                self._crews[key] = reason  # it would fail as slowly again
        found = self._crews[key]
        if isinstance(found, NotMeasured):
            raise found
        return found

    def side(self, program: str, members: int, job: Job) -> Side:
        """Measures a job by another program."""
        return lambda: self.crew(program, members).measure(job)

    def _release(self) -> None:
        for crew in self._crews.values():
            if isinstance(crew, ProcessCrew):
                crew.close()
        self._crews.clear()


def printed(command: Sequence[str | Path]) -> Any:
    """The JSON that a program prints. Raises NotMeasured with its last line where it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_LONGEST)
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"it did not end within {_LONGEST:g} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise NotMeasured(lines[-1].strip())
    return json.loads(done.stdout.strip().splitlines()[-1])


def script(path: Path, *arguments: object) -> list[str | Path]:
    return [sys.executable, path, *map(str, arguments)]
