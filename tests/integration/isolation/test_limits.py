"""Limits against the real kernel: control groups where there are any, and without any."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.light.runtime.processes import kill_tree
from manta.node.isolation import landlock
from manta.node.isolation.cgroups import Groups
from manta.node.isolation.holding import Holder
from manta.node.isolation.limits import Limits, Means
from manta.node.isolation.watchdog import measure, threads_of_user
from manta.node.runners.landlock import LandlockRunner, find
from manta.node.runners.process import ProcessRunner
from manta.node.task_server.messages import SessionLost
from manta.testing import wait_until
from tests.support.escape.outside import alive
from tests.support.harness import Node

MIB = 1 << 20
LIMITS = Limits(processes=200)
GREEDY = """
def main():
    taken = []
    for _ in range(64):
        taken.append(b"x" * (8 << 20))
    return len(taken)
"""
FORKS = """
import os, time
def main():
    began = 0
    try:
        for _ in range(300):
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            began += 1
            time.sleep(0.001)
    except BlockingIOError:
        return began
    time.sleep(20)
    return began
"""


def name() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture(params=["groups", "measured"])
def means(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def holder(means: str) -> Iterator[Holder]:
    groups = None if means == "groups" else Groups("none", [])
    holder = Holder(name(), LIMITS, groups)
    if means == "groups" and Means.GROUP not in holder.plan:
        pytest.skip(holder.sentence)
    yield holder
    holder.close()


@pytest.fixture
def node(holder: Holder, tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, ProcessRunner(holder))
    yield node
    node.close()


def test_who_takes_more_memory_than_it_may_is_ended_alone_and_told_so(
    node: Node, means: str
) -> None:
    other = node.start("import time\ndef main():\n    time.sleep(3)\n    return 1\n")
    greedy = node.start(GREEDY, memory=200 * MIB)
    greedy.begin()
    if means == "groups":  # its attempt alone, and its runtime goes on
        ended = greedy.end()
        assert ended.error is not None
        assert ended.error.kind == "ResourceExhaustionError"
        assert "it took more memory than it may" in ended.error.sentence
        assert greedy.exits.empty()
    else:
        sentence = greedy.exits.get(timeout=60).sentence
        assert sentence.startswith("It took more memory than it may, ")
        peak = int(sentence.split()[7])
        assert 200 < peak < 512, sentence
        while not isinstance(node.events.get(timeout=20), SessionLost):
            pass
    assert other.run().output == 1


def test_a_confined_task_is_held_alike_and_told_its_peak(tmp_path: Path) -> None:
    holder = Holder(name(), LIMITS, Groups("none", []))
    node = Node(tmp_path / "node", LandlockRunner(find([]), [], holder))
    try:
        other = node.start("import time\ndef main():\n    time.sleep(3)\n    return 1\n")
        greedy = node.start(GREEDY, memory=200 * MIB)
        greedy.begin()
        sentence = greedy.exits.get(timeout=20).sentence
        assert sentence.startswith("It took more memory than it may, ")
        assert int(sentence.split()[7]) > 200
        while not isinstance(node.events.get(timeout=20), SessionLost):
            pass
        assert other.run().output == 1
    finally:
        node.close()
        holder.close()


def test_what_several_processes_share_counts_once(node: Node) -> None:
    sharing = node.start(
        """
        import os, time
        def main():
            shared = bytearray(60 << 20)
            for at in range(0, len(shared), 4096):
                shared[at] = 1
            pids = []
            for _ in range(6):
                pid = os.fork()
                if not pid:
                    sum(shared[::4096])
                    time.sleep(2)
                    os._exit(0)
                pids.append(pid)
            return [os.waitpid(pid, 0)[1] for pid in pids]
        """,
        memory=300 * MIB,
    )
    assert sharing.run().output == [0] * 6


def test_who_forks_more_than_it_may_is_refused_or_ended(node: Node, means: str) -> None:
    bomb = node.start(FORKS)
    bomb.begin()
    if means == "groups":
        ended = bomb.end()
        assert 150 < ended.output < 200
        return
    exit_ = bomb.exits.get(timeout=60)
    assert "processes and threads, and may have 200: start fewer" in exit_.sentence


ENDS_RUNTIME = """
        import os, signal, subprocess, sys, time
        def main():
            sleeping = [sys.executable, "-c", "import time; time.sleep(600)", {mark!r}]
            subprocess.Popen(sleeping, env={{}}, start_new_session=True)
            with open(f"/proc/{{os.getppid()}}/stat") as file:
                runtime = int(file.read().rpartition(")")[2].split()[1])
            for number in (signal.SIGSTOP, signal.SIGKILL):
                os.kill(runtime, number)
            time.sleep(600)
