"""Images with the oldest and the newest Python that Manta supports, and nothing else in them."""

from __future__ import annotations

import pytest

from manta import Module
from tests.integration.docker.conftest import DockerLab
from tests.support.pythons import PYTHONS

TASK = """
import sys
import msgpack
from manta.light import Local, Task

class Worker(Task):
    def run(self):
        print("out")
        self.logger.info("logged")
        self.world.globals["x"] = {"a": (1, b"x" * 200_000, None)}
        assert self.world.globals["x"] == {"a": (1, b"x" * 200_000, None)}
        self.world.results.add("r", 2**70)
        assert self.world.all_reduce(2.0) == 2.0
        return [sys.version_info[1], msgpack.__file__, Local().read_file_lines("text")]
"""

RESIDENT = """
class Worker:
    def setup(self):
        self.rounds = 0
    def execute(self):
        self.rounds += 1
        return self.rounds
"""


@pytest.mark.parametrize("version", PYTHONS)
def test_an_image_with_another_python(lab: DockerLab, version: str) -> None:
    image = lab.engine.python(PYTHONS[version])
    (lab.folder / "text.txt").write_text("a line\n")
    lab.node(1, datasets={"text": str(lab.folder / "text.txt")})
    api = lab.api()
    module = Module(TASK, image, name="task", datasets=["text"])
    swarm_id = lab.run(api, lab.of(module, iterations=2))
    expected = [int(version[2:]), "/manta/runtime/msgpack/__init__.py", ["a line"]]
    assert [task.output for task in api.get_tasks(swarm_id)] == [expected, expected]
    lines = [(line.stream, line.text) for line in api.collect_logs(swarm_id)]
    assert sorted(lines) == 2 * [("info", "logged")] + 2 * [("stdout", "out")]

    swarm_id = lab.run(api, lab.of(Module(RESIDENT, image, name="task"), iterations=2))
    assert [task.output for task in api.get_tasks(swarm_id)] == [1, 2]

    broken = Module("def main():\n    raise ValueError('no')\n", image, name="task")
    [failed] = api.get_tasks(lab.run(api, lab.of(broken), "FAILED"))
    assert failed.error is not None
    assert "raised ValueError: no" in failed.error.sentence
    lab.gone()
