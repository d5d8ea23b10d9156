"""Each child of the manager's and the node's tree crashes once during fl_digits."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import pytest

from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.user_api import UserAPI
from manta.cli.loading import load_swarm
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.console.interrupts import Interrupts
from manta.testing import wait_until

EXAMPLE = Path(__file__).parents[3] / "examples" / "fl_digits"
CRASHABLE = Path(__file__).parents[2] / "support" / "crashable.py"

MANAGER = [
    "manager/store",
    "manager/blobs",
    "manager/gateway",
    "manager/clusters/*",
    "manager/clusters/*/*",
]
NODE = [
    "node/manager-link",
    "node/peer-hub",
    "node/peer-directory",
    "node/plane",
    "node/light",
    "node/datasets",
    "node/metrics",
    "node/tasks/*",
]


class CrashableCluster(LocalCluster):
    """Its daemons crash an actor for each line that is written to their orders."""

    def orders(self, log_name: str) -> Path:
        return self.folder / f"{log_name}.orders"

    def crash(self, log_name: str, pattern: str) -> None:
        with open(self.orders(log_name), "a") as file:
            file.write(pattern + "\n")

    def command(self, log_name: str, arguments: list[str]) -> list[str]:
        return [sys.executable, str(CRASHABLE), str(self.orders(log_name)), *arguments]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    subprocess.run(
        [sys.executable, str(EXAMPLE / "make_shards.py"), "--folder", str(folder)], check=True
    )
    return folder


@pytest.fixture
def cluster(shards: Path) -> Iterator[CrashableCluster]:
    with Interrupts() as interrupts:
        cluster = CrashableCluster(4, {"digits": f"{shards}/node{{i}}.npz"}, interrupts)
        try:
            cluster.start()
            yield cluster
        finally:
            interrupts.finish()
            cluster.stop(keep=False)


@pytest.fixture
def api(cluster: CrashableCluster) -> Iterator[UserAPI]:
    target = Target(HOST, cluster.user_port, "test", server_key=cluster.manager_keys.public)
    with UserAPI.over(Session(target, cluster.keys)) as api:
        yield api


def exits(log: Path) -> list[str]:
    """Paths of the actors whose supervisors saw an injected crash."""
    found = re.findall(r"ChildExited\(\w+:(\S+?)#\w+, crashed.*injected", log.read_text())
    return [str(path) for path in found]


def has_crashed(log: Path, times: int) -> bool:
    return len(exits(log)) >= times


@pytest.mark.parametrize(
    ("log_name", "patterns"), [("manager", MANAGER), ("node-2", NODE)], ids=["manager", "node"]
)
def test_the_swarm_completes_though_every_child_of_the_tree_crashes_once(
    cluster: CrashableCluster, api: UserAPI, log_name: str, patterns: list[str]
) -> None:
    # More rounds than it needs, so that it is still running when the last child crashes.
    swarm = load_swarm(str(EXAMPLE / "swarm.py"), {"rounds": "25", "target": "2.0"})
    wait_until(lambda: sum(node.status == "CONNECTED" for node in api.list_nodes(CLUSTER)) >= 4)
    overview = api.deploy_swarm(CLUSTER, swarm)
    log = cluster.log_folder / f"{log_name}.log"
    for count, pattern in enumerate(patterns, 1):
        cluster.crash(log_name, pattern)
        wait_until(partial(has_crashed, log, count), what=log.read_text)
        assert fnmatchcase(exits(log)[-1], pattern)
        time.sleep(0.5)  # let it run on the restarted child before the next crash
    assert api.get_swarm(overview).status == "ACTIVE", "it ended before the last crash"
    ended = api.wait_swarm(overview, timeout=120)
    assert ended.status == "COMPLETED", ended.reason
    assert ended.iteration == 24
    results = api.get_swarm_results(ended, "evaluated")
    for iteration in range(25):
        assert len(results(iteration).by_node()) == 4
    assert cluster.dead == []
