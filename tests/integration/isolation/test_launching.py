"""What becomes of tasks when the thread fails that launched them, at each level without images."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manta.light.runtime.processes import descendants
from manta.node.isolation.holding import Holder
from manta.node.runners import bwrap, landlock
from manta.node.runners.process import ProcessRunner
from manta.node.task_server import messages as light
from manta.testing import wait_until
from tests.support.harness import Node
from tests.support.isolated import LEVELS
from tests.support.launching import break_thread

Local = ProcessRunner | bwrap.BwrapRunner


@pytest.fixture(params=LEVELS)
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Local:
    if request.param == "bwrap":
        request.getfixturevalue("bubblewrap")
    holder = Holder(f"test-{secrets.token_hex(4)}")
    kinds: dict[str, Callable[[], Local]] = {
        "limits": lambda: ProcessRunner(holder),
        "landlock": lambda: landlock.LandlockRunner(landlock.find([tmp_path]), [tmp_path], holder),
        "bwrap": lambda: bwrap.BwrapRunner(bwrap.find([tmp_path, Path.home()]), holder),
    }
    return kinds[request.param]()


@pytest.fixture
def node(runner: Local, tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, runner)
    yield node
    node.close()


LEAVES = """
import subprocess, sys, time
def main():
    subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], env={},
                     start_new_session=True)
    print("begun")
    time.sleep(600)
"""


def test_they_end_with_all_that_they_started_as_interrupted_and_others_begin(
    node: Node, runner: Local
) -> None:
    before = descendants(os.getpid())
    runtimes = [node.start(LEAVES) for _ in range(2)]
    for runtime in runtimes:
        runtime.begin()
    begun = 0
    while begun < 2:
        begun += "begun" in str(node.events.get(timeout=60))
    theirs = descendants(os.getpid()) - before
    assert len(theirs) >= 8
    break_thread(runner.launcher)
    for runtime in runtimes:
        exit_ = runtime.exits.get(timeout=60)
        assert exit_.platform
        assert "The node's thread that starts tasks has failed (none is left)" in exit_.sentence
        assert runtime.exits.empty()
    wait_until(lambda: not any(os.path.exists(f"/proc/{pid}/exe") for pid in theirs))
    lost = 0
    while lost < 2:
        lost += isinstance(node.events.get(timeout=60), light.SessionLost)
    assert node.start("def main():\n    return 7\n").run().output == 7
