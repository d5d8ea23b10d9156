"""Without a home folder, or in a folder that was removed: one sentence, no fault of Manta's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from tests.support.lab import manta

BIN = Path(sys.executable).parent
NOBODY = "import os, sys; os.getuid = lambda: 54321; import pwd; from {} import main; main()"
SWARM = """
from manta import Module, Swarm, Task
class Tiny(Swarm):
    def execute(self):
        return Task(Module("def main():\\n    pass\\n", name="tiny"))
"""


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("manta.__main__", "ps"),
        ("manta.__main__", "config list"),
        ("manta.__main__", "config set host lab.example"),
        ("manta.__main__", "up --background"),
        ("manta.__main__", "manager status"),
        ("manta.__main__", "sign-in --email ada@example.org --password-stdin"),
        ("manta.node.command", "status"),
        ("manta.node.command", "start"),
        ("manta.node.command", "config init edge"),
        ("manta.node.command", "doctor"),
    ],
)
def test_a_user_without_a_home(module: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", NOBODY.format(module), *words.split()],
        env={"PATH": os.environ["PATH"]},
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.LOCAL, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "Error: The user 54321 has no home folder: set MANTA_HOME to a folder for Manta's files, "
        "or HOME."
    )


@pytest.fixture
def gone(tmp_path: Path) -> str:
    """What a shell does to begin in a folder that is not there any more."""
    return f"mkdir {tmp_path}/gone && cd {tmp_path}/gone && rmdir {tmp_path}/gone && exec "


def call(gone: str, home: Path, words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"{gone} {BIN}/{words}"],
        env={**os.environ, "MANTA_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "words",
    [
        "manta manager start --home relative",
        "manta manager backup file",
        "manta run swarm.py",
        "manta run /{}/swarm.py --dataset d=relative",
        "manta new folder",
        "manta_node config init edge --dataset d=relative",
    ],
)
def test_a_working_folder_that_is_gone(tmp_path: Path, gone: str, words: str) -> None:
    (tmp_path / "swarm.py").write_text(SWARM)
    done = call(gone, tmp_path / "home", words.format(tmp_path))
    assert done.returncode not in (0, Exit.INTERNAL), done.stdout
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "Manta's own" not in last


def test_what_needs_no_working_folder_works_without(tmp_path: Path, gone: str) -> None:
    (tmp_path / "swarm.py").write_text(SWARM)
    done = call(gone, tmp_path / "home", f"manta run {tmp_path}/swarm.py --nodes 1")
    assert done.returncode == 0, done.stderr


def test_settings_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for turn in range(3):
        settings = {"host": f"lab-{turn}.example", "port": str(50060 + turn)}
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(manta, "config", "set", key, value, MANTA_HOME=home)
                for key, value in settings.items()
                for _ in range(2)
            ]
            assert [job.result().returncode for job in jobs] == [0] * 4
        kept = json.loads((home / "profiles" / "default.json").read_text())
        assert kept == {"host": settings["host"], "port": int(settings["port"])}


@pytest.mark.parametrize("program", ["~nobody-at-all/worker.py", "~"])
def test_the_home_of_a_user_that_is_not_there(tmp_path: Path, program: str) -> None:
    (tmp_path / "swarm.py").write_text(SWARM.replace('"def main():\\n    pass\\n"', repr(program)))
    done = manta("run", tmp_path / "swarm.py", MANTA_HOME=tmp_path, TMPDIR="/tmp")
    assert done.returncode == Exit.INVALID_SWARM
    assert "was not found" in done.stderr
    dataset = manta("run", tmp_path / "swarm.py", "--dataset", "d=~nobody-at-all/x", TMPDIR="/tmp")
    assert dataset.returncode == Exit.LOCAL
    assert "is not there" in dataset.stderr
