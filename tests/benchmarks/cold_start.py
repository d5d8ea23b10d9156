"""`manta run` of a one-task hello on two nodes, cold: the whole process, in seconds.

Budget 2.0 s. Beside it, four bare interpreters started at once (the CLI, the manager
and two nodes are as many processes): what this machine takes for that alone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks._measure import spread, wall

HELLO = Path(__file__).parents[2] / "examples" / "hello" / "swarm.py"
MANTA = Path(sys.executable).with_name("manta")


def four_interpreters() -> float:
    start = time.perf_counter()
    for process in [subprocess.Popen([sys.executable, "-c", "pass"]) for _ in range(4)]:
        process.wait()
    return time.perf_counter() - start


def main() -> None:
    runs = wall([str(MANTA), "run", str(HELLO), "--nodes", "2"], runs=7)
    print(f"manta run hello, 2 nodes: {spread(runs)}; budget 2000 ms")
    print(f"four bare interpreters:   {spread([four_interpreters() for _ in range(7)])}")
