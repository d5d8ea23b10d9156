"""`manta_node config` as an operator calls it, each time in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.node.state import StateFolder

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "manta.node.command", "config", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "MANTA_HOME": str(tmp_path), **environment},
        )
        assert "Traceback" not in done.stderr
        return done

    assert run("init", "edge", "--alias", "edge-7").returncode == 0
    return run


def editor(code: str) -> str:
    """An editor that works on `text`."""
    program = (
        "import pathlib, sys; path = pathlib.Path(sys.argv[1]); text = path.read_text(); "
        f"{code}; path.write_text(text)"
    )
    return shlex.join([sys.executable, "-c", program])


def test_lists_and_shows_as_json(call: Call, tmp_path: Path) -> None:
    path = str(tmp_path / "nodes" / "edge.toml")
    assert json.loads(call("list", "--json").stdout) == [
        {"name": "edge", "path": path, "pid": None}
    ]
    shown = call("show", "edge", "--json", MANTA_NODE_TOKEN="hunter2").stdout
    assert json.loads(shown)["identity"]["alias"] == "edge-7"
    assert json.loads(shown)["network"]["manager_port"] == 50051
    assert "hunter2" not in shown


def test_validity_as_json(call: Call, tmp_path: Path) -> None:
    assert json.loads(call("validate", "edge", "--json").stdout)["valid"] is True
    with open(tmp_path / "nodes" / "edge.toml", "a") as file:
        file.write("[resources]\nreserve_memory_mb = 'much'\n")
    wrong = call("validate", "edge", "--json")
    assert wrong.returncode == Exit.LOCAL
    assert "reserve_memory_mb" in json.loads(wrong.stdout)["flaws"][0]["wrong"]
    absent = call("validate", "nobody", "--json")
    assert absent.returncode == Exit.NOT_FOUND
    assert "config init nobody" in json.loads(absent.stdout)["flaws"][0]["remedy"]


def test_what_start_refuses_is_not_valid(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "nodes" / "edge.toml"
    path.write_text("[identity]\nsecured_token = 'hunter2'\n")
    path.chmod(0o644)
    done = call("validate", "edge")
    assert done.returncode == Exit.LOCAL
    assert "open to other users (mode 0644)" in done.stderr
    path.write_bytes(b"a = '\xff'\n")
    done = call("validate", "edge")
    assert done.returncode == Exit.LOCAL
    assert "it is not text in UTF-8" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--manager-host", "bad/host", "manager_host is 'bad/host'; it must be a host's name"),
        ("--manager-host", "a:0", "it must have a port from 1 to 65535"),
        ("--alias", "a b", "identity.alias is 'a b'; it must be a name"),
        ("--manager-port", "99999", "'--manager-port': 99999 is not in the range"),
        ("--label", "room", "--label 'room' is not of the form"),
    ],
)
def test_a_wrong_answer_is_a_wrong_command_line(
    call: Call, tmp_path: Path, option: str, value: str, words: str
) -> None:
    done = call("init", "other", option, value)
    assert done.returncode == Exit.USAGE
    assert words in done.stderr
    assert not (tmp_path / "nodes" / "other.toml").exists()


def test_the_image_of_modules_that_name_none(call: Call) -> None:
    assert call("init", "other", "--default-image", "python:3.12-slim").returncode == 0
    shown = json.loads(call("show", "other", "--json").stdout)
    assert shown["containers"]["default_image"] == "python:3.12-slim"


def test_a_dataset_that_is_not_there_yet_is_told_when_it_is_mapped(call: Call) -> None:
    done = call("init", "other", "--dataset", "late=/nowhere/at/all")
    assert done.returncode == 0
    assert "Note: the dataset 'late' is mapped to /nowhere/at/all" in done.stderr


def test_an_edited_configuration_replaces_the_old_one(call: Call, tmp_path: Path) -> None:
    done = call("edit", "edge", VISUAL=editor("text = text.replace('edge-7', 'edge-8')"))
    assert done.returncode == 0, done.stderr
    path = tmp_path / "nodes" / "edge.toml"
    assert 'alias = "edge-8"' in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "unchanged" in call("edit", "edge", VISUAL=editor("pass")).stdout
    assert [entry.name for entry in path.parent.iterdir()] == ["edge.toml"]


def test_an_edited_configuration_that_is_wrong_is_kept_as_a_draft(
    call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "nodes" / "edge.toml"
    before = path.read_text()
    wrong = call("edit", "edge", VISUAL=editor("text += '[labels]\\nroom = 3\\n'"))
    assert wrong.returncode == Exit.LOCAL
    assert "labels.room is 3; it must be a text" in wrong.stderr
    assert ".edge.draft" in wrong.stderr
    assert path.read_text() == before
    mended = call("edit", "edge", VISUAL=editor("text = text.replace('room = 3', 'room = \"b\"')"))
    assert mended.returncode == 0, mended.stderr
    assert 'room = "b"' in path.read_text()


@pytest.mark.parametrize(
    ("program", "words"),
    [("false", "failed"), ("/nowhere/editor", "set VISUAL or EDITOR"), ("'", "set VISUAL")],
)
def test_an_editor_that_fails_changes_nothing(
    call: Call, tmp_path: Path, program: str, words: str
) -> None:
    before = (tmp_path / "nodes" / "edge.toml").read_text()
    done = call("edit", "edge", VISUAL=program)
    assert done.returncode == Exit.LOCAL
    assert words in done.stderr
    assert (tmp_path / "nodes" / "edge.toml").read_text() == before
    assert [entry.name for entry in (tmp_path / "nodes").iterdir()] == ["edge.toml"]


def test_deleting(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "nodes" / "edge.toml"
    state = StateFolder(tmp_path / "state" / "nodes" / "edge")
    asked = call("delete", "edge")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    lock = state.open()
    try:
        refused = call("delete", "edge", "--yes", "--state")
        assert refused.returncode == Exit.LOCAL
        assert "manta_node stop edge" in refused.stderr
        assert json.loads(call("list", "--json").stdout)[0]["pid"] == os.getpid()
    finally:
        lock.release()
    assert path.exists()
    assert call("delete", "edge", "--yes").returncode == 0
    assert not path.exists()
    assert state.path.exists()
    absent = call("delete", "edge", "--yes")
    assert absent.returncode == Exit.NOT_FOUND
    assert "no configuration 'edge'" in absent.stderr
    assert call("init", "edge").returncode == 0
    assert call("delete", "edge", "--yes", "--state").returncode == 0
    assert not state.path.exists()


def test_what_cannot_be_deleted_leaves_the_key(call: Call, tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state" / "nodes" / "edge")
    state.open().release()
    key = state.key().public
    (state.path / "node.log").write_text("said\n")
    stuck = state.tasks / "left"
    stuck.mkdir()
    mount = ["mount", "-t", "tmpfs", "left", str(stuck)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        done = call("delete", "edge", "--yes", "--state")
    finally:
        subprocess.run(["umount", stuck], check=True)
    assert done.returncode == Exit.LOCAL
    assert f"{state.tasks} could not be removed completely" in done.stderr
    assert state.key().public == key
    assert (tmp_path / "nodes" / "edge.toml").exists()
    (state.tasks / "locked").mkdir()
    (state.tasks / "locked" / "file").touch()
    (state.tasks / "locked").chmod(0)
    assert call("delete", "edge", "--yes", "--state").returncode == 0
    assert not state.path.exists()


def test_a_count_of_nodes_that_cannot_be_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manta.node.command", "cluster", "0"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MANTA_HOME": str(tmp_path)},
    )
    assert done.returncode == Exit.USAGE
    assert "Invalid value for 'N': 0 is not in the range" in done.stderr


@pytest.mark.parametrize("name", ["", "  "])
@pytest.mark.parametrize("command", ["start", "stop", "status", "logs", "doctor", "cluster stop"])
def test_a_name_that_can_be_no_nodes_is_wrong_usage(
    tmp_path: Path, command: str, name: str
) -> None:
    words = [*command.split(), *(["--config"] if " " in command else []), name]
    done = subprocess.run(
        [sys.executable, "-m", "manta.node.command", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MANTA_HOME": str(tmp_path)},
    )
    assert done.returncode == Exit.USAGE, done.stderr
    assert f"{name!r} is not a name for a configuration" in done.stderr


def test_status_of_the_default_node_says_that_there_are_others(call: Call, tmp_path: Path) -> None:
    assert call("init").returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "manta.node.command", "status"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MANTA_HOME": str(tmp_path)},
    )
    assert done.returncode == Exit.UNREACHABLE
    assert "The node default is stopped." in done.stdout
    assert "there are others, which `manta_node status --all` shows: edge." in done.stdout


def test_the_home_of_another_user_is_not_taken_for_an_empty_one(call: Call, tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root can be another user")
    code = (
        "import os, manta.node.state\n"
        "from manta.node.daemon import places\n"
        "os.seteuid(65534)\n"
        "for find in (places.names, places.members):\n"
        "    try: print(find())\n"
        "    except PermissionError as error: print(error.filename)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MANTA_HOME": str(tmp_path)},
    )
    folders = [str(tmp_path / "nodes"), str(tmp_path / "state" / "nodes")]
    assert done.stdout.splitlines() == folders


def test_no_nodes_are_an_empty_list(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manta.node.command", "status", "--all", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MANTA_HOME": str(tmp_path)},
    )
    assert (done.returncode, json.loads(done.stdout)) == (Exit.UNREACHABLE, [])
