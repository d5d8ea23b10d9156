"""What lies in the working folder, however it is called, is no part of Manta's processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_ports

BIN = Path(sys.executable).parent
INSTALLED = ("click", "manta", "msgpack", "msgspec", "pykka", "zmq")
SWARM = """
from helper import SOURCE
from manta import Module, Swarm, Task
class Hello(Swarm):
    def execute(self):
        return Task(Module(SOURCE, name='hello'))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every name that Python's own modules have, and those of what Manta needs."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in (*sys.stdlib_module_names, *INSTALLED, "light", "node"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py was run')\n")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def call(
    folder: Path, home: Path, *words: str, said: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MANTA_")}
    return subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        cwd=folder,
        env={**kept, "MANTA_HOME": str(home), **environment},
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_run_takes_the_helper_beside_the_swarm_and_nothing_else(folder: Path, home: Path) -> None:
    for name in ("click", "manta", "msgpack"):  # what is installed comes after one's own files
        (folder / f"{name}.py").unlink()
    (folder / "helper.py").write_text("import random\nSOURCE = 'def main():\\n    return 1'\n")
    (folder / "swarm.py").write_text(SWARM)
    done = call(folder, home, "manta", "run", "swarm.py", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "COMPLETED"


def test_up_starts_where_files_have_the_names_of_modules(folder: Path, home: Path) -> None:
    try:
        done = call(folder, home, "manta", "up", "--nodes", "1", "--background")
        assert done.returncode == 0, done.stderr
    finally:
        call(folder, home, "manta", "up", "--stop")


def test_a_manager_and_a_node_start_there_too(folder: Path, home: Path) -> None:
    def must(line: str, said: str = "", **environment: str) -> str:
        done = call(folder, home, *line.split(), said=said, **environment)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    nodes, users, bulk = free_ports()
    ports = f"--node-port {nodes} --user-port {users} --bulk-port {bulk}"
    try:
        shown = must(f"manta manager start --background --host 127.0.0.1 {ports}")
        (password,) = re.findall(r"password\s+(\S+)", shown)
        port = {"MANTA_PORT": str(users)}
        must("manta sign-in --email admin@localhost --password-stdin", password, **port)
        must("manta cluster create lab", **port)
        token = must("manta node token lab", **port).strip()
        where = f"--manager-host 127.0.0.1 --manager-port {nodes}"
        must(f"manta_node config init edge {where} --id random --allow-unsandboxed")
        assert "Connected to" in must("manta_node start edge --background", MANTA_NODE_TOKEN=token)
    finally:
        call(folder, home, "manta_node", "stop", "edge")
        call(folder, home, "manta", "manager", "stop")


@pytest.mark.parametrize("module", ["manta", "manta.node.command"])
def test_the_commands_start_there_as_modules_too(folder: Path, home: Path, module: str) -> None:
    for name in ("types", "importlib", "runpy", "pkgutil", "warnings", "io", "manta"):
        (folder / f"{name}.py").unlink()  # Python itself imports these for `python -m`
    done = call(folder, home, "python", "-m", module, "--help")
    assert done.returncode == 0, done.stderr
    assert "was run" not in done.stderr
