"""all_reduce over four members, and a broadcast from one to four others."""

from __future__ import annotations

from tests.benchmarks.data_plane.bench import Bench
from tests.benchmarks.data_plane.crew import LARGE
from tests.benchmarks.data_plane.figures import (
    DASK,
    GLOO,
    MANTA,
    MPI,
    MPI_TCP,
    RAY,
    TCP,
    Figure,
)
from tests.benchmarks.data_plane.members.control import Job
from tests.benchmarks.data_plane.turns import Measure, Measured, Side

_MEMBERS = {"all_reduce": 4, "broadcast": 5}


def collective(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    job = Job(figure.kind, figure.size)
    members = _MEMBERS[figure.kind]
    others = [GLOO, MPI, MPI_TCP]
    with bench.instances(figure, members) as instances:
        sides: dict[str, Side] = {MANTA: lambda: instances.measure(job)}
        sides |= {program: bench.side(program, members, job) for program in others}
        if figure.kind == "broadcast":
            sides |= {program: bench.side(program, 1, job) for program in (RAY, DASK)}
        sides[TCP] = bench.side(TCP, 2, Job("stream", figure.size))
        if figure.size >= LARGE:
            return measure(sides, turns=7, least=1)
        return measure(sides, turns=25, least=3)
