"""Whole iterations: rounds of FedAvg, what a stage takes, and instances that do nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from manta.apis.errors import MantaError
from tests.benchmarks import no_ops as reported
from tests.benchmarks.data_plane.bench import PROGRAMS, Bench, printed, script
from tests.benchmarks.data_plane.figures import (
    CURVE,
    FLOOR,
    FLOWER,
    FORKS,
    MANTA,
    POOL,
    RAY,
    RESIDENT,
    TCP,
    Figure,
)
from tests.benchmarks.data_plane.members.control import Job
from tests.benchmarks.data_plane.turns import Measure, Measured, NotMeasured, Side
from tests.benchmarks.round import BARE, seconds_of_rounds
from tests.benchmarks.swarms.round import Round
from tests.benchmarks.swarms.stages import Stages

_T = TypeVar("_T")
_ROUNDS = {400_000: 11, 10_000_000: 6, 100_000_000: 3}
"""By size: how many a swarm runs, of which the first does not count."""
_BARE_STAGE = Path(__file__).parent.parent / "swarms" / "bare_stage.py"
_FEW, _MANY = 2, 6
"""Stages whose difference tells what one more takes."""
_STAGE_ROUNDS = 11
_INSTANCES = {False: 21, True: 41}
"""Iterations of 100 instances: forked, and resident."""


def _counted(run: Callable[[], _T]) -> _T:
    """Raises NotMeasured where a swarm does not come to a good end."""
    try:
        return run()
    except (MantaError, SystemExit) as error:
        raise NotMeasured(str(error).rstrip(".")) from error


def fedavg(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    api = bench.api(figure.form)
    megabytes, rounds = figure.size / 1e6, _ROUNDS[figure.size]

    def manta() -> list[float]:
        swarm = Round(megabytes, rounds, figure.stages)
        return _counted(lambda: seconds_of_rounds(api, swarm)[0])[1:]

    def flower() -> list[float]:
        PROGRAMS[FLOWER].check()
        size = str(megabytes), str(figure.nodes), str(rounds)
        seconds: list[float] = printed([*PROGRAMS[FLOWER].command, *size])
        return seconds

    def bare() -> list[float]:
        seconds: list[float] = printed(script(BARE, megabytes, figure.nodes, rounds))
        return seconds

    stream = bench.side(TCP, 2, Job("stream", figure.size, 2 * figure.nodes))

    def bytes_alone() -> list[float]:
        return [seconds for _ in range(rounds - 1) for seconds in stream()]

    sides: dict[str, Side] = {MANTA: manta, CURVE: bare, TCP: bytes_alone}
    if figure.stages == 2:
        sides[FLOWER] = flower
    return measure(sides, turns=3, least=1, warm_up=False)


def stage(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    api = bench.api(figure.form)

    def iteration(stages: int) -> float:
        swarm = Stages(stages, _STAGE_ROUNDS)
        return statistics.median(_counted(lambda: seconds_of_rounds(api, swarm)[0])[1:])

    def manta() -> list[float]:
        return [(iteration(_MANY) - iteration(_FEW)) / (_MANY - _FEW)]

    def floor() -> list[float]:
        return [statistics.median(printed(script(_BARE_STAGE, figure.nodes, _STAGE_ROUNDS)))]

    return measure({MANTA: manta, FLOOR: floor}, turns=5, least=2, warm_up=False)


def no_ops(figure: Figure, bench: Bench, measure: Measure) -> Measured:
    api = bench.api(figure.form, figure.nodes)
    resident = figure.variant == RESIDENT
    rounds = _INSTANCES[resident]
    count = reported.INSTANCES * (rounds - 1)
    sides: dict[str, Side] = {
        MANTA: lambda: [_counted(lambda: reported.rate(api, rounds, resident=resident)[0])]
    }
    if not resident:
        sides[FORKS] = lambda: [reported.forks(count)]
    sides[POOL] = lambda: [reported.pool(count)]
    ray = bench.side(RAY, 1, Job("resident" if resident else "forked", 0, count))
    sides[RAY] = lambda: [count / seconds for seconds in ray()]
    return measure(sides, turns=3, least=2, warm_up=False)
