"""How sandboxes begin and end: with their task, with their daemon, and never without a word."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from manta.light.runtime.processes import children, descendants, marked
from manta.node.errors import LaunchError
from manta.node.isolation.cgroups import Groups
from manta.node.isolation.holding import Holder
from manta.node.isolation.limits import Limits, Means
from manta.node.runners.bwrap import Bubblewrap, BwrapRunner, find
from manta.testing import wait_until
from tests.conformance.test_runner import with_mark
from tests.support.children import Child
from tests.support.harness import Node


@pytest.fixture(scope="module")
def found(bubblewrap: None) -> Bubblewrap:
    return find([Path.home()])


def name() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def holder() -> Holder:
    return Holder(name())


@pytest.fixture
def node(found: Bubblewrap, holder: Holder, tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, BwrapRunner(found, holder))
    yield node
    node.close()


def sandboxes() -> set[int]:
    """Processes of bubblewrap that this process has started."""
    names = ((pid, Path(f"/proc/{pid}/comm")) for pid in descendants(os.getpid()))
    return {pid for pid, name in names if name.exists() and name.read_text() == "bwrap\n"}


def test_who_is_killed_before_it_listens_is_gone_at_once(node: Node, holder: Holder) -> None:
    """The first process of a namespace does not hear a signal that it does not handle."""
    for pause in [0.0] * 10 + [0.002 * number for number in range(10)]:
        runtime = node.start("def main():\n    pass\n")
        threading.Event().wait(pause)
        runtime.handle.kill()
        exit_ = runtime.exits.get(timeout=60)
        assert not exit_.sentence
        assert not exit_.platform
    wait_until(lambda: not marked(f"MANTA_NODE={holder.node}"))


def test_a_sandbox_that_was_being_made_when_its_daemon_was_killed_is_ended_by_the_next(
    node: Node, found: Bubblewrap, holder: Holder
) -> None:
    pipes = [os.pipe(), os.pipe()]
    (never, _), (_, info) = pipes
    arguments = ["--unshare-user", "--userns-block-fd", str(never), "--info-fd", str(info)]
    command = [found.program, "--die-with-parent", *arguments, "--ro-bind", "/usr", "/usr", "true"]
    with Child(command, env={"MANTA_NODE": holder.node}, pass_fds=[never, info]) as bwrap:
        wait_until(lambda: bool(children(bwrap.pid)))
        [left] = children(bwrap.pid)
        bwrap.kill()
        bwrap.wait(60)
    assert is_running(left)
    [sentence] = node.runner.recover()
    assert sentence.startswith("1 processes of tasks, which the daemon before this one has left")
    for fd in itertools.chain(*pipes):
        os.close(fd)
    wait_until(lambda: not is_running(left))
    assert node.runner.recover() == []


def test_an_object_that_lives_on_ends_in_its_own_time(node: Node) -> None:
    runtime = node.start(
        """
        import atexit
        class Worker:
            def execute(self):
                atexit.register(lambda: open("/manta/scratch/ended", "w").close())
                return 1
        """
    )
    assert runtime.run().output == 1
    runtime.handle.kill()
    assert runtime.exits.get(timeout=60).code == 0
    assert (runtime.scratch / "ended").exists()


def test_how_a_runtime_ended_is_told_as_of_a_process(node: Node) -> None:
    runtime = node.start("import time\ndef main():\n    print('in')\n    time.sleep(600)\n")
    runtime.begin()
    runtime.output("stdout", "in")
    [sandbox] = sandboxes()
    [first] = children(sandbox)
    os.kill(first, signal.SIGKILL)
    exit_ = runtime.exits.get(timeout=60)
    assert (exit_.code, exit_.sentence, exit_.platform) == (-signal.SIGKILL, "", False)
    wait_until(lambda: not sandboxes())


def test_a_sandbox_that_cannot_be_made_is_not_the_task_s_fault(node: Node, tmp_path: Path) -> None:
    gone = {"gone": tmp_path / "gone"}
    runtime = node.start("def main():\n    pass\n", datasets=gone)
    exit_ = runtime.exits.get(timeout=60)
    assert exit_.sentence.startswith("The task's sandbox could not be made: bwrap: Can't find")
    assert "gone" in exit_.sentence
    assert exit_.platform


def test_thousands_of_datasets_fit(node: Node, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("1")
    many = {f"dataset-{number}-{'x' * 60}": tmp_path / "data" for number in range(1000)}
    runtime = node.start(
        "import os\ndef main():\n    return len(os.listdir('/manta/datasets'))\n", datasets=many
    )
    assert runtime.run().output == 1000


def test_what_is_asked_for_is_filtered(found: Bubblewrap, tmp_path: Path) -> None:
    """A program of the kernel's that refuses uname(2) alone."""
    number = {"x86_64": 63, "aarch64": 160}[os.uname().machine]
    program = b"".join(
        code.to_bytes(2, "little") + bytes(jumps) + value.to_bytes(4, "little")
        for code, jumps, value in (
            (0x20, (0, 0), 0),  # load the number of the call
            (0x15, (0, 1), number),
            (0x06, (0, 0), 0x00050000 | 1),  # EPERM
            (0x06, (0, 0), 0x7FFF0000),
        )
    )
    node = Node(tmp_path, BwrapRunner(msgspec.structs.replace(found, filter=program)))
    try:
        runtime = node.start(
            """
            import os
            def main():
                try:
                    os.uname()
                except PermissionError:
                    return open("/proc/self/status").read().split("Seccomp:\\t")[1][0]
            """
        )
        assert runtime.run().output == "2"
    finally:
        node.close()


