"""`manta run` as a user runs it: whole processes, from the outside."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.light.runtime.processes import descendants
from manta.testing import wait_until
from tests.support.children import Child, signal_other_thread

ROOT = Path(__file__).parents[3]
HELLO = ROOT / "examples" / "hello" / "swarm.py"
COMMAND = [sys.executable, "-m", "manta", "run"]


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short TMPDIR (sockets end at 107 characters) that must be empty in the end."""
    folder = tmp_path_factory.mktemp("t")
    yield folder
    assert list(folder.iterdir()) == []


def swarm_file(folder: Path, code: str, task: str = "Task(Module(CODE, name='task'))") -> Path:
    path = folder / "swarm.py"
    path.write_text(
        f"from manta import Module, Swarm, Task\nCODE = '''\n{code}\n'''\n"
        f"class Tested(Swarm):\n    def execute(self):\n        return {task}\n"
    )
    return path


def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch), "MANTA_HOME": str(scratch / "unused")}


def run(scratch: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(scratch),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def running(scratch: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    with Child(
        [*COMMAND, *map(str, arguments)],
        env=environment(scratch),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_hello(scratch: Path) -> None:
    done = run(scratch, HELLO)
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    for node in (1, 2):
        assert f"Hello from node {node} of 2" in done.stdout
    assert re.search(r"^hello on 2 nodes, set up in ", done.stdout, re.MULTILINE)
    assert re.search(r"^iteration   0 ", done.stdout, re.MULTILINE)
    assert re.search(r"^COMPLETED: ran 1 iteration", done.stdout, re.MULTILINE)
    assert re.search(r"^Where .* went:", done.stdout, re.MULTILINE)
    for part in ("set-up", "placing", "starting", "loading", "computing", "stopping"):
        assert re.search(rf"^  {part} ", done.stdout, re.MULTILINE)
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_json(scratch: Path) -> None:
    done = run(scratch, HELLO, "--json", "--nodes", 1)
    assert done.returncode == Exit.OK, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["status"], outcome["iterations"]) == ("COMPLETED", 1)
    assert set(outcome["seconds"]) >= {"set-up", "computing", "stopping"}


def test_task_that_raises(scratch: Path, tmp_path: Path) -> None:
    code = "def helper():\n    raise ValueError('no such thing')\ndef main():\n    helper()"
    done = run(scratch, swarm_file(tmp_path, code), "--nodes", 1)
    assert done.returncode == Exit.SWARM_FAILED, done.stdout + done.stderr
    assert "ValueError: no such thing" in done.stdout
    assert "in helper" in done.stdout
    assert re.search(r"^task failed on node-1 .*no such thing", done.stdout, re.MULTILINE)
    assert re.search(r"^FAILED in iteration 0\.$", done.stdout, re.MULTILINE)
    assert "manta/" not in done.stdout  # the task's own frames only


def test_task_that_exits(scratch: Path, tmp_path: Path) -> None:
    done = run(scratch, swarm_file(tmp_path, "import os\ndef main():\n    os._exit(7)"))
    assert done.returncode == Exit.SWARM_FAILED
    assert re.search(r"^task\.. failed on .* code 7", done.stdout, re.MULTILINE)
    assert re.search(r"^FAILED in iteration 0\.$", done.stdout, re.MULTILINE)


def test_task_that_never_returns(scratch: Path, tmp_path: Path) -> None:
    code = "import time\ndef main():\n    time.sleep(1000)"
    task = "Task(Module(CODE, name='task'), timeout=0.5)"
    done = run(scratch, swarm_file(tmp_path, code, task), "--nodes", 1)
    assert done.returncode == Exit.SWARM_FAILED
    assert "longer than its timeout of 0.5 s" in done.stdout


@pytest.mark.parametrize("code", ["x = 1", "class Other:\n    pass"])
def test_module_with_nothing_to_run(scratch: Path, tmp_path: Path, code: str) -> None:
    done = run(scratch, swarm_file(tmp_path, code), "--nodes", 1)
    assert done.returncode == Exit.SWARM_FAILED
    assert "main" in done.stdout


@pytest.mark.parametrize("version", ["", ", version='1.0.0'", ", version='~=1.0'"])
def test_a_registered_module_is_looked_for_in_a_registry_of_its_own(
    scratch: Path, tmp_path: Path, version: str
) -> None:
    path = swarm_file(tmp_path, "", f"Task(Module('worker'{version}))")
    done = run(scratch, path, "--nodes", 1)
    assert done.returncode == Exit.INVALID_SWARM, done.stdout + done.stderr
    assert "starts its own manager, whose registry is empty" in done.stderr
    assert "manta module push" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_dataset_that_no_node_has(scratch: Path, tmp_path: Path) -> None:
    task = "Task(Module(CODE, name='task', datasets=['digits']))"
    path = swarm_file(tmp_path, "def main():\n    pass", task)
    (tmp_path / "other.npz").touch()
    done = run(scratch, path, "--dataset", f"other={tmp_path}/other.npz")
    assert done.returncode == Exit.UNPLACEABLE, done.stdout + done.stderr
    assert re.search(r"^Error: .*'task'.*'?digits", done.stderr)
    assert "Traceback" not in done.stderr


def test_dataset_path_that_is_not_there(scratch: Path, tmp_path: Path) -> None:
    (tmp_path / "d0").touch()
    done = run(scratch, HELLO, "--dataset", f"d={tmp_path}/d{{i}}")
    assert done.returncode == Exit.LOCAL
    assert done.stderr.startswith("Error: The dataset 'd' of node-2 is not there")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def broken(:", "Error: Syntax error in .*swarm.py, line 1"),
        ("1 / 0", "raised ZeroDivisionError"),
        ("x = 1", "defines no Swarm"),
    ],
)
def test_bad_file(scratch: Path, tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "swarm.py").write_text(code)
    done = run(scratch, tmp_path / "swarm.py")
    assert done.returncode == Exit.INVALID_SWARM
    assert re.search(message, done.stderr)


SLEEPER = """
import subprocess, time
def main():
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    print("asleep", flush=True)
    time.sleep(1000)
"""


INTERRUPTIONS = int(os.environ.get("MANTA_INTERRUPTIONS", "8"))
SEED = os.environ.get("MANTA_INTERRUPTIONS_SEED") or str(time.time_ns())
"""More of them, or the same ones again."""
WAYS = ((signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGINT))


@pytest.mark.parametrize("number", range(INTERRUPTIONS))
def test_interrupted_at_any_moment_nothing_is_left(
    scratch: Path, tmp_path: Path, number: int
) -> None:
    chance = random.Random(f"{SEED}/{number}")
    way = WAYS[number % len(WAYS)]
    moment = chance.uniform(0, 1.5)
    with running(scratch, swarm_file(tmp_path, SLEEPER)) as process:
        time.sleep(moment)
        for signal_ in way:
            process.send_signal(signal_)
            time.sleep(chance.uniform(0, 0.2))
        _, said = process.communicate(timeout=60)
    case = f"seed {SEED}, number {number}: {way} after {moment:.3f} s\n{said}"
    expected = Exit.INTERRUPTED if way[0] is signal.SIGINT else Exit.TERMINATED
    # Before Python has run our first line, the signal does what it does by default.
    starts = ("Failed to import the site module", "Fatal Python error: init_")
    early = process.returncode == -way[0] or any(one in said for one in starts)
    assert process.returncode == expected or early, case
    assert "Traceback" not in said or early, case


@pytest.mark.parametrize("send", [os.kill, signal_other_thread], ids=["main", "other"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_tasks_run_nothing_is_left(
    scratch: Path, tmp_path: Path, number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    with running(scratch, swarm_file(tmp_path, SLEEPER)) as process:
        assert process.stdout is not None
        while "asleep" not in process.stdout.readline():
            assert process.poll() is None
        send(process.pid, number)
        _, said = process.communicate(timeout=60)
    expected = Exit.INTERRUPTED if number is signal.SIGINT else Exit.TERMINATED
    assert process.returncode == expected, said
    assert "Traceback" not in said


@pytest.mark.parametrize("moment", [0.4, 0.6, None])
def test_killed_at_any_moment_nothing_is_left(
    scratch: Path, tmp_path: Path, moment: float | None
) -> None:
    with running(scratch, swarm_file(tmp_path, SLEEPER)) as process:
        assert process.stdout is not None
        if moment is None:
            while "asleep" not in process.stdout.readline():
                assert process.poll() is None
        else:
            time.sleep(moment)
        started = descendants(process.pid)
        assert started or moment is not None
        process.kill()
    wait_until(
        lambda: not (any(alive(pid) for pid in started) or left(scratch)),
        what=lambda: (started, left(scratch)),
    )
    for probe in scratch.iterdir():
        probe.unlink()


def left(scratch: Path) -> list[Path]:
    """What is there but the file by which Python tries whether a folder can be written to."""
    return [
        path
        for path in scratch.iterdir()
        if path.is_dir() or not re.fullmatch("[a-z0-9_]{8}", path.name)
    ]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return False
    return state != "Z"


def child(folder: Path, name: str) -> int:
    """The pid of a process of the run."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if name in words and any(str(folder) in word for word in words):
                return int(entry.name)
    raise AssertionError(f"no process {name}")


@pytest.mark.parametrize(("name", "shown"), [("manta.manager", "the manager"), ("manta.node", "")])
def test_process_that_dies_is_told(scratch: Path, tmp_path: Path, name: str, shown: str) -> None:
    with running(scratch, swarm_file(tmp_path, SLEEPER), "--nodes", 1) as process:
        assert process.stdout is not None
        while "asleep" not in process.stdout.readline():
            assert process.poll() is None
        victim = child(scratch, name)
        os.kill(victim, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == Exit.LOCAL, said
    assert f"The process of {shown or 'node-1'} ended (signal SIGKILL)" in said
    (kept,) = re.findall(r"kept in (\S+)", said)
    assert (Path(kept) / "logs" / "manager.log").exists()
    remove(Path(kept))


def remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


def test_keep(scratch: Path) -> None:
    done = run(scratch, HELLO, "--keep", "--nodes", 1)
    (kept,) = re.findall(r"kept in (\S+)", done.stderr)
    assert {path.name for path in (Path(kept) / "logs").iterdir()} == {"manager.log", "node-1.log"}
    remove(Path(kept))


def test_fl_digits(scratch: Path, tmp_path: Path) -> None:
    example = ROOT / "examples" / "fl_digits"
    shards = [sys.executable, str(example / "make_shards.py"), "--folder", str(tmp_path)]
    subprocess.run(shards, check=True, capture_output=True)
    dataset = f"digits={tmp_path}/node{{i}}.npz"
    done = run(scratch, example / "swarm.py", "--nodes", 4, "--dataset", dataset, "--json")
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["status"] == "COMPLETED"
    means = [m["value"] for m in outcome["metrics"] if m["metric"] == "overall accuracy"]
    assert len(means) == outcome["iterations"]
    assert means[-1] >= 0.95
    nodes = {m["node"] for m in outcome["metrics"] if m["metric"] == "accuracy"}
    assert nodes == {"node-1", "node-2", "node-3", "node-4"}


def test_a_run_of_many_iterations_stays_within_few_descriptors(
    scratch: Path, tmp_path: Path
) -> None:
    code = """
import numpy as np
from manta.light import World
def main():
    world = World()
    world.globals["model"] = np.full(20_000, float(world.iteration))
    world.broadcast("said", np.full(15_000, float(world.iteration)))
    world.results.add("written", np.full(10_000, float(world.iteration)))
"""
    path = swarm_file(tmp_path, code)
    text = path.read_text().replace(
        "    def execute",
        "    def __init__(self):\n        super().__init__(max_iteration=150)\n    def execute",
    )
    path.write_text(text)
    done = subprocess.run(
        [*COMMAND, str(path), "--no-logs"],
        env=environment(scratch),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (200, 200)),
    )
    assert done.returncode == Exit.OK, done.stderr + done.stdout
    assert "iteration 149" in done.stdout


def test_imports_are_loading_and_the_parts_add_up(scratch: Path) -> None:
    file = swarm_file(scratch, "import time\ntime.sleep(0.6)\ndef main():\n    time.sleep(0.3)\n")
    done = run(scratch, file, "--nodes", "1", "--json")
    file.unlink()
    assert done.returncode == Exit.OK, done.stderr
    seconds = json.loads(done.stdout)["seconds"]
    assert seconds["loading"] >= 0.6
    assert 0.3 <= seconds["computing"] < 0.6
    assert seconds["waiting"] == 0
