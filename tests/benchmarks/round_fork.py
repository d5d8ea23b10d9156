"""A round without work, from order to end as the node sees it; a start; a large value.

Through the real service and runtime, without supervisor, journal or manager. Beside it, in
the same run: a bare fork and wait, in a process that has imported the same.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from manta.actors.process import prepare_process
from tests.benchmarks._measure import python, wall
from tests.support.harness import Node

ROUNDS = 60
STARTS = 15
LARGE = 100 * 1024 * 1024

FORK = "def main():\n    pass\n"
FORMS = {
    "fork": FORK,
    "fork, numpy imported": "import numpy\n" + FORK,
    "fork, logs and sets a global": (
        "from manta.light import Task\nclass Worker(Task):\n    def run(self):\n"
        "        self.logger.info('x')\n        self.world.globals['x'] = 1\n"
    ),
    "resident": "class Worker:\n    def execute(self):\n        pass\n",
    "reads World while it is imported": "from manta.light import World\nWorld().iteration\n" + FORK,
    "200 classes of its own": "".join(
        f"class C{n}:\n    def f(self, x):\n        return x + {n}\n" for n in range(200)
    )
    + FORK,
}
BARE = """
import os, time, statistics
{imports}
times = []
for _ in range(100):
    start = time.perf_counter()
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    times.append(time.perf_counter() - start)
print(statistics.median(times))
"""


def main() -> None:
    prepare_process()  # as the daemons do
    for imports in ("", "import numpy"):
        code = BARE.format(imports=imports)
        done = subprocess.run(python(code), capture_output=True, text=True, check=True)
        median = float(done.stdout) * 1000
        print(f"bare fork and wait, {imports or 'nothing imported'}: {median:.1f} ms")
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder))
        try:
            for name, source in FORMS.items():
                print(f"round, {name}: {spread(rounds(node, source))}")
            print(f"bare interpreter: {spread(wall(python('pass'), STARTS))}")
            for name in ("fork", "fork, numpy imported"):
                print(f"start to ready, {name}: {spread(starts(node, FORMS[name]))}")
            large(node)
        finally:
            node.close()


def spread(seconds: list[float]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"{middle * 1000:.1f} ms ({low * 1000:.1f} to {high * 1000:.1f})"


def rounds(node: Node, source: str) -> list[float]:
    runtime = node.start(source)
    times = []
    for iteration in range(ROUNDS):
        start = time.perf_counter()
        ended = runtime.run(iteration)
        times.append(time.perf_counter() - start)
        assert ended.error is None, ended.error
    runtime.close()
    return times[5:]


def starts(node: Node, source: str) -> list[float]:
    times = []
    for _ in range(STARTS):
        start = time.perf_counter()
        runtime = node.start(source)
        runtime.ready()
        times.append(time.perf_counter() - start)
        runtime.close()
        runtime.exits.get(timeout=10)
        while not node.events.empty():
            node.events.get()
    return times


def large(node: Node) -> None:
    node.globals["x"] = node.payload(np.ones(LARGE // 8))
    runtime = node.start(
        "import time\nimport numpy\nfrom manta.light import World\n"
        "def main():\n    start = time.perf_counter()\n    x = World().globals['x']\n"
        "    read = time.perf_counter() - start\n    start = time.perf_counter()\n"
        "    World().globals['y'] = x\n    return read, time.perf_counter() - start\n"
    )
    both = [runtime.run(iteration).output for iteration in range(10)]
    size = f"{LARGE >> 20} MiB"
    print(f"{size} global read: {spread([read for read, _ in both])}")
    print(f"{size} global written: {spread([write for _, write in both])}")
    runtime.close()


if __name__ == "__main__":
    main()
