"""From a task's print to the line on the screen of `manta logs -f`. Goal: 0.3 s.

Thirty lines, one every 0.2 s, each with the time at which it was printed; the command is a
process of its own, whose output is read line by line. Once alone, once beside another swarm on
each of the two nodes that prints some 10 MB a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from manta import Module, Swarm, Task, UserAPI
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.testing.clusters import client, running
from manta.transports.security.keys import write_private
from tests.benchmarks._measure import spread
from tests.support.children import Child

PRINTING = """
import time

def main():
    for _ in range(30):
        print(f"at {time.time()}", flush=True)
        time.sleep(0.2)
"""


NOISY = """
import time

def main():
    while True:
        print("x" * 100_000, flush=True)
        time.sleep(0.01)
"""


class Printing(Swarm):
    def __init__(self) -> None:
        self.only = Task(Module(PRINTING, name="printing"), method="any")


class Noisy(Swarm):
    def __init__(self) -> None:
        self.only = Task(Module(NOISY, name="noisy"))


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running(LocalCluster, 2) as local,
        client(local) as api,
    ):
        home, key = Path(folder, "home"), local.manager_keys.public
        profile = {"host": HOST, "port": local.user_port, "server_key": key}
        write_private(home / "profiles" / "default.json", json.dumps(profile))
        local.keys.save(home / "keys" / "default.key")
        print(f"alone: {_latency(api, home)}")
        noisy = api.deploy_swarm(CLUSTER, Noisy())
        print(f"beside noisy neighbours: {_latency(api, home)}")
        api.stop_swarm(noisy, force=True)


def _latency(api: UserAPI, home: Path) -> str:
    swarm = api.deploy_swarm(CLUSTER, Printing())
    command = [sys.executable, "-m", "manta", "logs", "-f", swarm.swarm_id]
    kept = {key: value for key, value in os.environ.items() if key[:6] != "MANTA_"}
    environment = {**kept, "MANTA_HOME": str(home)}
    seconds = []
    with Child(command, stdout=subprocess.PIPE, text=True, env=environment) as following:
        assert following.stdout is not None
        for line in following.stdout:
            seconds.append(time.time() - float(line.rpartition("at ")[2]))
    return f"{len(seconds)} lines; all but the first five: {spread(seconds[5:])}"
