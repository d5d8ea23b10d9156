"""`manta config ...` and `manta completion`, as commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.transports.security.keys import KeyPair
from tests.support.lab import manta


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def said(home: Path, *arguments: object, **environment: object) -> str:
    done = manta("config", *arguments, MANTA_HOME=home, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def origins(home: Path, *arguments: object, **environment: object) -> dict[str, tuple]:
    records = json.loads(said(home, "show", "--json", *arguments, **environment))
    return {record["setting"]: (record["value"], record["origin"]) for record in records}


def test_each_value_says_where_it_came_from(home: Path) -> None:
    key = KeyPair.generate().public
    said(home, "set", "host", "h1", "--profile", "lab")
    said(home, "set", "port", "1234", "--profile", "lab")
    said(home, "set", "server_key", key, "--profile", "lab")
    assert origins(home)["host"] == ("localhost", "default")
    assert origins(home, "--profile", "lab") == {
        "home": (str(home), "MANTA_HOME"),
        "profile": ("lab", "argument"),
        "host": ("h1", "profile lab"),
        "port": (1234, "profile lab"),
        "token": (None, "default"),
        "server_key": (key, "profile lab"),
    }
    assert origins(home, MANTA_PROFILE="lab")["profile"] == ("lab", "MANTA_PROFILE")
    elsewhere = origins(home, MANTA_PROFILE="lab", MANTA_PORT=5)
    assert elsewhere["port"] == (5, "MANTA_PORT")
    assert elsewhere["server_key"] == (None, "default")  # it is of another address
    assert "ORIGIN" in said(home, "show", "--origin")
    assert "ORIGIN" not in said(home, "show")


def test_the_profile_in_use(home: Path) -> None:
    assert said(home, "list") == "No profiles yet: `manta sign-in` creates one.\n"
    for name in ("lab", "field"):
        said(home, "set", "host", name, "--profile", name)
    said(home, "use", "field")
    assert origins(home)["host"] == ("field", "profile field")
    used = [record["name"] for record in json.loads(said(home, "list", "--json")) if record["used"]]
    assert used == ["field"]
    said(home, "set", "port", "7")
    assert origins(home)["port"] == (7, "profile field")
    said(home, "rm", "field", "--yes")
    assert origins(home)["host"] == ("localhost", "default")
    assert [record["name"] for record in json.loads(said(home, "list", "--json"))] == ["lab"]
    said(home, "use", "default")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("use", "none"), Exit.LOCAL, "There is no profile 'none'"),
        (("rm", "none", "--yes"), Exit.LOCAL, "There is no profile 'none'"),
        (("set", "port", "0"), Exit.USAGE, "'0' is not a port"),
        (("set", "port", "x"), Exit.USAGE, "'x' is not a port"),
        (("set", "host", ""), Exit.USAGE, "host is ''"),
        (("set", "host", "a b"), Exit.USAGE, "host is 'a b': it must be a host's name or address"),
        (("set", "server_key", "short"), Exit.USAGE, "server_key"),
        (("set", "colour", "red"), Exit.USAGE, "colour"),
        (("set", "host", "h", "--profile", "../x"), Exit.USAGE, "The profile's name is '../x'"),
        (("use", "a b"), Exit.USAGE, "The profile's name is 'a b'"),
        (("show", "--profile", "none"), Exit.LOCAL, "There is no profile 'none'"),
    ],
)
def test_refusals(home: Path, arguments: tuple, code: Exit, message: str) -> None:
    done = manta("config", *arguments, MANTA_HOME=home)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == code


def test_a_damaged_choice_of_profile_is_named(home: Path) -> None:
    said(home, "set", "host", "h", "--profile", "lab")
    said(home, "use", "lab")
    (home / "profiles" / "in-use").write_text("{")
    done = manta("config", "show", MANTA_HOME=home)
    assert done.returncode == Exit.LOCAL
    assert "in-use is not valid" in done.stderr


def test_a_mistyped_command_gets_a_suggestion() -> None:
    done = manta("dploy")
    assert done.returncode == Exit.USAGE
    assert "Did you mean 'deploy'?" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = manta("completion", shell)
    assert done.returncode == 0
    assert "_MANTA_COMPLETE" in done.stdout


def test_bash_completes_a_command() -> None:
    assert shutil.which("bash")
    script = (
        'eval "$(manta completion bash)"; COMP_WORDS=(manta ex); COMP_CWORD=1; '
        '_manta_completion manta; echo "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["explain"], done.stderr
