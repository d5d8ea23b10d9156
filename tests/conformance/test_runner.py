"""What every runner does: as processes held to limits, confined by Landlock, in sandboxes, and in
containers of a real engine."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manta.light.wire import INLINE_LIMIT
from manta.node.errors import LaunchError
from manta.node.isolation.holding import Holder
from manta.node.runners import bwrap, hardening, landlock
from manta.node.runners.docker import DockerRunner
from manta.node.runners.interface import ImageSpec, Runner, RuntimeExit
from manta.node.runners.process import ProcessRunner
from manta.node.runners.pulled import Pulled
from manta.node.runners.runtime_copy import runtime_copy
from manta.node.task_server import messages as light
from manta.protocol.isolation import GVISOR, IMAGES
from manta.testing import wait_until
from tests.support.harness import Node


@pytest.fixture(
    scope="module", params=["process", "limits", "landlock", "bwrap", "docker", "gvisor"]
)
def kind(request: pytest.FixtureRequest) -> str:
    """Asks for what it needs, before a test is watched for leaks."""
    needs = {"docker": "engine", "gvisor": "gvisor_engine", "bwrap": "bubblewrap"}
    if needed := needs.get(request.param):
        request.getfixturevalue(needed)
    return str(request.param)


@pytest.fixture
def runner(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    if kind not in IMAGES:
        name = f"test-{secrets.token_hex(4)}"
        kinds: dict[str, Callable[[], Runner]] = {
            "process": ProcessRunner,
            "limits": lambda: ProcessRunner(Holder(name)),
            "landlock": lambda: landlock.LandlockRunner(
                landlock.find([tmp_path]), [tmp_path], Holder(name)
            ),
            "bwrap": lambda: bwrap.BwrapRunner(bwrap.find([tmp_path, Path.home()]), Holder(name)),
        }
        local = kinds[kind]()
        yield local
        local.close()
        return
    engine = request.getfixturevalue({"docker": "docker_host"}.get(kind, "gvisor_host"))
    copy, pulled = runtime_copy(tmp_path / "runtime"), Pulled(tmp_path / "images.json", 1 << 40)
    runner = DockerRunner(hardening.find(kind), "test", "node-1", engine.base(), copy, pulled)
    yield runner
    runner.close()
    assert engine.containers() == []


@pytest.fixture
def node(runner: Runner, tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, runner)
    yield node
    node.close()


def with_mark(mark: str) -> list[str]:
    """Processes of this machine, in containers too, that have it in their command line."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if mark.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(name)
        except OSError:
            continue
    return found


