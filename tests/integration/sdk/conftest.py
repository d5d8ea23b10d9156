"""A manager and two nodes for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.console.interrupts import Interrupts
from manta.testing import wait_until
from manta.transports.security.keys import KeyPair


class Stage:
    """A manager and two nodes, and ways to them."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.api = UserAPI.over(self.session())

    def session(self, keys: KeyPair | None = None) -> Session:
        server = self.cluster.manager_keys.public
        target = Target(HOST, self.cluster.user_port, "test", server_key=server)
        return Session(target, keys or self.cluster.keys)

    def wait_for_nodes(self) -> None:
        wait_until(
            lambda: sum(node.status == "CONNECTED" for node in self.api.list_nodes(CLUSTER)) >= 2,
            what=lambda: [c.tail() for c in self.cluster.children],
        )

    def run(self, swarm: Swarm) -> str:
        """Deploy it and wait for its end; returns the id."""
        deployed = self.api.deploy_swarm(CLUSTER, swarm)
        ended = self.api.wait_swarm(deployed, timeout=60)
        assert ended.status == "COMPLETED", ended
        return deployed.swarm_id


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    data = tmp_path_factory.mktemp("data")
    for i in range(2):
        np.save(data / f"{i}.npy", np.full(3, i))
    interrupts = Interrupts()
    interrupts.finish()
    cluster = LocalCluster(2, {"numbers": f"{data}/{{i}}.npy"}, interrupts)
    try:
        cluster.start()
        stage = Stage(cluster)
        stage.wait_for_nodes()
        # Threads that a first use starts belong to all tests.
        pending = stage.api.send_swarm(CLUSTER, ONE())
        stage.api.set_global(pending, "large", np.zeros(100_000))
        stage.api.select_global(pending, "large")
        stage.api.stop_swarm(pending)
        yield stage
        stage.api.close()
    finally:
        cluster.stop(keep=False)


def one(code: str, **arguments: object) -> type[Swarm]:
    """A swarm of one task."""

    class Single(Swarm):
        def execute(self) -> Task:
            return Task(Module(code, name="task"), **arguments)  # type: ignore[arg-type]

    return Single


ONE = one("def main():\n    pass\n", method="any")

ROUNDS = """
import numpy
from manta.light import Local, World

def main():
    world = World()
    numbers = Local().get_dataset("numbers")
    print("iteration", world.iteration)
    world.results.add("sum", float(numbers.sum() + world.iteration))
    world.results.add("large", numpy.full(50_000, world.rank))
    if world.iteration == 2:
        world.results.add("late", "only now")
    world.log_metrics({"rank": world.rank})
    world.globals["seen"] = world.globals["model"] + 1
    return {"rank": world.rank}
"""


class Rounds(Swarm):
    name = "rounds"

    def __init__(self) -> None:
        super().__init__(max_iteration=3)
        self.set_global("model", np.arange(100_000))

    def execute(self) -> Task:
        return Task(Module(ROUNDS, name="worker", datasets=["numbers"]))


@pytest.fixture
def own(stage: Stage) -> Iterator[UserAPI]:
    """An API of the test's own: it goes with all that it brought here."""
    with UserAPI.over(stage.session()) as api:
        yield api


@pytest.fixture(scope="module")
def finished(stage: Stage) -> str:
    return stage.run(Rounds())
