"""`--json`: docs/json.md is what every command prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from manta import Mesh
from manta.cli.main import cli
from manta.console.json_form import dumps
from manta.testing import wait_until
from tests.support.lab import Lab

DOCUMENT = Path(__file__).parents[3] / "docs" / "json.md"
PASSWORD = "correct horse battery"
SWARM = '''
from manta import Module, Swarm, Task

CODE = """
from manta.light import World

def main():
    world = World()
    print("hello")
    world.log_metrics({"loss": float("nan"), "step": 1.0})
    world.results.add("value", float("inf"))
    world.globals["last"] = b"bytes"
"""

class Measured(Swarm):
    def __init__(self) -> None:
        super().__init__()
        self.only = Task(Module(CODE, name="only"))
'''
PAIR = '''
from manta import Module, Swarm, Task

CODE = """
import time
from manta.light import World

def main():
    world = World()
    world.broadcast(f"from {world.rank}", 1)
    world.get_broadcast(f"from {1 - world.rank}")
    time.sleep(600)
"""

class Pair(Swarm):
    def __init__(self) -> None:
        super().__init__()
        self.each = Task(Module(CODE, name="each"))
'''


def table(heading: str) -> dict[str, tuple[str, set[str]]]:
    """Command -> what it prints, and the fields."""
    rows = DOCUMENT.read_text().partition(heading)[2].partition("\n## ")[0].splitlines()
    found = {}
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if row.startswith("| ") and len(cells) == 3 and cells[0] != "command":
            fields = {field for field in cells[2].split(", ") if field}
            found.update(dict.fromkeys(cells[0].split(", "), (cells[1], fields)))
    return found


def nested(heading: str) -> dict[str, set[str]]:
    section = DOCUMENT.read_text().partition(heading)[2].partition("\n## ")[0]
    rows = section.partition("| nested |")[2].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]
    return {name: set(fields.split(", ")) for name, fields in cells}


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from leaves(below, (*path, name))
    else:
        yield " ".join(path)


class Shell:
    """Runs commands with --json, and keeps what each printed."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.printed: dict[str, list[Any]] = {}

    def __call__(
        self, row: str, *arguments: object, said: str = "", ok: int = 0, **environment: str
    ) -> Any:
        words = [*row.removesuffix(" TASK").split(), *arguments]
        done = self.lab.attempt(*words, "--json", said=said, **environment)
        assert done.returncode == ok, (words, done.stdout, done.stderr)
        self.printed[row] = records = parsed(row, table("## manta\n")[row][0], done.stdout)
        return records[0] if records else None


