"""`manta up`: manager and nodes for as long as one works with them, and nothing left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.apis.connect import profiles
from manta.cli.local import up_state
from manta.console.exit_codes import Exit
from manta.light.runtime.processes import marked
from manta.testing import wait_until
from tests.support.children import Child
from tests.support.lab import manta

SWARM = '''
from manta import Module, Swarm, Task

CODE = """
from manta.light import Local, World

def main():
    World().results.add("rows", Local().get_dataset("rows").read_text())
"""

class Rows(Swarm):
    def execute(self):
        return Task(Module(CODE, name="rows", datasets=["rows"]))
'''


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """With a profile that is in use already."""
    home = tmp_path / "home"
    profiles.save_profile(home, "lab", profiles.Profile("lab.example", 50052))
    profiles.use_profile(home, "lab")
    yield home
    manta("up", "--stop", MANTA_HOME=home)


def left(home: Path) -> list[str]:
    return sorted(path.name for path in home.rglob("*") if path.is_file())


def started(home: Path, *arguments: object) -> up_state.Up:
    done = manta("up", "--background", *arguments, MANTA_HOME=home)
    assert done.returncode == 0, done.stderr
    found = up_state.running(home)
    assert found is not None
    return found


def test_in_the_background_and_in_the_next_terminal(home: Path, tmp_path: Path) -> None:
    before = left(home)
    for i in range(2):
        (tmp_path / f"rows{i}.txt").write_text(f"node-{i + 1}'s")
    (tmp_path / "swarm.py").write_text(SWARM)
    found = started(home, "--dataset", f"rows={tmp_path}/rows{{i}}.txt")
    again = manta("up", "--json", MANTA_HOME=home)
    assert again.returncode == 0
    assert json.loads(again.stdout)["pid"] == found.pid
    assert "the profile 'up' is in use" in manta("up", MANTA_HOME=home).stdout
    deployed = manta(
        "deploy", "--cluster", "local", tmp_path / "swarm.py", "--follow", MANTA_HOME=home
    )
    assert deployed.returncode == 0, deployed.stderr
    swarm = json.loads(manta("ps", "--json", MANTA_HOME=home).stdout)[0]["swarm_id"]
    results = json.loads(manta("results", swarm, "--json", MANTA_HOME=home).stdout)
    assert sorted(one["value"] for one in results) == ["node-1's", "node-2's"]
    stopped = manta("up", "--stop", MANTA_HOME=home)
    assert (stopped.returncode, stopped.stdout) == (0, "Stopped the manager and the nodes.\n")
    assert left(home) == before
    assert profiles.used_profile(home) == "lab"
    assert not Path(found.folder).exists()
    assert "`manta up` is not running" in manta("up", "--stop", MANTA_HOME=home).stderr


def test_ctrl_c_ends_all(home: Path) -> None:
    before = left(home)
    with Child(
        [sys.executable, "-m", "manta", "up", "--nodes", "1"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MANTA_HOME": str(home)},
    ) as process:
        assert process.stdout is not None
        wait_until(lambda: "manta deploy" in process.stdout.readline())  # type: ignore[union-attr]
        found = up_state.running(home)
        assert found is not None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == Exit.INTERRUPTED
    assert left(home) == before
    assert not Path(found.folder).exists()


ENDED = {signal.SIGINT: "Interrupted.\n", signal.SIGTERM: "Terminated.\n"}


@pytest.mark.parametrize("number", ENDED)
def test_a_signal_to_who_waits_for_it_in_the_background_ends_all(
    home: Path, number: signal.Signals
) -> None:
    before = left(home)
    with Child(
        [sys.executable, "-m", "manta", "up", "--nodes", "1", "--background"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MANTA_HOME": str(home)},
    ) as process:
        wait_until(lambda: up_state.read(home) is not None)
        found = up_state.read(home)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (128 + number, ENDED[number])
    assert left(home) == before
    assert found is not None
    assert not Path(found.folder).exists()


INTERRUPTIONS = int(os.environ.get("MANTA_INTERRUPTIONS", "4"))
SEED = os.environ.get("MANTA_INTERRUPTIONS_SEED") or str(time.time_ns())
"""More of them, or the same ones again."""
WAYS = ((signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGINT))


@pytest.mark.parametrize("number", range(INTERRUPTIONS))
def test_interrupted_at_any_moment_nothing_is_left(
    home: Path, tmp_path_factory: pytest.TempPathFactory, number: int
) -> None:
    scratch = tmp_path_factory.mktemp("t")
    chance = random.Random(f"{SEED}/{number}")
    way = WAYS[number % len(WAYS)]
    moment = chance.uniform(0, 2)
    before = left(home)
    with Child(
        [sys.executable, "-m", "manta", "up", "--nodes", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MANTA_HOME": str(home), "TMPDIR": str(scratch)},
    ) as process:
        time.sleep(moment)
        for signal_ in way:
            process.send_signal(signal_)
            time.sleep(chance.uniform(0, 0.2))
        _, said = process.communicate(timeout=60)
    case = f"seed {SEED}, number {number}: {way} after {moment:.3f} s\n{said}"
    expected = Exit.INTERRUPTED if way[0] is signal.SIGINT else Exit.TERMINATED
    # Before Python has run our first line, the signal does what it does by default.
    early = process.returncode == -way[0] or "Failed to import the site module" in said
    assert process.returncode == expected or early, case
    assert "Traceback" not in said or early, case
    assert left(home) == before, case
    assert profiles.used_profile(home) == "lab", case
    assert list(scratch.iterdir()) == [], case
    assert marked(f"TMPDIR={scratch}") == set(), case


def test_killed_it_leaves_nothing_either(home: Path) -> None:
    before = left(home)
    found = started(home, "--nodes", 1)
    os.kill(found.pid, signal.SIGKILL)
    wait_until(lambda: not Path(found.folder).exists())
    wait_until(lambda: left(home) == before)
    assert profiles.used_profile(home) == "lab"


def test_a_stranger_with_its_process_id_is_left_alone(home: Path) -> None:
    with Child([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        up = up_state.Up(stranger.pid, "/nowhere", "127.0.0.1", 1, "local", (), "lab")
        up_state.write(home, up)
        assert manta("up", "--stop", MANTA_HOME=home).returncode == Exit.LOCAL
        assert stranger.poll() is None
        stranger.kill()
    found = started(home, "--nodes", 0)  # what the dead one left is in nobody's way
    assert found.nodes == ()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--dataset", "rows"), Exit.USAGE, "is not NAME=PATH"),
        (("--nodes", 1, "--dataset", "rows=/nowhere{i}"), Exit.LOCAL, "is not there: /nowhere0"),
        (("--background", "--dataset", "rows=/nowhere"), Exit.LOCAL, "is not there: /nowhere"),
    ],
)
def test_what_cannot_start_is_said_and_leaves_nothing(
    home: Path, arguments: tuple[object, ...], code: int, words: str
) -> None:
    before = left(home)
    done = manta("up", *arguments, MANTA_HOME=home)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    wait_until(lambda: left(home) == before)


def test_a_profile_of_the_user_s_own_is_not_overwritten(home: Path) -> None:
    profiles.save_profile(home, "up", profiles.Profile("mine.example", 50052))
    done = manta("up", "--nodes", 1, MANTA_HOME=home)
    assert done.returncode == Exit.LOCAL
    assert "manta config rm up" in done.stderr
    assert profiles.load_profile(home, "up", required=True).host == "mine.example"
