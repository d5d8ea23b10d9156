"""Whole nodes of which one has its large values sealed by CURVE."""

from __future__ import annotations

import pytest

from manta import Module, Swarm, Task
from manta.protocol.peers import LinkKind

pytestmark = [pytest.mark.parametrize("lab", [2], indirect=True)]

EXCHANGE = """
import time
from manta.light import World

def main():
    world = World()
    other = f"node-{2 - world.rank}"
    world.send_to_node(other, "large", bytes([world.rank]) * 3_000_000)
    assert world.receive_from_node(other, "large") == bytes([1 - world.rank]) * 3_000_000
    while not world.globals.get("go", False):
        time.sleep(0.05)
"""


class Exchange(Swarm):
    """Of large values, after which it waits until it may end."""

    def __init__(self) -> None:
        super().__init__()
        self.set_global("go", False)

    def execute(self) -> Task:
        both = ["node-1", "node-2"]
        return Task(Module(EXCHANGE, name="exchange"), specified_ids=both)


def test_it_takes_none_but_on_its_links_and_they_arrive(lab) -> None:
    peers = {"listen": "127.0.0.1:0", "links": "sealed"}
    one = lab.node(1, peers={**peers, "bulk_cipher": "curve"})
    two = lab.node(2, peers=peers)
    assert one.context.bulk_socket is None
    assert two.context.bulk_socket is not None
    api = lab.api()
    swarm = api.deploy_swarm("lab", Exchange()).swarm_id

    def moved() -> bool:
        links = [link for name in ("node-1", "node-2") for link in api.list_node_links(name)]
        return len(links) == 2 and all(
            link.kind == LinkKind.DIRECT
            and min(link.sent, link.received) > 3_000_000
            and not link.error
            for link in links
        )

    lab.wait_until(moved)
    api.set_global(swarm, "go", True)
    assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
