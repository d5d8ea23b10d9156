"""A node goes by its id and by its alias, wherever one is taken."""

from __future__ import annotations

import pytest

from manta import Module, Swarm, Task
from tests.integration.node.conftest import Lab

TALK = """
from manta.light import World

def main():
    world = World()
    other = next(peer for peer in world.peers if peer.rank != world.rank)
    assert other.node_id != other.node_alias, other
    names = [other.node_alias, other.node_id, other, other.node_alias]
    for number, name in enumerate(names):
        world.send_to_node(name, "t", number)
    return [world.receive_from_node(name, "t") for name in reversed(names)]
"""
NEXT = """
from manta.light import World

def main():
    world = World()
    world.results.add("was", world.iteration)
    if world.iteration == 0:
        alias, id_ = "node-2", next(p.node_id for p in world.peers if p.node_alias == "node-2")
        world.schedule_next_iter(NAMES)
"""


class Named(Swarm):
    def __init__(self, code: str, **task: object) -> None:
        super().__init__()
        self.only = Task(Module(code, name="code"), **task)  # type: ignore[arg-type]


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_an_alias_and_an_id_name_the_same_node(lab: Lab) -> None:
    lab.node(1)
    lab.node(2)
    api = lab.api()
    ids = {node.alias: node.id for node in api.list_nodes("lab")}
    assert len({*ids, *ids.values()}) == 4, "aliases that differ from ids"

    talked = lab.run(api, Named(TALK))
    assert [task.output for task in api.get_tasks(talked)] == [[0, 1, 2, 3]] * 2

    for names in ("[alias]", "[id_]", "[alias, id_, alias]", "alias", "id_"):
        done = lab.run(api, Named(NEXT.replace("NAMES", names)))
        results = api.get_swarm_results(done)
        second = [task.node_id for task in api.get_tasks(done) if task.iteration == 1]
        assert second == [ids["node-2"]], names
        for name in ("node-2", ids["node-2"]):
            assert [found.iteration for found in results(node_id=name)] == [0, 1]
            assert [found.iteration for found in results(name)] == [0, 1]

    for name in ("node-2", ids["node-2"]):
        only = lab.run(api, Named("def main():\n    pass\n", specified_ids=[name]))
        assert [task.node_id for task in api.get_tasks(only)] == [ids["node-2"]]
        others = lab.run(api, Named("def main():\n    pass\n", excepted_ids=[name]))
        assert [task.node_id for task in api.get_tasks(others)] == [ids["node-1"]]
