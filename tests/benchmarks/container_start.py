"""`manta run` of a hello on one node, cold: as a plain process, and in a container.

The engine is the tests' own (`tests/support/engine.py`), so this needs root and Debian's docker.io.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.benchmarks._measure import spread, wall
from tests.support.engine import running_engine

MANTA = Path(sys.executable).with_name("manta")
SWARM = """
from manta import Module, Swarm, Task
class Hello(Swarm):
    def execute(self):
        return Task(Module("def main():\\n    print('hello')\\n", {image!r}, name="hello"))
"""


def main() -> None:
    with running_engine() as engine, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "swarm.py"
        file.write_text(SWARM.format(image=engine.base()))
        environment = {**os.environ, "DOCKER_HOST": engine.address}
        engine.hang_up()
        for runner in ("limits", "landlock", "bwrap", "docker"):
            command = [str(MANTA), "run", str(file), "--nodes", "1", "--runner", runner]
            print(f"{runner:8} {spread(wall(command, runs=5, env=environment))}")
