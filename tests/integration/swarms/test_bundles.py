"""What reaches a user of an attempt that failed, at the levels that need no container engine, and
where the threads of one that runs stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.errors import Forbidden, WrongState
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.protocol.isolation import BWRAP, LANDLOCK, LIMITS
from manta.testing.clusters import client, running
from tests.integration.node.conftest import CLUSTER as LAB
from tests.integration.node.conftest import Lab, lab

__all__ = ["lab"]

pytestmark = pytest.mark.timeout(180)

FAILS = """
import time
class Worker:
    def setup(self):
        self.left = [1, 2, 3]
        time.sleep(0.05)
    def execute(self):
        print("a line before the end")
        total = sum(self.left)
        raise ValueError(f"{total} is too much")
"""
DIES = """
import os
def main():
    print("about to die", flush=True)
    os.kill(os.getpid(), 9)
"""
HANGS = """
import subprocess, sys, threading, time, os
def in_a_thread():
    time.sleep(100)
def a_forked_child():
    time.sleep(100)
def computes():
    while True:
        pass
def main():
    threading.Thread(target=in_a_thread, daemon=True).start()
    if not os.fork():
        a_forked_child()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    print("hangs", flush=True)
    computes()
"""
HOGS = """
import time
def main():
    kept = []
    while True:
        kept.append(b"x" * (8 << 20))
        time.sleep(0.02)
"""
HOLDS_THE_GIL = """
import re
def main():
    print("hangs", flush=True)
    re.match("(a+)+$", 60 * "a" + "b")
"""


@pytest.fixture(scope="module", params=[LIMITS, LANDLOCK, BWRAP])
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    if request.param == BWRAP:
        request.getfixturevalue("bubblewrap")
    level = request.param

    def of_level(nodes: int, datasets: dict[str, str], **_: str) -> LocalCluster:
        return LocalCluster(nodes, datasets, runner=level)

    with running(of_level, 1) as cluster:
        yield cluster


def task(code: str, memory: int | None = None, **more: Any) -> Swarm:
    resources = None if memory is None else {"memory": memory}

    class One(Swarm):
        def execute(self) -> Task:
            return Task(Module(code, name="code", resources=resources), alias="worker", **more)

    return One()


def when_it_says(api: UserAPI, swarm: object, word: str) -> None:
    for line in api.stream_logs(swarm):  # type: ignore[arg-type]
        if line.text == word:
            return
    pytest.fail(f"it ended without {word!r}")


def test_a_failure_comes_with_its_bundle(
    cluster: LocalCluster, request: pytest.FixtureRequest
) -> None:
    with client(cluster) as api:
        swarm = api.wait_swarm(api.deploy_swarm(CLUSTER, task(FAILS)))
        found = api.explain_task(f"{swarm.swarm_id[:8]}.worker")
    assert (found.alias, found.status, found.kind) == ("worker", "FAILED", "ValueError")
    assert found.sentence.startswith("worker.0 raised ValueError: 6 is too much")
    assert "total = sum(self.left)" not in found.traceback
    assert "raise ValueError" in found.traceback
    assert found.last_lines == ("a line before the end",)
    assert found.has_bundle
    assert found.isolation in request.node.name
    assert found.packages["msgpack"]
    assert [one.what for one in found.timeline] == [
        *("queued", "begun", "imported", "set up", "called", "ended")
    ]
    times = [one.at for one in found.timeline]
    assert times == sorted(times)
    assert found.usage.processes_limit
    assert found.redacted == ()


def test_a_process_that_dies_tells_how(cluster: LocalCluster) -> None:
    with client(cluster) as api:
        swarm = api.wait_swarm(api.deploy_swarm(CLUSTER, task(DIES)))
        found = api.explain_task(api.get_tasks(swarm)[0])
    assert found.exit_code == -9
    assert not found.out_of_memory
    assert found.usage.cpu is not None
    assert found.usage.memory is not None
    assert found.usage.memory > 2**20
    assert found.last_lines == ("about to die",)
    assert found.timeline[-2].what == "called"


def test_one_that_takes_too_much_memory_tells_its_peak_and_its_limit(
    cluster: LocalCluster,
) -> None:
    limit = 192 << 20
    with client(cluster) as api:
        swarm = api.wait_swarm(api.deploy_swarm(CLUSTER, task(HOGS, memory=limit)))
        found = api.explain_task(f"{swarm}.worker")
    assert found.status == "FAILED"
    assert "more memory than it may" in found.sentence
    assert found.usage.memory_limit == limit
    assert found.usage.memory is not None
    assert found.usage.memory > limit // 2


def test_what_runs_shows_the_stacks_of_all_that_it_has_forked(cluster: LocalCluster) -> None:
    with client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, task(HANGS))
        when_it_says(api, swarm, "hangs")
        for _ in range(2):
            found = api.get_stacks(f"{swarm}.worker.0")
            own, forked, other = found.text.split("Process ")[1:]
            assert "the attempt's own" in own
            assert "in computes" in own
            assert "in in_a_thread" in own
            assert "in a_forked_child" in forked
            assert 'File "code.py", line ' in forked
            assert "no stacks to show" in other
        with pytest.raises(WrongState, match=r"what runs is worker\.0"):
            api.get_stacks(f"{swarm}.other")
        api.stop_swarm(swarm, force=True)
        with pytest.raises(WrongState):
            api.get_stacks(f"{swarm}.worker")


def test_stacks_are_shown_while_native_code_holds_the_interpreter(cluster: LocalCluster) -> None:
    with client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, task(HOLDS_THE_GIL))
        when_it_says(api, swarm, "hangs")
        assert "in main" in api.get_stacks(f"{swarm}.worker").text
        api.stop_swarm(swarm, force=True)


def test_what_runs_out_of_time_says_where_it_stood(cluster: LocalCluster) -> None:
    with client(cluster) as api:
        swarm = api.wait_swarm(api.deploy_swarm(CLUSTER, task(HANGS, timeout=3)))
        found = api.explain_task(f"{swarm}.worker")
    assert found.status == "TIMEOUT"
    assert "in computes" in found.stacks
    assert "in a_forked_child" in found.stacks


def test_an_owner_holds_parts_back(lab: Lab) -> None:
    redact = ["lines", "packages", "stacks"]
    lab.node(bundle={"redact": redact})
    api = lab.api()
    failed = api.wait_swarm(api.deploy_swarm(LAB, task(FAILS)))
    found = api.explain_task(f"{failed}.worker")
    assert found.redacted == ("lines", "packages", "stacks")
    assert found.packages == {}
    assert found.last_lines == ()
    assert "raise ValueError" in found.traceback
    assert found.timeline
    swarm = api.deploy_swarm(LAB, task(HANGS))
    when_it_says(api, swarm, "hangs")
    with pytest.raises(Forbidden, match="holds the stacks of tasks back"):
        api.get_stacks(f"{swarm}.worker")
    api.stop_swarm(swarm, force=True)
