"""Output, input and folders that are not what a command hopes for: one sentence, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manta.apis.errors import InvalidSwarm
from manta.cli.loading import load_swarm
from manta.console.exit_codes import Exit
from tests.support.lab import manta


def printing_to(stdout: int, *arguments: object, home: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "manta", *map(str, arguments)],
        env={**os.environ, "MANTA_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


COMMANDS = [("--version",), ("run", "--help"), ("config", "list"), ("config", "show", "--json")]


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_full_disk_below_the_output(arguments: tuple[str, ...], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        code, said = printing_to(full.fileno(), *arguments, home=tmp_path)
    assert code == Exit.LOCAL
    assert said == "Error: What is printed cannot be written: No space left on device.\n"


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_reader_that_went_away_is_no_fault(arguments: tuple[str, ...], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        assert printing_to(write, *arguments, home=tmp_path) == (Exit.OK, "")
    finally:
        os.close(write)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_without_an_output_there_is_nothing_to_say(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    command = f'exec "$0" -m manta {" ".join(arguments)} <&- >&-'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable],
        env={**os.environ, "MANTA_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (Exit.OK, "")


def test_what_the_locale_cannot_show_is_a_question_mark(tmp_path: Path) -> None:
    done = manta("new", tmp_path / "b✓", MANTA_HOME=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert f"Created {tmp_path}/b?." in done.stdout


def test_a_question_at_the_end_of_the_input(tmp_path: Path) -> None:
    done = manta("sign-in", MANTA_HOME=tmp_path)
    assert done.returncode == Exit.USAGE
    assert (
        done.stderr
        == "\nError: The input ended before it was answered: see --help for the option.\n"
    )


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    done = manta("up", "--nodes", 0, MANTA_HOME=tmp_path / "home")
    assert done.returncode == Exit.LOCAL
    assert done.stderr.startswith(f"Error: {tmp_path}/home cannot be read or written")


def test_a_project_that_cannot_be_made(tmp_path: Path) -> None:
    done = manta("new", "/proc/project", MANTA_HOME=tmp_path)
    assert done.returncode == Exit.LOCAL
    assert done.stderr.startswith("Error: /proc/project can't be written (")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\0", "Syntax error in .*swarm.py .*null bytes"), (None, "swarm.py is a folder")],
)
def test_a_swarm_s_file_that_is_none(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "swarm.py"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(InvalidSwarm, match=words):
        load_swarm(str(file), {})
