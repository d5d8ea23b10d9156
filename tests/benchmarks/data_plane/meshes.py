"""Peers of a mesh beside tasks of nodes, how soon they are there, and how soon a loss is named."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict

from tests.benchmarks.data_plane.bench import PROGRAMS, Bench, printed
from tests.benchmarks.data_plane.crew import MEMBERS
from tests.benchmarks.data_plane.figures import HIVEMIND, MANTA, MESH, TASKS, Figure
from tests.benchmarks.data_plane.members.control import Job
from tests.benchmarks.data_plane.turns import Measure, Measured, NotMeasured

_TRIPS = 50
_LONGEST = 120.0
"""Seconds for a script of peers."""


def exchange(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    """The same on peers and on the instances of a task, one on each node."""
    times = _TRIPS if figure.variant == "trip" else 1
    job = Job(figure.variant, figure.size, times)
    with bench.instances(figure, figure.nodes) as instances:
        return measure(
            {
                MANTA: bench.side(MESH, figure.nodes, job),
                TASKS: lambda: instances.measure(job),
            }
        )


def start(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    """From the command to the last peer that has met all others; hivemind's are those of its
    table."""

    def once() -> list[float]:
        began = time.time()
        said = _said(figure.nodes)
        return [max(said["there"]) - began]

    def hivemind() -> list[float]:
        PROGRAMS[HIVEMIND].check()
        seconds: list[float] = printed([*PROGRAMS[HIVEMIND].command, str(figure.nodes)])
        return seconds

    return measure({MANTA: once, HIVEMIND: hivemind}, turns=7, least=1)


def loss(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    """From a signal, to the script of one peer, to the last other that names it."""

    def once() -> list[float]:
        said = _said(figure.nodes, figure.variant)
        if len(said["named"]) < figure.nodes - 1:
            raise NotMeasured(f"{len(said['named'])} of {figure.nodes - 1} peers have named it")
        return [max(said["named"]) - said["ends"][0]]

    return measure({MANTA: once}, turns=5, least=1, warm_up=False)


def _said(peers: int, *arguments: str) -> dict[str, list[float]]:
    """The times that peers print, by word."""
    script = str(MEMBERS / "mesh_loss.py")
    command = [sys.executable, "-m", "manta", "mesh", "run", script, "--peers", str(peers)]
    try:
        done = subprocess.run(
            [*command, "--", *arguments], capture_output=True, text=True, timeout=_LONGEST
        )
    except subprocess.TimeoutExpired as error:
        raise NotMeasured(f"the peers did not end within {_LONGEST:g} s") from error
    said = defaultdict(list)
    for line in done.stdout.splitlines():
        match line.partition("| ")[2].split():
            case [word, at]:
                said[word].append(float(at))
    if len(said["there"]) < peers:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["nothing was printed"]
        raise NotMeasured(lines[-1])
    return said
