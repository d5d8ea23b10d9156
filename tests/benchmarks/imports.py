"""Start-up budgets: what importing each process's code adds to a bare interpreter.

Wall time of whole processes, each against a bare interpreter in turn, and what
`-X importtime` says of the same import. Measured where this runs: an editable installation
looks every module up in its finder, which costs a daemon some 60 ms that a wheel does not.
"""

from __future__ import annotations

import statistics
import subprocess
import time

from tests.benchmarks._measure import python

BUDGETS = {
    "import manta": 100,
    "import manta.light": 60,
    "import manta.light.federated": 60,
    "import manta.cli.main, manta.cli.commands.run": 120,
    "import manta.node.daemon.process": 160,
    "import manta.manager.daemon": 350,
}
RUNS = 11


def once(code: str) -> float:
    start = time.perf_counter()
    subprocess.run(python(code), check=True)
    return time.perf_counter() - start


def import_time(code: str) -> float:
    """Milliseconds: the sum of what every module costs by itself."""
    report = subprocess.run(
        python(code, "-X", "importtime"), check=True, capture_output=True, text=True
    ).stderr
    bare = subprocess.run(
        python("pass", "-X", "importtime"), check=True, capture_output=True, text=True
    ).stderr
    return (total(report) - total(bare)) / 1000


def total(report: str) -> int:
    lines = (line.removeprefix("import time:") for line in report.splitlines())
    return sum(int(line.split("|")[0]) for line in lines if line.split("|")[0].strip().isdigit())


def main() -> None:
    print(f"{'':40}{'budget':>8}{'wall':>8}{'importtime':>12}   (ms)")
    for code, budget in BUDGETS.items():
        once(code)
        added = statistics.median(once(code) - once("pass") for _ in range(RUNS)) * 1000
        print(f"{code:40}{budget:>8}{added:>8.0f}{import_time(code):>12.0f}")
