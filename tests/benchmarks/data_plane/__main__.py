"""`make bench-data`: what tasks say to each other, beside other programs in the same run.

Manta is measured as a user has it, through its public API, on a cluster of this machine; each other
program in turns with it, with data of its own that is new each time and does not compress, made
before the clock starts. Shown are medians, with the least and the greatest sample and their number;
how many times the other's outcome Manta's is; and each goal, with whether it holds. What can't be
measured here is named with the reason. See also tests/benchmarks/data_plane/figures.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib import metadata

import psutil

from tests.benchmarks.data_plane import collectives, letters, meshes, rounds
from tests.benchmarks.data_plane.bench import Bench
from tests.benchmarks.data_plane.figures import FIGURES, MANTA, Figure, Outcome, chosen
from tests.benchmarks.data_plane.report import record, summary, text
from tests.benchmarks.data_plane.turns import (
    Measure,
    Measured,
    NotMeasured,
    allotted,
    alternate,
)

KINDS: dict[str, Callable[[Figure, Bench, Measure], Measured]] = {
    "all_reduce": collectives.collective,
    "broadcast": collectives.collective,
    "trip": letters.trips,
    "stream": letters.streams,
    "asks": letters.asks,
    "growth": letters.growth,
    "fedavg": rounds.fedavg,
    "stage": rounds.stage,
    "no_ops": rounds.no_ops,
    "mesh": meshes.exchange,
    "mesh_start": meshes.start,
    "mesh_loss": meshes.loss,
}
MINUTES = 10.0
_SET_UP = 6.0
"""Seconds of a figure beside its turns: a swarm's start, other programs' start, the first turn."""
_PACKAGES = ("torch", "pyzmq", "numpy", "ray", "distributed", "flwr")


def measured(figure: Figure, bench: Bench, seconds: float) -> Outcome:
    """Nothing that goes wrong with one figure ends the report."""
    load = os.getloadavg()[0]
    try:
        bench.begin(figure)
        measure = partial(alternate, seconds=seconds, clock=time.monotonic)
        found = KINDS[figure.kind](figure, bench, measure)
    except NotMeasured as reason:
        found = Measured(missing={MANTA: str(reason)})
    except Exception as error:
        traceback.print_exc()
        found = Measured(missing={MANTA: f"{type(error).__name__}: {error}"})
    notes = [*found.notes, f"load {load:.1f} before it"]
    return Outcome(figure, found.samples, found.missing, notes)


def run(figures: list[Figure], minutes: float, show: Callable[[Outcome], None]) -> list[Outcome]:
    outcomes = []
    until = time.monotonic() + minutes * 60
    with Bench() as bench:
        for at, figure in enumerate(figures):
            left = until - time.monotonic()
            later = sum(other.seconds + _SET_UP for other in figures[at + 1 :])
            seconds = allotted(left - _SET_UP, figure.seconds, later)
            if left > 0:
                outcome = measured(figure, bench, seconds)
            else:
                why = f"the {minutes:g} minutes were over: give more, or name it alone"
                outcome = Outcome(figure, missing={MANTA: why})
            show(outcome)
            outcomes.append(outcome)
    return outcomes


def machine() -> dict[str, object]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": versions,
    }


def main() -> int:
    parser = argparse.ArgumentParser("make bench-data", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="figures whose names begin so; without, all")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--list", action="store_true", help="print the figures' names")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="what it may take")
    options = parser.parse_args()
    if options.list:
        for figure in FIGURES:
            print(f"{figure.name:34} {figure.title}{' (only by name)' if figure.optional else ''}")
        return 0
    try:
        figures = chosen(options.names)
    except LookupError as error:
        parser.error(str(error.args[0]))
    here = machine()
    # JSON alone goes to standard output; who waits for it still sees how far it is.
    out = sys.stderr if options.json else sys.stdout
    print(f"{here['cores']} cores, load {here['load']:.1f}; {here['packages']}\n", file=out)

    def show(outcome: Outcome) -> None:
        print("\n".join(text(outcome)) + "\n", file=out, flush=True)

    outcomes = run(figures, options.minutes, show)
    print(summary(outcomes), file=out)
    if options.json:
        print(json.dumps(record(outcomes, here), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
