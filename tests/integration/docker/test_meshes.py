"""Peers of a mesh in containers, which have no network: their nodes begin what they speak by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from manta import Module, Swarm, Task
from manta.protocol.isolation import DOCKER, GVISOR
from tests.integration.docker.conftest import DockerLab
from tests.support.engine import TestEngine

pytestmark = pytest.mark.timeout(300)

PEERS = """
import os
from manta import Mesh
from manta.light.errors import LightError

def large(mesh, right, left):
    try:
        mesh.send(right, "large", bytes([mesh.rank]) * 1_000_000)
    except LightError as error:
        return str(error)
    return len(mesh.receive(left, "large", timeout=100))

def by_itself():
    try:
        Mesh.join(secret="what others know", timeout=10)
    except LightError as error:
        return str(error)

def main():
    with Mesh.join(timeout=100) as mesh:
        right, left = mesh.peers[(mesh.rank + 1) % mesh.size], mesh.peers[mesh.rank - 1]
        mesh.send(right, "letter", mesh.name)
        return {
            "interfaces": os.listdir("/sys/class/net"),
            "by itself": by_itself(),
            "neighbors": len(mesh.neighbors),  # before the sum: after it, others may have left
            "sum": mesh.all_reduce(mesh.rank, timeout=100),
            "letter": mesh.receive(left, "letter", timeout=100) == left.node_alias,
            "large": large(mesh, right, left),
        }
"""
NODES = 3


class Ring(Swarm):
    def __init__(self) -> None:
        super().__init__()
        self.add_network("circle", "ring")
        self.peers = Task(Module(PEERS, name="peers"), alias="peer", network="circle")


@pytest.fixture
def gvisor_lab(
    gvisor_host: TestEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DockerLab]:
    with ExitStack() as undo:
        lab = DockerLab(tmp_path_factory.mktemp("lab"), undo, NODES)
        lab.engine = gvisor_host
        undo.callback(lab.stop_manager)
        yield lab


def outputs(lab: DockerLab, level: str) -> list[dict[str, Any]]:
    for number in range(1, NODES + 1):
        lab.node(number, containers={"runner": level})
    api = lab.api()
    deployed = api.deploy_swarm("lab", Ring())
    ended = api.wait_swarm(deployed, timeout=200)
    assert ended.status == "COMPLETED", "\n".join(
        str(task.error) for task in api.get_tasks(deployed)
    )
    swarm_id = deployed.swarm_id
    found: list[Any] = [task.output for task in api.get_tasks(swarm_id)]
    for one in found:
        assert "In a task, join without listen, peers and secret" in one.pop("by itself")
    lab.gone()
    return found


EXPECTED = {"interfaces": ["lo"], "sum": 3, "neighbors": 2, "letter": True}


@pytest.mark.parametrize("lab", [NODES], indirect=True)
def test_tasks_in_containers_are_peers_of_one_mesh(lab: DockerLab) -> None:
    assert outputs(lab, DOCKER) == [{**EXPECTED, "large": 1_000_000}] * NODES


def test_where_the_kernel_hands_on_no_memory_a_large_message_is_refused_and_said(
    gvisor_lab: DockerLab,
) -> None:
    for found in outputs(gvisor_lab, GVISOR):
        assert "gVisor" in found.pop("large")
        assert found == EXPECTED
