"""The runtime under the oldest and the newest Python, with msgpack's pure form alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgpack
import pytest

from manta.node.runners.local import SOURCES
from manta.node.task_server import messages as light
from tests.support.harness import Node
from tests.support.pythons import PYTHONS

ROOT = Path(__file__).parents[3]

FORK = """
    import sys
    from manta.light import Local, Task
    class Worker(Task):
        def run(self):
            print("out")
            self.logger.info("logged")
            self.world.globals["x"] = {"a": (1, b"x" * 200_000, None)}
            self.world.results.add("r", 2**70)
            self.world.log_metrics({"m": 1})
            value = self.world.globals["x"]
            lines = Local().read_file_lines("text")
            return [sys.version_info[1], value, self.world.get_results("r"), lines]
"""
RESIDENT = """
    class Worker:
        def setup(self):
            self.rounds = 0
        def execute(self):
            self.rounds += 1
            return self.rounds
"""
SPAWN = """
    from manta.light import World
    iteration = World().iteration
    def main():
        return iteration
"""


@pytest.fixture(scope="module")
def lean_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of Manta that a task's image has, and msgpack without its C extension."""
    site = tmp_path_factory.mktemp("site")
    for room in ("light", "transports"):
        shutil.copytree(ROOT / room, site / "manta" / room)
    shutil.copy(ROOT / "manta" / "__init__.py", site / "manta")
    (site / "msgpack").mkdir()
    for file in Path(msgpack.__file__).parent.glob("*.py"):
        shutil.copy(file, site / "msgpack")
    return site


@pytest.fixture(params=list(PYTHONS.values()), ids=list(PYTHONS))
def foreign(
    request: pytest.FixtureRequest, node: Node, lean_site: Path, monkeypatch: pytest.MonkeyPatch
) -> Node:
    """A node whose runtimes are that Python's."""
    launch = node.launcher.launch

    def launch_foreign(command: list[str], *, env: dict[str, str], **options: Any) -> Any:
        env = {**env, "PYTHONPATH": str(lean_site), "MSGPACK_PUREPYTHON": "1"}
        for name in ("random", "signal", "types"):  # as a task may have left in its folder
            (Path(env["MANTA_SCRATCH"]) / f"{name}.py").write_text("raise SystemExit('mine')")
        options["cwd"] = lean_site if options["cwd"] == SOURCES else options["cwd"]
        return launch([request.param, "-S", *command[1:]], env=env, **options)

    monkeypatch.setattr(node.launcher, "launch", launch_foreign)
    return node


def test_fork(foreign: Node, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "text").write_text("a line\n")
    runtime = foreign.start(FORK, datasets={"text": tmp_path / "text"})
    for iteration in range(2):
        ended = runtime.run(iteration)
        minor, value, results, lines = ended.output
        assert f"3.{minor}" in request.node.name
        assert value == {"a": (1, b"x" * 200_000, None)}
        assert results == [2**70]
        assert lines == ["a line"]
        assert (ended.lines("stdout"), ended.lines("info")) == (["out"], ["logged"])


def test_resident_and_spawn(foreign: Node) -> None:
    resident = foreign.start(RESIDENT)
    assert [resident.run(i).output for i in range(2)] == [1, 2]
    spawn = foreign.start(SPAWN)
    assert [spawn.run(i).output for i in range(2)] == [0, 1]


def test_failures(foreign: Node) -> None:
    runtime = foreign.start("def main():\n    raise ValueError('no')\n")
    error = runtime.run().error
    assert error is not None
    assert error.sentence == "worker.0 raised ValueError: no (worker.py, line 2)."
    instance = foreign.start("def main():\n    print('in')\n    while True:\n        pass\n")
    order = instance.begin(1)
    instance.output("stdout", "in")
    foreign.sessions.tell(light.CancelAttempt(instance.id, order, "enough"))
    cancelled = instance.end().error
    assert cancelled is not None
    assert cancelled.kind == "Cancelled"
