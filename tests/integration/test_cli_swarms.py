"""What is done to swarms and read of them from the command line, by real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manta.cli.exit_codes import Exit
from manta.cli.local import CLUSTER, HOST, LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from manta.transports.keys import write_private

pytestmark = pytest.mark.timeout(120)

SWARM = '''
from manta import Module, Swarm, Task

CODE = """
import time
import numpy as np
from manta.light import World

def main():
    world = World()
    print("line of", world.rank)
    world.log_metrics({"loss": 0.5})
    world.results.add("small", [world.rank])
    world.results.add("array", np.arange(5))
    world.globals["last"] = world.iteration
    time.sleep(PAUSE)
"""

class Measured(Swarm):
    def __init__(self, pause: float = 0.0, dataset: str = "") -> None:
        super().__init__(max_iteration=2)
        code = CODE.replace("PAUSE", str(pause))
        self.only = Task(Module(code, name="only", datasets=dataset or None))
        self.set_global("rate", 0.1)
'''


class Shell:
    """Commands of a user whose profile leads to the cluster."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.folder = folder

    def attempt(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MANTA_")}
        return subprocess.run(
            [sys.executable, "-m", "manta.cli.main", *map(str, arguments)],
            env={**kept, "MANTA_HOME": str(self.home)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def __call__(self, *arguments: object) -> str:
        done = self.attempt(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))

    def deploy(self, *parameters: object) -> str:
        return self("deploy", "--cluster", CLUSTER, "swarm.py", *parameters).strip()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("folder")
    (folder / "swarm.py").write_text(SWARM)
    with running(LocalCluster, 2) as cluster:
        with client(cluster) as api:
            wait_for_nodes(api, 2)
        profile = {
            "host": HOST,
            "port": cluster.user_port,
            "server_key": cluster.manager_keys.public,
        }
        write_private(home / "profiles" / "default.json", json.dumps(profile))
        cluster.keys.save(home / "keys" / "default.key")
        yield Shell(home, folder)


@pytest.fixture(scope="module")
def finished(shell: Shell) -> str:
    """The id of a swarm that has run."""
    return shell("deploy", "--cluster", CLUSTER, "--follow", "swarm.py").split()[0]


def test_globals(shell: Shell, finished: str) -> None:
    shown = shell("globals", finished)
    assert "last" in shown
    assert shell.json("globals", finished) == [
        {"tag": "last", "value": 1},
        {"tag": "rate", "value": 0.1},
    ]
    assert len(shell.json("globals", finished, "--tag", "rate")) == 1
    unknown = shell.attempt("globals", finished, "--tag", "rte")
    assert unknown.returncode == Exit.NOT_FOUND
    assert "it has last, rate" in unknown.stderr


def test_metrics(shell: Shell, finished: str) -> None:
    lines = shell("metrics", "-f", finished).splitlines()
    assert len(lines) == 4
    assert "only.0 on node-1  loss 0.5" in "\n".join(lines)
    records = [json.loads(line) for line in shell("metrics", finished, "--json").splitlines()]
    assert [record["metrics"] for record in records] == [{"loss": 0.5}] * 4


def test_logs_of_one_task_or_node_and_of_none(shell: Shell, finished: str) -> None:
    assert len(shell("logs", finished, "--task", "only").splitlines()) == 4
    assert len(shell("logs", finished, "--node", "node-2").splitlines()) == 2
    assert len(shell("logs", "-f", finished, "--node", "node-2", "--task", "only").split("\n")) == 3
    for option, name in (("--task", "onyl"), ("--node", "node-3")):
        for follow in ((), ("-f",)):
            unknown = shell.attempt("logs", *follow, finished, option, name)
            assert unknown.returncode == Exit.NOT_FOUND
            assert repr(name) in unknown.stderr
    assert "there is only" in shell.attempt("logs", finished, "--task", "onyl").stderr


def test_pause_resume_stop_and_rm(shell: Shell) -> None:
    swarm = shell.deploy("-p", "pause=0.5")
    assert shell("pause", swarm[:8]) == f"Swarm Measured ({swarm}) is PAUSED.\n"
    refused = shell.attempt("rm", swarm)
    assert refused.returncode == Exit.REFUSED
    assert "PAUSED" in refused.stderr
    assert shell.json("resume", swarm)["status"] == "ACTIVE"
    assert shell.json("stop", swarm, "--force")["status"] == "STOPPED"
    assert shell.attempt("pause", swarm).returncode == Exit.REFUSED
    assert shell("rm", swarm) == f"Swarm Measured ({swarm}) is removed.\n"
    assert shell.attempt("pause", swarm).returncode == Exit.NOT_FOUND
    running = shell.deploy("-p", "pause=30")
    gone = {"swarm_id": running, "name": "Measured", "removed": True}
    assert shell.json("rm", "--stop", running) == gone


def test_check_says_where_and_why_not(shell: Shell) -> None:
    assert "only.1  node-2" in shell("check", "--cluster", CLUSTER, "swarm.py")
    refused = shell.attempt("check", "--cluster", CLUSTER, "swarm.py", "-p", "dataset=missing")
    assert refused.returncode == Exit.UNPLACEABLE
    assert "'missing'" in refused.stdout
    arguments = ("check", "--cluster", CLUSTER, "swarm.py", "-p", "dataset=x", "--json")
    assert json.loads(shell.attempt(*arguments).stdout)["problems"]
    assert shell.attempt("check", "--cluster", "nowhere", "swarm.py").returncode == Exit.NOT_FOUND


def test_pull_and_verify(shell: Shell, finished: str) -> None:
    said = shell("pull", finished)
    folder = shell.folder / f"Measured-{finished}"
    assert said.startswith(f"{folder.name}: 8 results")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "COMPLETED"
    assert "logs.ndjson" in manifest["files"]
    assert len((folder / "logs.ndjson").read_text().splitlines()) == 4
    index = json.loads((folder / "results.json").read_text())
    assert len(index) == 8
    small = next(entry for entry in index if entry["tag"] == "small" and entry["index"] == 1)
    from manta.transports.values import decode

    assert decode((folder / small["file"]).read_bytes()) == [1]
    assert json.loads((folder / small["file"]).with_suffix(".json").read_text()) == [1]
    array = next(entry for entry in index if entry["tag"] == "array")
    assert decode((folder / array["file"]).read_bytes()).tolist() == [0, 1, 2, 3, 4]
    assert shell("pull", "--verify", folder).endswith("is as it was pulled.\n")
    (folder / "logs.ndjson").write_text("something else\n")
    (folder / "swarm.json").unlink()
    (folder / "extra").write_text("")
    spoilt = shell.attempt("pull", "--verify", folder)
    assert spoilt.returncode == Exit.LOCAL
    assert spoilt.stdout.splitlines() == [
        "swarm.json is missing.",
        "extra is not in the manifest.",
        "logs.ndjson is not what was pulled.",
    ]
    assert "there already" in shell.attempt("pull", finished, folder).stderr


def test_a_new_project_runs_at_once(shell: Shell) -> None:
    assert "manta run my-swarm/swarm.py" in shell("new", "my-swarm")
    done = shell("run", "my-swarm/swarm.py", "--nodes", "3", "--json")
    assert '"COMPLETED"' in done
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", shell.folder / "my-swarm"],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in tested.stdout, tested.stdout
    assert shell.attempt("new", "my-swarm").returncode == Exit.USAGE
    assert "begin it with a letter" in shell.attempt("new", "123").stderr
