"""One file that is a peer in two ways: started by `manta mesh run`, and as a task on nodes, whose
manager and one of which are killed meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.cli.local.cluster import CLUSTER
from manta.testing import wait_until
from manta.testing.clusters import client, running
from tests.support.restarts import Restartable
from tests.support.swarms import One, outputs

pytestmark = pytest.mark.timeout(600)

SCRIPT = """
import json, os, sys
from pathlib import Path
from manta import Mesh

FOLDER = Path({folder!r})


def rounds(mesh, out):
    number, peers = 0, mesh.peers
    while not mesh.all_reduce((FOLDER / "stop").exists(), op="max", on_peer_lost="continue"):
        lost, peers = [peers[rank].node_alias for rank in mesh.left_out], mesh.peers
        right = mesh.peers[(mesh.rank + 1) % mesh.size]
        left = mesh.peers[mesh.rank - 1]
        try:
            mesh.send(right, "token", [mesh.name, number], timeout=60)
            letter = mesh.receive(left, "token", timeout=60)
        except Exception as error:
            letter = [type(error).__name__, str(error)]
        said = [mesh.size, sorted(one.node_alias for one in mesh.peers), letter, lost]
        print(json.dumps(said), file=out, flush=True)
        number += 1


def main():
    with Mesh.join(timeout=100) as mesh:
        assert mesh.size == 3, mesh.size
        with open(FOLDER / mesh.name, "w") as out:
            rounds(mesh, out)


if __name__ == "__main__":
    main()
"""


def said(folder: Path, name: str) -> list[Any]:
    path = folder / name
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def goes_on(folder: Path, names: list[str], what: Callable[[Any], bool]) -> None:
    """Waits until each of them has said three further things that are so."""
    before = {name: len(said(folder, name)) for name in names}
    wait_until(lambda: all(sum(map(what, said(folder, n)[before[n] :])) > 2 for n in names), 150)


def test_a_file_is_a_peer_of_those_that_the_command_starts(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    command = [sys.executable, "-m", "manta", "mesh", "run", str(script), "--peers", "3"]
    names = [f"peer-{number}" for number in range(3)]
    with subprocess.Popen(command) as running:
        goes_on(tmp_path, names, lambda one: one[0] == 3)
        (tmp_path / "stop").touch()
        assert running.wait(150) == 0


class Peers(Swarm):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.add_network("circle", "ring")
        code = SCRIPT.format(folder=str(folder))
        self.only = Task(Module(code, name="peers"), alias="worker", network="circle")


@pytest.fixture
def cluster() -> Iterator[Restartable]:
    with running(Restartable, 3) as cluster:
        assert isinstance(cluster, Restartable)
        yield cluster


def test_tasks_that_are_peers_go_on_without_the_manager_and_name_the_node_that_dies(
    cluster: Restartable, tmp_path: Path
) -> None:
    names = [f"worker.{number}" for number in range(3)]
    with client(cluster) as api:
        swarm = api.deploy_swarm(CLUSTER, Peers(tmp_path)).swarm_id
        goes_on(tmp_path, names, lambda one: one[:2] == [3, names] and one[2][0] in names)
        on_node = {f"worker.{task.index}": task.node_alias for task in api.get_tasks(swarm)}
    cluster.kill("manager")
    goes_on(tmp_path, names, lambda one: one[:2] == [3, names] and one[2][0] in names)
    lost, *left = names
    cluster.kill(on_node[lost])
    goes_on(tmp_path, left, lambda one: one[:2] == [2, left] and one[2][0] in left)
    for name in left:
        assert [lost] in [one[3] for one in said(tmp_path, name)], name
    (tmp_path / "stop").touch()


def test_a_task_is_in_so_many_meshes_and_is_told_of_one_more(cluster: Restartable) -> None:
    code = """
    from manta import Mesh
    from manta.light.errors import LightError
    def main():
        found = [Mesh.join(timeout=100) for _ in range(4)]
        try:
            Mesh.join()
        except LightError as error:
            return [mesh.all_reduce(1) for mesh in found], str(error)
    """
    api: UserAPI
    with client(cluster) as api:
        for sums, why in outputs(api, One(code)):
            assert list(sums) == [3] * 4
            assert "in 4 meshes already" in why