def test_a_task_is_held_to_its_limits_and_told_why_it_ended(
    found: Bubblewrap, tmp_path: Path
) -> None:
    holder = Holder(name(), Limits(files=777), Groups("none", []))  # so it is measured
    node = Node(tmp_path / "node", BwrapRunner(found, holder))
    try:
        runtime = node.start(
            """
            import os, resource
            def main():
                return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            """
        )
        assert runtime.run().output == 777
        greedy = node.start(
            "import time\ndef main():\n    x = b'x' * (400 << 20)\n    time.sleep(60)\n",
            memory=200 << 20,
        )
        greedy.begin()
        assert greedy.exits.get(timeout=60).sentence.startswith("It took more memory than it may, ")
        assert runtime.exits.empty()
        wait_until(lambda: len(sandboxes()) == 1)
    finally:
        node.close()


def test_an_attempt_that_takes_too_much_memory_is_ended_alone_where_there_are_groups(
    found: Bubblewrap, tmp_path: Path
) -> None:
    holder = Holder(name())
    if holder.plan.memory is not Means.GROUP:
        holder.close()
        pytest.skip(holder.sentence)
    node = Node(tmp_path / "node", BwrapRunner(found, holder))
    try:
        greedy = node.start("def main():\n    return len(b'x' * (400 << 20))\n", memory=200 << 20)
        error = greedy.run().error
        assert error is not None
        assert error.kind == "ResourceExhaustionError"
        assert "it took more memory than it may" in error.sentence
        assert greedy.exits.empty()
    finally:
        node.close()


DAEMON = """
import sys, time
from pathlib import Path
from manta.node.isolation.holding import Holder
from manta.node.runners.bwrap import BwrapRunner, find
from tests.support.harness import Node
node = Node(Path(sys.argv[1]), BwrapRunner(find([]), Holder(sys.argv[2])))
runtime = node.start(
    "import subprocess, sys, time\\n"
    "def main():\\n"
    "    code = 'import os, time; os.fork() or os.setsid(); time.sleep(600)'\\n"
    f"    command = [sys.executable, '-c', code, {sys.argv[2]!r}]\\n"
    "    subprocess.Popen(command, start_new_session=True)\\n"
    "    print('in')\\n"
    "    time.sleep(600)\\n"
)
runtime.begin()
runtime.output("stdout", "in")
print("in", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_nothing_outlives_the_daemon(bubblewrap: None, tmp_path: Path, number: int) -> None:
    mark = f"mark-{os.urandom(8).hex()}"
    command = [sys.executable, "-c", DAEMON, str(tmp_path), mark]
    with Child(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "in\n"
        wait_until(lambda: len(with_mark(mark)) == 3)  # the daemon too
        started = descendants(daemon.pid)
        assert len(started) >= 6
        os.kill(daemon.pid, number)
        daemon.wait(60)
    wait_until(lambda: not with_mark(mark) and not any(map(is_running, started)))


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_system_that_forbids_namespaces_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it is a program that says what bubblewrap says there."""
    program = tmp_path / "bwrap"
    said = "bwrap: setting up uid map: Permission denied"
    program.write_text(f'#!/bin/sh\n[ "$1" = --help ] || {{ echo "{said}" >&2; exit 1; }}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(
        LaunchError,
        match=r"cannot make a sandbox \(bwrap: setting up uid map: Permission denied\): "
        "user namespaces have to be allowed for this user .*apparmor_restrict",
    ):
        find([tmp_path])
