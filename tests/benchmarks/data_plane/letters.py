"""Letters between two instances, and what others notice of large ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil

from manta import UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from tests.benchmarks.data_plane.bench import Bench
from tests.benchmarks.data_plane.crew import SwarmCrew
from tests.benchmarks.data_plane.figures import (
    CURVE,
    IDLE,
    MANTA,
    OF_NODE,
    TCP,
    Figure,
)
from tests.benchmarks.data_plane.members.control import Job
from tests.benchmarks.data_plane.samples import percentile
from tests.benchmarks.data_plane.turns import Measure, Measured, Side

_TRIPS = 50
_ASKS = 20
"""Asks that are made before it is seen whether the bytes have moved."""
_PAUSE = 0.005
"""Seconds between two asks."""
_IDLE = 200
"""Asks while nothing moves."""
_SHARE = 5
"""Of the memory that is free, a value that moves takes this part: it is held by the task that makes
it, in the memory that this one hands over, and in the memory that the other one is given."""


def trips(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    job = Job("trip", figure.size, _TRIPS)
    with bench.instances(figure, 2) as instances:
        return measure(
            {
                MANTA: lambda: instances.measure(job),
                CURVE: bench.side(CURVE, 2, job),
                TCP: bench.side(TCP, 2, job),
            }
        )


def streams(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    job = Job("stream", figure.size)

    def rate(side: Side) -> Side:
        return lambda: [figure.size / seconds for seconds in side()]

    with bench.instances(figure, 2) as instances:
        return measure(
            {
                MANTA: rate(lambda: instances.measure(job)),
                CURVE: rate(bench.side(CURVE, 2, job)),
                TCP: rate(bench.side(TCP, 2, job)),
            }
        )


def asks(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    """p95 of asks while nothing moves, and while bytes move from the first node to the second."""
    api = bench.api(figure.form)
    job = Job("stream", _affordable(figure.size))
    with (
        bench.instances(figure, 2) as movers,
        SwarmCrew(api, ["node-1"], 1) as asker,
        ThreadPoolExecutor(1) as pool,
    ):
        ask = _asks_of_node(asker) if figure.variant == OF_NODE else _asks_of_user(api)

        def idle() -> list[float]:
            taken = [seconds for _ in range(_IDLE // _ASKS) for seconds in ask()]
            return [percentile(taken, 0.95)]

        def moving() -> list[float]:
            movers.prepare(job)
            move = pool.submit(movers.go)
            taken = ask()
            while not move.done():
                taken += ask()
            move.result()
            movers.renew()
            return [percentile(taken, 0.95)]

        measured = measure({MANTA: moving, IDLE: idle}, turns=5, least=2)
    measured.notes += _smaller(job, figure)
    return measured


def _asks_of_node(asker: SwarmCrew) -> Callable[[], list[float]]:
    return lambda: asker.measure(Job("ask", 0, _ASKS))


def _asks_of_user(api: UserAPI) -> Callable[[], list[float]]:
    def ask() -> list[float]:
        taken = []
        for _ in range(_ASKS):
            begin = time.perf_counter()
            api.list_nodes(CLUSTER)
            taken.append(time.perf_counter() - begin)
            time.sleep(_PAUSE)
        return taken

    return ask


def growth(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    """The most that a process of Manta's grows by, in its resident memory, while a value moves."""
    bench.api(figure.form)
    job = Job("stream", _affordable(figure.size))
    found: dict[str, int] = {}
    with bench.instances(figure, 2) as movers:

        def largest() -> list[float]:
            movers.prepare(job)
            names = {
                process.pid: _name(process)
                for process in _processes(bench.local)
                if process.pid not in movers.pids
            }
            before = _sizes(names, "VmRSS")
            for pid in before:
                with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                    Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM counts from here
            movers.go()
            for pid, size in _sizes(before, "VmHWM").items():
                found[names[pid]] = size - before[pid]
            return [float(max(found.values()))]

        measured = measure({MANTA: largest}, turns=1, least=1, warm_up=False)
    measured.notes += _smaller(job, figure)
    most = sorted(found.items(), key=lambda item: -item[1])[:6]
    measured.notes += [f"{name} grew by {size / 1e6:,.0f} MB" for name, size in most]
    return measured


def _affordable(size: int) -> int:
    """Bytes that fit into what memory is free, a multiple of four."""
    return min(size, psutil.virtual_memory().available // _SHARE // 4 * 4)


def _smaller(job: Job, figure: Figure) -> list[str]:
    if job.size == figure.size:
        return []
    return [f"only {job.size / 1e9:.2f} GB moved: there is no memory for more"]


def _processes(local: LocalCluster) -> list[psutil.Process]:
    roots = [psutil.Process(child.process.pid) for child in local.children]
    return [process for root in roots for process in (root, *root.children(recursive=True))]


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    module = next((word for word in words if word.startswith("manta.")), "a process")
    node = next((Path(word).stem for word in words if word.endswith(".toml")), "")
    return f"{module} {node or process.pid}"


def _sizes(pids: Iterable[int], name: str) -> dict[int, int]:
    """By pid: bytes of a line of /proc/PID/status (proc(5)), of those that have not ended."""
    sizes = {}
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(f"{name}:"):
                sizes[pid] = int(line.split()[1]) * 1024
    return sizes
