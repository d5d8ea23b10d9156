"""Backups of a manager at work: made, looked at, damaged, restored, and gone on from."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manta import UserAPI
from manta.console.exit_codes import Exit
from manta.manager.backup import BackupError, restore, verify_file, verify_home
from manta.manager.home import Home
from manta.testing import wait_until
from manta.testing.clusters import RUNNER
from tests.support.lab import Lab

ROUNDS = 10
SWARM = f'''
from manta import Module, Swarm, Task

CODE = """
import time
import numpy
from manta.light import World

def main():
    world = World()
    world.results.add("value", numpy.full(20_000, world.iteration))
    print("round", world.iteration)
    time.sleep(0.3)
"""

class Slow(Swarm):
    def __init__(self, rounds: int = {ROUNDS}) -> None:
        super().__init__(max_iteration=rounds)
        self.only = Task(Module(CODE, name="only"))
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A manager, a cluster `lab`, two nodes, and a swarm's file beside its home."""
    folder = tmp_path_factory.mktemp("b")
    (folder / "swarm.py").write_text(SWARM)
    lab = Lab(folder / "h")
    try:
        started = lab.start()
        assert started.returncode == 0, started.stderr
        lab.sign_in(started.stdout)
        lab("cluster", "create", "lab")
        token = lab("node", "token", "lab", "--uses", 2)
        for name in ("n1", "n2"):
            made = ("--manager-host", "127.0.0.1", "--manager-port", str(lab.ports[0]))
            # No sandbox: the tasks of a test touch its files.
            same = ("--runner", RUNNER, "--allow-unsandboxed", "--alias", name, "--id", "alias")
            node(lab, "config", "init", name, *made, *same)
            node(lab, "start", name, "--background", token=token)
        yield lab
    finally:
        for name in ("n1", "n2"):
            node(lab, "stop", name)
        lab.attempt("manager", "stop")


def node(lab: Lab, *arguments: str, token: str = "") -> None:
    subprocess.run(
        [sys.executable, "-m", "manta.node.command", *arguments],
        env={**os.environ, "MANTA_HOME": str(lab.home), "MANTA_NODE_TOKEN": token},
        capture_output=True,
        check=False,
        timeout=60,
    )


