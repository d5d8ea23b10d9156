from __future__ import annotations

from typing import Any

import pytest

from manta import Module, Swarm, Task
from manta.apis.compile.spec import compile_swarm
from manta.apis.errors import InvalidArgument, InvalidSwarm
from manta.protocol.spec import NetworkSpec


class Ringed(Swarm):
    def __init__(self, network: str | None = "ring") -> None:
        self.worker = Task(Module("def main():\n    pass\n"), network=network)


def test_networks_arrive_in_the_specification() -> None:
    swarm = Ringed()
    swarm.add_network("ring", "ring")
    swarm.add_network("pairs", [("node-1", "node-2"), ("node-2", "node-3")])
    swarm.add_network("all")
    swarm.add_network("grid", "torus")
    spec = compile_swarm(swarm).spec
    assert spec.networks == (
        NetworkSpec("ring", "ring"),
        NetworkSpec("pairs", "edges", (("node-1", "node-2"), ("node-2", "node-3"))),
        NetworkSpec("all", "full"),
        NetworkSpec("grid", "torus"),
    )
    assert spec.tasks[0].network == "ring"


def test_a_network_that_the_swarm_does_not_have_is_refused() -> None:
    swarm = Ringed("rng")
    swarm.add_network("ring")
    with pytest.raises(InvalidSwarm, match=r"'rng'.*it has 'ring'.*add_network\('rng'\)"):
        compile_swarm(swarm)


@pytest.mark.parametrize(
    ("topology", "words"),
    [
        ("toru", '\'toru\': give "full", "ring", "star", "torus", or pairs of nodes'),
        ("random-regular", "'random-regular': give"),
        (3, "3: give"),
        ([], "no pairs"),
        ([("a",)], "not a pair of nodes"),
        ([("a", "a")], "to itself"),
    ],
)
def test_a_topology_that_cannot_be_is_refused(topology: Any, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        Ringed().add_network("n", topology)


def test_a_name_twice_is_refused() -> None:
    swarm = Ringed()
    swarm.add_network("ring")
    with pytest.raises(InvalidArgument, match="already"):
        swarm.add_network("ring", "star")
