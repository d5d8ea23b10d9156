"""What several nodes of a swarm read leaves the manager twice at most."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any

import pytest

from manta import Module, Swarm, Task
from manta.node.service import Node
from manta.transports.bulk.curve import CurveBulk

NODES = 5
SIZE = 40 << 20

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.parametrize("lab", [NODES], indirect=True),
]

READS = """
from hashlib import sha256
from manta.light import World

def main():
    world = World()
    world.results.add("read", sha256(world.globals["value"]).hexdigest())
"""


class Reads(Swarm):
    """On each node, all at once."""

    def __init__(self, value: bytes, code: str = READS, **task: Any) -> None:
        super().__init__()
        self._task, self._code = task, code
        self.set_global("value", value)

    def execute(self) -> Task:
        return Task(Module(self._code, name="reads"), **self._task)


class Planes:
    """The bulk planes of this process, and what each sent."""

    def __init__(self) -> None:
        self.made: dict[str, list[CurveBulk[Any]]] = {}

    def sent(self, key: str) -> int:
        return sum(plane.statistics.sent for plane in self.made.get(key, ()))

    def of_node(self, node: Node) -> int:
        return self.sent(node.context.keys.public)


@pytest.fixture
def planes(monkeypatch: pytest.MonkeyPatch) -> Planes:
    """Begins before the manager does."""
    planes, init = Planes(), CurveBulk.__init__

    def noted(self: CurveBulk[Any], keys: Any, *args: Any, **named: Any) -> None:
        init(self, keys, *args, **named)
        planes.made.setdefault(keys.public, []).append(self)

    monkeypatch.setattr(CurveBulk, "__init__", noted)
    return planes


def read_by_all(lab: Any, value: bytes, **task: Any) -> str:
    """Returns the swarm's id."""
    api = lab.api()
    swarm = lab.run(api, Reads(value, **task))
    found = api.select_results(swarm, "read")
    assert [one.value for one in found] == [sha256(value).hexdigest()] * NODES
    return swarm


def test_a_global_that_all_nodes_read_leaves_the_manager_twice_at_most(planes, lab) -> None:
    nodes = [lab.node(number) for number in range(1, NODES + 1)]
    read_by_all(lab, os.urandom(SIZE))
    sent = planes.sent(lab.file.public_key)
    assert SIZE <= sent <= 2 * SIZE + (1 << 20)
    assert sum(map(planes.of_node, nodes)) >= (NODES - 2) * SIZE
