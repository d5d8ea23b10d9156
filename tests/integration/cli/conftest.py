"""A cluster, and a shell whose user works with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.testing.clusters import client, running, wait_for_nodes
from manta.transports.security.keys import write_private

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
            [sys.executable, "-m", "manta", *map(str, arguments)],
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

    def json_lines(self, *arguments: object) -> list[Any]:
        return [json.loads(line) for line in self(*arguments, "--json").splitlines()]

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