def parsed(row: str, form: str, text: str) -> list[Any]:
    """The records that a command printed, which is documented as of that form."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{row} printed {constant}, which is no JSON")

    if form == "lines":
        found = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    else:
        found = json.loads(text, parse_constant=refuse)
        assert isinstance(found, list if form == "list" else dict), row
        found = found if form == "list" else [found]
    assert all(isinstance(record, dict) for record in found), row
    return found


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    lab = Lab(tmp_path / "home")
    shell = Shell(lab, tmp_path)
    try:
        yield shell
    finally:
        for name in ("default", "second"):
            node(shell, "stop", name)
        lab.attempt("manager", "stop")


def node(shell: Shell, *arguments: str, token: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "manta.node.command", *arguments],
        env={**os.environ, "MANTA_HOME": str(shell.lab.home), "MANTA_NODE_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_every_command_prints_what_the_page_says(shell: Shell, monkeypatch) -> None:
    monkeypatch.chdir(shell.folder)
    documented = table("## manta\n")
    silent = {name for name, (form, _) in documented.items() if form == "no JSON"}
    variants = {
        "explain TASK",
        "explain --result",
        "pull --verify",
        "results --delete",
        "up --stop",
    }
    assert set(leaves(cli)) | variants == set(documented)

    names = ("--node-port", "--user-port", "--bulk-port")
    ports = [str(x) for pair in zip(names, shell.lab.ports, strict=True) for x in pair]
    started = shell("manager start", "--host", "127.0.0.1", "--background", *ports)
    assert shell("manager status")["running"] is True
    admin = ("--email", "admin@localhost", "--password-stdin")
    shell("sign-in", *admin, said=started["first_password"])
    everything_of_users(shell)
    everything_of_clusters_and_swarms(shell)
    token = shell.lab.token
    shell("token use", said=token)
    shell("token show")
    shell("whoami")
    shell("token key")
    shell("token create")
    shell("token rotate")
    shell("sign-out")
    (shell.folder / "table.csv").write_text("y\n1\n2\n")
    shell("data partition", "table.csv", "--nodes", 2, "--iid")
    shell("config list")
    shell("config set", "port", 50052, "--profile", "lab")
    shell("config use", "lab")
    shell("config show")
    shell("config rm", "lab", "--yes")
    shell("manager verify")
    assert shell("manager audit verify")["intact"] is True
    shell("manager audit export")
    shell("manager backup", "manager.backup")
    shell("manager stop")
    shell("manager reset-password")
    shell("manager restore", "manager.backup", "--replace")

    shell("up", "--nodes", 1, "--background")
    shell("up --stop")

    shell("mesh key", "mine/key")
    with Mesh.join(secret=(secret := "what all know")) as mesh:
        shown = shell("mesh status", mesh.address, MANTA_MESH_SECRET=secret)
        assert [one["id"] for one in shown["peers"]] == [mesh.id]

    assert set(shell.printed) == set(documented) - silent
    inner = nested("## manta\n")
    for row, records in shell.printed.items():
        assert records, row
        expected = documented[row][1]
        for record in records:
            assert set(record) == expected, row
            for name, fields in inner.items():
                value = record.get(name) or []
                for item in value if isinstance(value, list) else [value]:
                    assert set(item) == fields, (row, name)
    assert [r["metrics"] for r in shell.printed["metrics"]] == [{"loss": None, "step": 1.0}]
    assert [r["value"] for r in shell.printed["results"]] == [None]
    assert [r["value"] for r in shell.printed["globals"]] == [{"bytes": 5}]


def everything_of_users(shell: Shell) -> None:
    shell("user add", "ada@example.org", "--password-stdin", said=PASSWORD)
    shell("user list")
    shell("user show")
    shell("cluster create", "lab")
    shell("role list")
    shell("role create", "reader", "swarm.read")
    shell("role grant", "ada@example.org", "reader", "--cluster", "lab")
    shell("user list")
    shell("quota show", "--cluster", "lab")
    shell("quota set", "clusters", 3, "--user", "ada@example.org")
    shell("role revoke", "ada@example.org", "--cluster", "lab")
    shell("role rm", "reader")
    shell("token revoke", "ada@example.org", "--yes")
    shell("user rm", "ada@example.org")
    password = shell.printed["manager start"][0]["first_password"]
    shell("user passwd", "--password-stdin", said=f"{password}\n{PASSWORD}\n")
    shell("sign-in", "--email", "admin@localhost", "--password-stdin", said=PASSWORD)


def everything_of_clusters_and_swarms(shell: Shell) -> None:
    for row in ("cluster show", "cluster stop", "cluster start"):
        shell(row, "lab")
    shell("cluster list")
    token = shell("node token", "lab", "--uses", 2)["token"]
    port = str(shell.lab.ports[0])
    made = ("--manager-host", "127.0.0.1", "--manager-port", port, "--allow-unsandboxed")
    node(shell, "config", "init", *made, "--alias", "n1")
    assert "connected" in node(shell, "start", "--background", token=token).lower()
    shell("node list", "lab")
    shell("node show", "n1")
    everything_of_links(shell, made, token)

    (shell.folder / "worker.py").write_text("def main():\n    pass\n")
    shell("module push", "worker.py")
    shell("module list")
    for row in ("module share", "module unshare"):
        shell(row, "worker", "--cluster", "lab")
    for row in ("module show", "module rm"):
        shell(row, "worker")
    project = shell("new", "project")
    assert project["files"]
    (shell.folder / "swarm.py").write_text(SWARM)
    assert shell("check", "--cluster", "lab", "swarm.py")["placements"]
    swarm = shell("deploy", "--cluster", "lab", "swarm.py")["swarm_id"]
    wait_until(lambda: shell("ps")["status"] == "COMPLETED")
    for row in ("explain", "logs", "metrics", "plot", "results", "globals", "replay"):
        shell(row, swarm)
    assert shell("compare", swarm, swarm)["modules"][0]["status"] == "same"
    assert shell("explain TASK", f"{swarm}.only.0")["status"] == "FINISHED"
    [made] = shell("explain --result", "value", swarm)["made"]
    assert made["module"]
    pulled = shell("pull", swarm)["folder"]
    assert shell("pull --verify", pulled)["intact"] is True
    assert shell("results --delete", swarm, "--yes")["deleted"] == 1
    slow = SWARM.replace('print("hello")', "import time; time.sleep(60)")
    (shell.folder / "slow.py").write_text(slow)
    long = shell("deploy", "--cluster", "lab", "slow.py")["swarm_id"]
    wait_until(lambda: not shell.lab.attempt("stack", f"{long}.only").returncode)
    assert "in main" in shell("stack", f"{long}.only")["text"]
    for row in ("pause", "resume", "stop", "rm"):
        shell(row, long)
    assert shell("run", "swarm.py", "--nodes", 1)["status"] == "COMPLETED"
    shell("tree")
    shell("tree", "--node", "n1")
    shell("node drain", "n1")
    wait_until(lambda: "stopped" in node(shell, "status"))
    assert "connected" in node(shell, "start", "--background").lower()
    wait_until(lambda: shell("node show", "n1")["status"] == "CONNECTED")
    shell("node stop", "n1")
    shell("node rm", "n1", "--yes")
    shell("cluster rm", "lab", "--yes")


def everything_of_links(shell: Shell, made: tuple[str, ...], token: str) -> None:
    """With a second node, while tasks on both exchange."""
    node(shell, "config", "init", "second", *made, "--alias", "n2", "--id", "random")
    assert "connected" in node(shell, "start", "second", "--background", token=token).lower()
    (shell.folder / "pair.py").write_text(PAIR)
    pair = shell("deploy", "--cluster", "lab", "pair.py")["swarm_id"]
    wait_until(lambda: shell("node links", "n1") is not None)
    for row in ("stop", "rm"):
        shell(row, pair)
    node(shell, "stop", "second")
    shell("node rm", "n2", "--yes")


def test_errors_go_to_standard_error(tmp_path: Path) -> None:
    done = Lab(tmp_path).attempt("ps", "--json")
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")


def test_what_json_has_no_form_for() -> None:
    import numpy as np

    value = {"nan": float("nan"), 1: [np.float32(0.5), np.arange(3), np.zeros(2000)], "b": b"xyz"}
    assert json.loads(dumps(value)) == {
        "nan": None,
        "1": [0.5, [0, 1, 2], {"dtype": "float64", "shape": [2000]}],
        "b": {"bytes": 3},
    }
