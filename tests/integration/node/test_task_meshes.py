"""Tasks that can't be peers of a mesh are told why."""

from __future__ import annotations

from typing import Any

from tests.integration.node.conftest import Lab

ALONE = """
from manta import Mesh
from manta.light.errors import LightError

def main():
    try:
        Mesh.join(timeout=30)
    except LightError as error:
        return str(error)
"""


def test_where_a_node_lets_no_other_connect_it_says_so(lab: Lab) -> None:
    lab.node(peers={"listen": "off"})
    api = lab.api()
    swarm_id = lab.run(api, lab.swarm(ALONE))
    found: list[Any] = [task.output for task in api.get_tasks(swarm_id)]
    assert found == [
        "There can be no mesh on this node: no other can connect to it, as its operator has set "
        'peers.listen to "off". Have that changed, or run the task on other nodes.'
    ]
