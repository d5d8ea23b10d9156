"""How tasks end when a user stops their swarm: asked first, or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.overviews import SwarmOverview
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing import wait_until
from manta.testing.clusters import client, running

WORDS = """
import os, pathlib, time
from manta.light import World
from manta.light.errors import LightError

def note(word):
    with open("{notes}", "a") as file:
        file.write(word + "\\n")
"""
MANNERLY = """
def main():
    note(str(os.getpid()))
    try:
        if {waits}:
            try:
                World().get_broadcast("never", timeout=100)
            except LightError:  # the wait may hear of the end before this process does
                pass
        time.sleep(100)
    finally:
        World().results.add("last", "words")
        note("tidied up")
"""
TOO_EARLY = """
import signal, threading

def main():
    # As when the signal comes just before the main thread begins to wait: another one takes it.
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    note(str(os.getpid()))
    try:
        time.sleep(100)
    finally:
        note("tidied up")
"""
RESIDENT = """
class Worker:
    def setup(self):
        self.rounds = 0
    def execute(self):
        note(str(os.getpid()))
        try:
            while True:
                pass
        finally:
            note("tidied up")
"""
STUBBORN = """
def main():
    note(str(os.getpid()))
    while True:
        try:
            time.sleep(100)
        except SystemExit:
            note("no")
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 1) as cluster:
        yield cluster


@pytest.fixture
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        yield api


class Noting:
    """A swarm with a task that runs and writes what it does into a file."""

    def __init__(self, api: UserAPI, folder: Path, code: str) -> None:
        self.api, self.file = api, folder / "notes"
        module = Module(WORDS.format(notes=self.file) + code, name="code")

        other = Module("import time\ndef main():\n    time.sleep(100)", name="other")

        class Both(Swarm):
            def execute(self) -> list[Task]:
                return [Task(module), Task(other)]  # who waits for a word needs one who could send

        self.swarm = api.deploy_swarm(CLUSTER, Both())
        self.wait(lambda: bool(self.words))
        self.pid = int(self.words[0])

    @property
    def words(self) -> list[str]:
        return self.file.read_text().split("\n")[:-1] if self.file.exists() else []

    def stop(self, *, force: bool = False) -> SwarmOverview:
        stopped = self.api.stop_swarm(self.swarm, force)
        assert stopped.status == "STOPPED"
        assert stopped.reason == "stopped by user@localhost"
        return stopped

    def wait(self, what: Callable[[], bool]) -> float:
        began = time.monotonic()
        wait_until(what, what=lambda: self.words)
        return time.monotonic() - began

    def gone(self) -> bool:
        return not os.path.exists(f"/proc/{self.pid}")


@pytest.mark.parametrize(
    "code",
    [MANNERLY.format(waits=False), MANNERLY.format(waits=True), TOO_EARLY, RESIDENT],
    ids=["sleeping", "waiting for the node", "about to sleep", "an object at work"],
)
def test_a_task_that_is_asked_to_end_ends_in_good_order(
    api: UserAPI, tmp_path: Path, code: str
) -> None:
    noting = Noting(api, tmp_path, code)
    noting.stop()
    assert noting.wait(noting.gone) < 4.0
    assert noting.words[1:] == ["tidied up"]
    if "last" in code:  # what it wrote then is kept, and marked as what does not count
        noting.wait(lambda: len(api.get_swarm_results(noting.swarm, attempts="all")) == 1)
        (result,) = api.get_swarm_results(noting.swarm, attempts="all")
        assert not result.counts
        assert not api.get_swarm_results(noting.swarm)
    assert {task.status for task in api.get_tasks(noting.swarm)} == {"CANCELLED"}


def test_a_task_that_will_not_end_is_killed(api: UserAPI, tmp_path: Path) -> None:
    noting = Noting(api, tmp_path, STUBBORN)
    noting.stop()
    assert 4.0 < noting.wait(noting.gone) < 9.0
    assert noting.words[1:] == ["no"]


def test_by_force_nobody_is_asked(api: UserAPI, tmp_path: Path) -> None:
    noting = Noting(api, tmp_path, STUBBORN)
    noting.stop(force=True)
    assert noting.wait(noting.gone) < 3.0


def test_a_task_out_of_time_ends_in_good_order_and_the_swarm_says_so(
    api: UserAPI, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    code = WORDS.format(notes=notes) + MANNERLY.format(waits=False)

    class Late(Swarm):
        def execute(self) -> Task:
            return Task(Module(code, name="code"), timeout=1.0)

    ended = api.wait_swarm(api.deploy_swarm(CLUSTER, Late()), timeout=60)
    assert ended.status == "FAILED"
    assert "timeout of 1 s" in ended.reason
    assert notes.read_text().split()[1:] == ["tidied", "up"]