def test_an_attempt_has_all_that_it_needs(node: Node, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a\nb\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c").write_text("c")
    runtime = node.start(
        """
        import logging, sys, threading
        from manta.light import Local, Task
        class Worker(Task):
            def run(self):
                print("out")
                print("err", file=sys.stderr)
                self.logger.info("logged")
                self.world.globals["small"] = self.world.iteration
                self.world.globals["large"] = b"x" * 1_000_000
                assert len(self.world.globals["large"]) == 1_000_000
                thread = threading.Thread(target=lambda: None)
                thread.start()
                thread.join()
                local = Local()
                return [local.read_file_lines("lines"), local.list_dir("folder"),
                        local.dataset_path("lines").suffix]
        """,
        datasets={"lines": tmp_path / "lines.txt", "folder": tmp_path / "folder"},
    )
    for iteration in range(2):
        ended = runtime.run(iteration)
        assert ended.output == [["a", "b"], ["c"], ".txt"]
        assert ended.lines("stdout") == ["out"]
        assert ended.lines("stderr") == ["err"]
        assert ended.lines("info") == ["logged"]
    assert node.value(node.globals["small"]) == 1
    assert len(node.value(node.globals["large"])) > INLINE_LIMIT


def test_an_object_lives_on_and_fresh_attempts_share_nothing(node: Node) -> None:
    resident = node.start(
        """
        class Worker:
            def setup(self):
                self.rounds = 0
            def execute(self):
                self.rounds += 1
                return self.rounds
        """
    )
    fresh = node.start(
        """
        from manta.light import World
        iteration = World().iteration
        rounds = 0
        def main():
            global rounds
            rounds += 1
            return [iteration, rounds]
        """
    )
    assert [resident.run(i).output for i in range(3)] == [1, 2, 3]
    assert [fresh.run(i).output for i in range(2)] == [[0, 1], [1, 1]]


def test_the_end_is_told_once_with_its_code(node: Node, tmp_path: Path) -> None:
    runtime = node.start("def main():\n    pass\n")
    runtime.ready()
    node.sessions.tell(light.CloseSession(runtime.id))
    exit_ = runtime.exits.get(timeout=60)
    assert (exit_.session, exit_.code, exit_.sentence) == (runtime.id, 0, "")
    runtime.handle.kill()
    time.sleep(0.2)
    assert runtime.exits.empty()


def test_the_end_is_told_by_another_thread(runner: Runner, node: Node) -> None:
    told: list[threading.Thread] = []
    ended = threading.Event()

    def on_exit(_: RuntimeExit) -> None:
        told.append(threading.current_thread())
        ended.set()

    runtime = node.start("def main():\n    pass\n")
    spec = msgspec.structs.replace(runtime.spec, session="other", token="no token")
    again = runner.start(spec, on_exit)
    assert ended.wait(60)  # the node refuses its token
    again.kill()
    assert told != [threading.main_thread()]


LEAVES_MUCH = """
    import os, subprocess, sys, time
    MARK = {mark!r}
    CODE = "import time; time.sleep(600)"
    def main():
        subprocess.Popen([sys.executable, "-c", CODE, MARK])
        subprocess.Popen([sys.executable, "-c", CODE, MARK], start_new_session=True)
        if os.fork() == 0:
            os.setsid()
            os.execv(sys.executable, [sys.executable, "-c", CODE, MARK])
        print("in")
        time.sleep(600)
"""


@pytest.mark.parametrize("how", ["kill", "close the session", "close the runner"])
def test_it_ends_with_all_that_it_started(kind: str, node: Node, runner: Runner, how: str) -> None:
    mark = f"mark-{secrets.token_hex(8)}"
    runtime = node.start(LEAVES_MUCH.format(mark=mark))
    runtime.begin()
    runtime.output("stdout", "in")
    if kind != GVISOR:  # whose processes are the machine's kernel's no business
        wait_until(lambda: len(with_mark(mark)) == 3)
    began = time.monotonic()
    if how == "kill":
        runtime.handle.kill()
        runtime.handle.kill()
    elif how == "close the session":
        node.sessions.tell(light.CloseSession(runtime.id))
    else:
        runner.close()
    assert runtime.exits.get(timeout=60).code == 0
    assert time.monotonic() - began < 5
    wait_until(lambda: not with_mark(mark))
    assert runtime.exits.empty()


def test_one_that_stands_still_ends_soon_as_well(kind: str, node: Node) -> None:
    if kind in IMAGES:
        pytest.skip("an engine waits in vain, and then kills it")
    if kind == "bwrap":
        pytest.skip("the first process of a namespace does not hear of its task to stand still")
    runtime = node.start("import time\ndef main():\n    print('in')\n    time.sleep(600)\n")
    runtime.begin()
    runtime.output("stdout", "in")
    os.kill(runtime.handle.pid, signal.SIGSTOP)
    began = time.monotonic()
    runtime.handle.kill()
    runtime.exits.get(timeout=60)
    assert time.monotonic() - began < 5


def test_it_may_be_killed_before_it_has_begun(node: Node) -> None:
    runtime = node.start("def main():\n    pass\n")
    runtime.handle.kill()
    runtime.exits.get(timeout=60)
    assert runtime.exits.empty()


def test_nothing_of_the_nodes_environment_is_seen(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "hidden")
    runtime = node.start("import os\ndef main():\n    return dict(os.environ)\n", cpu=3.0)
    found = runtime.run().output
    assert "hidden" not in found.values()
    assert not [name for name in found if name.startswith("MANTA_") and name != "MANTA_SESSION"]
    assert {found[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "MKL", "BLIS")} == {"3"}


def test_scratch_is_the_working_folder_and_the_nodes_to_remove(node: Node, kind: str) -> None:
    runtime = node.start(
        """
        import os, tempfile
        from manta.light import Local
        def main():
            assert os.path.samefile(os.getcwd(), Local().scratch)
            assert os.path.samefile(os.environ["HOME"], Local().scratch)
            os.makedirs("a/b")
            with open("a/b/file", "w") as file:
                file.write("here")
            return os.path.samefile(tempfile.gettempdir(), Local().scratch)
        """
    )
    assert runtime.run().output is True
    file = runtime.scratch / "a" / "b" / "file"
    assert file.read_text() == "here"
    is_anybodys = kind in IMAGES and os.getuid() == 0
    owner = 2 * (hardening.TASKS_USER,) if is_anybodys else (os.getuid(), os.getgid())
    assert (file.stat().st_uid, file.stat().st_gid) == owner


def test_orphans_are_reaped(node: Node) -> None:
    runtime = node.start(
        """
        import os, time
        def main():
            read, write = os.pipe()
            for _ in range(10):
                if os.fork() == 0:
                    pid = os.fork()
                    if pid == 0:
                        os.setsid()
                    else:
                        os.write(write, b"%d\\n" % pid)
                    os._exit(0)
                os.wait()
            pids = os.read(read, 1000).split()
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:
                if not any(os.path.exists(b"/proc/" + pid) for pid in pids):
                    return len(pids)
                time.sleep(0.01)
        """
    )
    assert runtime.run().output == 10


def test_it_survives_a_restart_of_the_nodes_service(node: Node) -> None:
    """The socket is another one then: what is mounted must not be the old one."""
    runtime = node.start(
        "import time\ndef main():\n    print('in')\n    time.sleep(0.5)\n    return 1\n"
    )
    runtime.begin()
    runtime.output("stdout", "in")
    node.restart_service(0.1)
    assert runtime.end().output == 1
    assert runtime.run(1).output == 1


def test_several_run_side_by_side(node: Node) -> None:
    runtimes = [node.start(f"def main():\n    return {i}\n") for i in range(3)]
    for runtime in runtimes:
        runtime.begin()
    ended: list[Any] = []
    while len(ended) < 3:
        event = node.events.get(timeout=60)
        if isinstance(event, light.AttemptExited):
            ended.append(node.value(event.output))
    assert sorted(ended) == [0, 1, 2]


def test_nothing_is_started_when_it_is_closed(node: Node, runner: Runner) -> None:
    runner.close()
    runner.close()
    with pytest.raises(LaunchError, match="stopping"):
        node.start("def main():\n    pass\n")
    node.runtimes.clear()


def test_what_a_daemon_left_is_ended(kind: str, node: Node, runner: Runner) -> None:
    """Processes have died with it. Containers bear a label."""
    assert runner.recover() == []
    if kind not in IMAGES:
        return
    runtime = node.start("import time\ndef main():\n    time.sleep(600)\n", task="swarm.worker")
    runtime.ready()
    pulled = Pulled(Path("/nowhere/images.json"), 0)
    other = DockerRunner(
        hardening.find(kind), "another node", "node-2", "", Path("/nowhere"), pulled
    )
    assert other.recover() == []
    other.close()
    [sentence] = runner.recover()
    assert "swarm.worker (running)" in sentence
    exit_ = runtime.exits.get(timeout=60)
    assert "by somebody else than the node" in exit_.sentence
    assert exit_.platform


def test_an_image_alone_needs_containers(kind: str, runner: Runner, tmp_path: Path) -> None:
    if kind in IMAGES:
        assert runner.runs_in_image("python:3.10")
        return
    assert not runner.runs_in_image("python:3.10")
    spec = ImageSpec("s", "hello-world", tmp_path, {})
    with pytest.raises(LaunchError, match="needs a container engine"):
        runner.start_image(spec, lambda *_: None, lambda _: None)


def test_there_is_nothing_to_prepare_when_it_is_there(runner: Runner) -> None:
    told: list[str] = []
    assert runner.prepare(None, told.append).result(60) is None
    assert told == []
