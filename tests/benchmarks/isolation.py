"""What isolation costs, level by level: tasks of a real node, its engine the tests' own.

Budgets: from the start of a task until its `setup()` limits 0.25 s, bwrap 0.3 s, docker 1.0 s; a
later round of a warm task at bwrap within 20 % of limits; on a node with 2 slots and 50 tasks that
wait, no slot idle for more than 50 ms; a node with 500 cached modules and 20 GB of cache connected
within 2 s. Root and Debian's packages (bubblewrap, docker.io, runsc) for all levels; those that are
not to be had are named.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from manta.node.errors import LaunchError
from manta.node.isolation.holding import Holder
from manta.node.runners import bwrap, hardening, landlock
from manta.node.runners.docker import DockerRunner
from manta.node.runners.interface import Runner
from manta.node.runners.process import ProcessRunner
from manta.node.runners.pulled import Pulled
from manta.node.runners.runtime_copy import runtime_copy
from manta.protocol.isolation import BWRAP, DOCKER, GVISOR, LANDLOCK, LEVELS, LIMITS
from tests.benchmarks._measure import spread
from tests.integration.node.conftest import Lab
from tests.support.engine import gvisor_runtimes, running_engine
from tests.support.harness import Node

RUNS, ROUNDS, TASKS, SLOTS = 7, 60, 50, 2
MODULES, CACHE = 500, 20 << 30  # bytes, of files without contents

SETUP = """
import time
class Worker:
    def setup(self):
        self.at = time.time()
    def execute(self):
        return self.at
"""
COMPUTES = """
import time
try:
    import numpy
except ImportError:
    numpy = None
def main():
    if numpy is None:
        return None
    began = time.perf_counter()
    drawn = numpy.random.default_rng(7).random((600, 600))
    for _ in range(6):
        drawn = drawn @ drawn
        drawn /= drawn.max()
        numpy.sort(drawn.ravel())
    return time.perf_counter() - began
"""
WAITS = """
import time
from manta.light import World
def main():
    began = time.time()
    time.sleep(0.1)
    World().results.add("span", [began, time.time()])
"""


def main() -> None:
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="manta-isolation-")))
        later: dict[str, float] = {}
        for level in LEVELS:
            try:
                with runner_at(level, folder / level) as runner:
                    later[level] = of_level(level, folder / level, runner)
            except (LaunchError, pytest.skip.Exception) as error:
                print(f"{level:8} left out: {error}", flush=True)
        if {LIMITS, BWRAP} <= later.keys():
            more = later[BWRAP] / later[LIMITS] - 1
            print(f"later rounds: bwrap {more:+.0%} beside limits; budget +20 %", flush=True)
        of_slots(folder / "slots")
        of_cache(folder / "cache")


@contextmanager
def runner_at(level: str, folder: Path) -> Iterator[Runner]:
    """Raises LaunchError, or pytest's exception for what is not there."""
    folder.mkdir()
    with ExitStack() as undo:
        holder = Holder(f"bench-{os.getpid()}-{level}")
        if level in (DOCKER, GVISOR):
            runtimes = gvisor_runtimes() if level == GVISOR else None
            engine = undo.enter_context(running_engine(runtimes))
            base = engine.base()
            engine.hang_up()
            undo.enter_context(_environment("DOCKER_HOST", engine.address))
            pulled = Pulled(folder / "images.json", 1 << 40)
            copy = runtime_copy(folder / "runtime")
            found = hardening.find(level, folder)
            runner: Runner = DockerRunner(found, "bench", "bench", base, copy, pulled)
        else:
            made: dict[str, Callable[[], Runner]] = {
                LIMITS: lambda: ProcessRunner(holder),
                LANDLOCK: lambda: landlock.LandlockRunner(landlock.find([]), [folder], holder),
                BWRAP: lambda: bwrap.BwrapRunner(bwrap.find([Path.home()]), holder),
            }
            runner = made[level]()
        undo.callback(runner.close)
        yield runner


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def of_level(level: str, folder: Path, runner: Runner) -> float:
    """Prints its figures; returns the seconds of a later round."""
    node = Node(folder, runner)
    try:
        started, warm = [], list[float]()
        for run in range(1 + RUNS):
            began = time.time()
            runtime = node.start(SETUP)
            at = runtime.run().output
            if run:  # the first compiles
                started.append(at - began)
            if run == RUNS:
                for iteration in range(1, 1 + ROUNDS):
                    began = time.perf_counter()
                    assert runtime.run(iteration).output == at
                    warm.append(time.perf_counter() - began)
            runtime.close()
            runtime.exits.get(timeout=60)
            _forget(node)
        computing = node.start(COMPUTES)
        took = [computing.run(iteration).output for iteration in range(RUNS)]
    finally:
        node.close()
    numpy = "not in its image" if took[0] is None else spread(took)
    later = statistics.median(warm)
    print(
        f"{level:8} until setup() {spread(started)}; a later round {later * 1000:.1f} ms; "
        f"a job of numpy {numpy}",
        flush=True,
    )
    return later


def _forget(node: Node) -> None:
    while not node.events.empty():
        node.events.get()


def of_slots(folder: Path) -> None:
    """Prints how long slots were idle between tasks, by what tasks say of their times."""
    folder.mkdir()
    with ExitStack() as undo:
        lab = Lab(folder, undo, 1)
        undo.callback(lab.stop_manager)
        lab.node(1, resources={"max_concurrent_tasks": SLOTS})
        api = lab.api()
        swarm_id = lab.run(api, lab.swarm(WAITS, replicas=TASKS))
        spans = sorted(item.value for item in api.stream_results(swarm_id))
    ends = [spans[0][0]] * SLOTS
    idle = []
    for began, ended in spans:
        free = max((end for end in ends if end <= began), default=min(ends))
        idle.append(began - free)
        ends[ends.index(free)] = ended
    between = spread(idle[SLOTS:])
    print(f"{TASKS} tasks on {SLOTS} slots: idle between two {between}; budget 50 ms", flush=True)


def of_cache(folder: Path) -> None:
    """Prints how long a node takes to be connected that has much in its caches."""
    folder.mkdir()
    with ExitStack() as undo:
        lab = Lab(folder, undo, 1)
        undo.callback(lab.stop_manager)
        state = lab.known(1)
        for number in range(MODULES):
            module = state.modules / f"{number:064x}"
            module.mkdir(parents=True)
            (module / "worker.py").write_text("def main():\n    pass\n")
            with open(module / "data.bin", "wb") as file:
                file.truncate(CACHE // MODULES)
        began = time.perf_counter()
        lab.node(1)
        took = time.perf_counter() - began
        assert len([*state.modules.iterdir()]) == MODULES
    print(
        f"a node with {MODULES} modules and {CACHE >> 30} GB: connected in {took:.2f} s; budget 2 s"
    )