"""


def test_nothing_is_left_of_a_task_that_killed_its_runtime(node: Node, means: str) -> None:
    """Its grandchild has another session, other parents, and an environment of its own."""
    if means == "measured":
        pytest.skip("without a control group nothing holds together what its runtime did")
    mark = name()
    runtime = node.start(ENDS_RUNTIME.format(mark=mark))
    runtime.begin()
    assert runtime.exits.get(timeout=60).code == -9
    wait_until(lambda: not alive(mark))


def test_a_confined_task_reaches_not_even_its_runtime(tmp_path: Path) -> None:
    """So that nothing is left of it without a control group, either."""
    if landlock.available() < 6:
        pytest.skip("before Linux 6.12 no process can be kept from signalling others of its user")
    holder = Holder(name(), groups=Groups("none", []))
    node = Node(tmp_path, LandlockRunner(find([]), [], holder))
    try:
        mark = name()
        runtime = node.start(ENDS_RUNTIME.format(mark=mark))
        error = runtime.run().error
        assert error is not None
        assert "PermissionError" in error.kind + error.sentence
        wait_until(lambda: not alive(mark))
        assert runtime.exits.empty()
    finally:
        node.close()


def test_a_holder_ends_what_an_earlier_one_has_left() -> None:
    node = name()
    before = Holder(node, LIMITS)
    if Means.GROUP not in before.plan:
        pytest.skip(before.sentence)
    left = subprocess.Popen(before.hold("session", None, None).command(["/bin/sleep", "600"]))
    wait_until(lambda: b"sleep" in Path(f"/proc/{left.pid}/comm").read_bytes())
    after = Holder(node, LIMITS)
    [sentence] = after.recover()
    assert "1 processes of session session" in sentence
    assert left.wait(60) == -9
    assert after.recover() == []
    after.close()
    before.close()


def test_groups_are_gone_with_their_tasks_and_their_node(tmp_path: Path) -> None:
    node = name()
    holder = Holder(node, LIMITS)
    if Means.GROUP not in holder.plan:
        pytest.skip(holder.sentence)
    held = holder.hold("session", 64 * MIB, 1.0)
    process = subprocess.Popen(held.command(["/bin/sleep", "600"]))
    wait_until(lambda: b"sleep" in Path(f"/proc/{process.pid}/comm").read_bytes())
    held.end()
    held.end()
    process.wait(60)
    holder.close()
    # Others' groups go while one looks, for which os.walk cares less than Path.glob.
    groups = [group for _, found, _ in os.walk("/sys/fs/cgroup") for group in found]
    assert groups
    assert f"manta-{node}" not in groups


def test_a_process_has_the_limits_of_its_kind(node: Node) -> None:
    runtime = node.start(
        """
        import resource
        def main():
            kinds = resource.RLIMIT_CORE, resource.RLIMIT_NOFILE
            return [resource.getrlimit(kind) for kind in kinds]
        """
    )
    core, files = runtime.run().output
    assert list(core) == [0, 0]
    assert files[1] <= LIMITS.files


def test_measuring_counts_a_tree() -> None:
    code = "import os, time\nos.fork()\nx = b'x' * (50 << 20)\nos.write(1, b'1\\n')\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with process.stdout:
            said = process.stdout.readline() + process.stdout.readline()
        roughly, exactly = measure(process.pid), measure(process.pid, limit=1)
        threads = threads_of_user()
    finally:
        kill_tree({process.pid})
        process.wait()
    assert said == b"1\n1\n"
    assert (roughly.processes, exactly.processes) == (2, 2)
    assert 100 * MIB < exactly.memory < roughly.memory < 180 * MIB
    assert threads >= 2