def following(lab: Lab, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "manta", *map(str, arguments)],
        env={**os.environ, "MANTA_HOME": str(lab.home), "MANTA_PORT": str(lab.users)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def made(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "backup"
    lab("deploy", "--cluster", "lab", "--follow", lab.home.parent / "swarm.py", "-p", "rounds=2")
    lab("manager", "backup", path)
    return path


def test_verify_finds_what_is_damaged(made: Path, tmp_path: Path) -> None:
    assert verify_file(made).flaws == []
    content = made.read_bytes()
    bad = tmp_path / "bad"
    for at in (len(content) // 3, len(content) // 2, len(content) * 3 // 4):
        bad.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert verify_file(bad).flaws, at
        home = Home(tmp_path / "home")
        with pytest.raises(BackupError, match="Nothing was restored"):
            restore(bad, home)
        assert not home.path.exists()
    bad.write_bytes(content[: len(content) // 2])
    assert verify_file(bad).flaws
    for other in (b"", b"no backup", content[600:]):
        bad.write_bytes(other)
        with pytest.raises(BackupError, match="is not a backup of a manager"):
            verify_file(bad)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad"]


def test_verify_finds_a_blob_that_is_missing_or_another(made: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    restore(made, home)
    found = verify_home(home)
    assert (found.flaws, found.blobs > 0) == ([], True)
    blobs = [path for path in home.blobs.rglob("*") if path.is_file()]
    assert len(blobs) == found.blobs
    blobs[0].unlink()
    blobs[1].write_bytes(b"other")
    flaws = verify_home(home).flaws
    assert len(flaws) == 2
    assert any("not there" in flaw for flaw in flaws)
    assert any("digest is another" in flaw for flaw in flaws)


def test_what_cannot_be_backed_up_or_restored_is_said(lab: Lab, made: Path, tmp_path: Path) -> None:
    for arguments, words in [
        (("backup", made), "is there already"),
        (("backup", tmp_path / "no" / "file"), "No such file or directory"),
        (("backup", tmp_path / "x", "--home", tmp_path), "no manager's database"),
        (("verify", "--home", tmp_path), "no manager's database"),
        (("verify", tmp_path / "missing"), "No such file or directory"),
        (("restore", tmp_path, "--home", tmp_path / "new"), "Is a directory"),
    ]:
        done = lab.attempt("manager", *arguments)
        assert done.returncode == Exit.LOCAL, arguments
        assert done.stderr.startswith("Error: ")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_restored_manager_goes_on_with_its_swarm(lab: Lab, monkeypatch) -> None:
    monkeypatch.setenv("MANTA_HOME", str(lab.home))
    backup = lab.home.parent / "manager.backup"
    file = lab.home.parent / "swarm.py"
    with UserAPI(port=lab.users) as api:
        wait_until(lambda: api.get_cluster("lab").node_count == 2)
        swarm = lab("deploy", "--cluster", "lab", file)
        wait_until(lambda: api.get_swarm(swarm).iteration >= 2)
        assert api.delete_results(swarm, iteration=0) == 2
        lab("manager", "backup", backup)
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
        then = api.get_swarm(swarm).iteration
        wait_until(lambda: api.get_swarm(swarm).iteration >= min(then + 3, ROUNDS - 1))
        assert api.delete_results(swarm, iteration=1) == 2
    refused = lab.attempt("manager", "restore", backup, "--replace")
    assert (refused.returncode, "stop it first" in refused.stderr) == (Exit.LOCAL, True)
    lab("manager", "stop")
    refused = lab.attempt("manager", "restore", backup)
    assert (refused.returncode, "is not empty" in refused.stderr) == (Exit.LOCAL, True)
    said = lab("manager", "restore", backup, "--replace")
    (aside,) = lab.home.glob("manager.2*")
    assert str(aside) in said
    assert lab.start().returncode == 0
    with UserAPI(port=lab.users) as api:
        assert api.get_swarm(swarm).iteration <= then + 1
        ended = api.wait_swarm(swarm, timeout=60)
        assert ended.status == "COMPLETED", ended.reason
        found = [r for r in api.get_swarm_results(swarm, "value") if r.counts]
        assert all(int(result.value[-1]) == result.iteration for result in found)
        each = Counter((result.iteration, result.node_alias) for result in found)
        # What was deleted before the backup stays deleted, what was after it is there again.
        assert each == {(i, alias): 1 for i in range(1, ROUNDS) for alias in ("n1", "n2")}
        lines = {(line.node_alias, line.text) for line in api.collect_logs(swarm)}
        assert lines >= {(alias, f"round {ROUNDS - 1}") for alias in ("n1", "n2")}
        # And with new ones, also when it is restarted under those who follow.
        with following(lab, "deploy", "--cluster", "lab", "--follow", file) as deployed:
            assert deployed.stdout is not None
            swarm = deployed.stdout.readline().strip()
            with following(lab, "logs", "-f", swarm) as logs:
                assert logs.stdout is not None
                first = logs.stdout.readline()
                wait_until(lambda: api.get_swarm(swarm).iteration >= 2)
                lab("manager", "stop")
                assert lab.start().returncode == 0
                told = [deployed.stdout.read(), first + logs.stdout.read()]
                codes = [process.wait(60) for process in (deployed, logs)]
            assert codes == [Exit.OK, Exit.OK], told
        for said in told:
            shown = [line.partition("| ")[2] for line in said.splitlines() if "| round" in line]
            assert Counter(shown) == {f"round {i}": 2 for i in range(ROUNDS)}
    assert "is intact" in lab("manager", "verify")
    lab("manager", "stop")


TWICE = """
from manta import Module, Swarm, Task

CODE = '''
import time
from pathlib import Path
from manta.light import World

FOLDER = Path({folder!r})

def until(name):
    while not (FOLDER / name).exists():
        time.sleep(0.02)

def main():
    world = World()
    number = len(list(FOLDER.glob(f"began-{{world.rank}}-*")))
    (FOLDER / f"began-{{world.rank}}-{{number}}").touch()
    if number == 0:
        until("fail")
        raise RuntimeError("it fails")
    world.results.add("value", number)
    until("finish")
'''

class Twice(Swarm):
    def __init__(self) -> None:
        super().__init__()
        self.only = Task(Module(CODE, name="only"), retries=3)
"""


def test_what_ran_in_a_past_that_was_lost_does_not_run_on_under_the_same_name(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that began after the backup has written a result, which is lost."""
    monkeypatch.setenv("MANTA_HOME", str(lab.home))
    lab.start()
    (file := tmp_path / "swarm.py").write_text(TWICE.format(folder=str(tmp_path)))

    def began(number: int) -> Callable[[], bool]:
        paths = [tmp_path / f"began-{rank}-{number}" for rank in (0, 1)]
        return lambda: all(path.exists() for path in paths)

    with UserAPI(port=lab.users) as api:
        wait_until(lambda: api.get_cluster("lab").node_count == 2)
        swarm = lab("deploy", "--cluster", "lab", file)
        wait_until(began(0))
        lab("manager", "backup", path := tmp_path / "manager.backup")
        (tmp_path / "fail").touch()
        wait_until(lambda: len(api.get_swarm_results(swarm, "value")) == 2)
    lab("manager", "stop")
    lab("manager", "restore", path, "--replace")
    assert lab.start().returncode == 0
    with UserAPI(port=lab.users) as api:
        wait_until(began(2))
        (tmp_path / "finish").touch()
        ended = api.wait_swarm(swarm, timeout=60)
        assert ended.status == "COMPLETED", ended.reason
        found = [one.value for one in api.get_swarm_results(swarm, "value") if one.counts]
        assert len(found) == 2
        assert min(found) >= 2
    lab("manager", "stop")
