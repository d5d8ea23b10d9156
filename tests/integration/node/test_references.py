"""Results that stay on the nodes that made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from manta import Condition, Module, Swarm, Task
from manta.apis.errors import NotFound
from manta.cli.commands.pull import _pulled
from manta.manager.backup import backup, verify_file, verify_home
from manta.manager.home import Home

SIZE = 3 << 20
pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.parametrize("lab", [3], indirect=True),
]

MAKES = f"""
import os
from manta.light import World

def main():
    world = World()
    world.results.add("large", os.urandom({SIZE}))
    world.results.add("wanted", os.urandom({SIZE}))
    world.results.add("small", b"small")
"""

READS = """
from manta.light import World

def main():
    world = World()
    found = world.results.select("large")
    world.results.add("lengths", [len(one) for one in found.values()])
"""


class Makes(Swarm):
    def __init__(self, reader: str = "", **task: Any) -> None:
        super().__init__()
        self._task, self._reader = task, reader

    def execute(self) -> Task:
        made = Task(Module(MAKES, name="makes"), **self._task)
        if not self._reader:
            return made
        reads = Task(Module(READS, name="reads"), specified_ids=[self._reader])
        return reads(made, Condition.FINISHED)


def spooled(lab: Any) -> int:
    """Bytes of blobs on the manager's disk."""
    depot = lab.manager.context.depot
    return sum(map(depot.size, depot))


def held(lab: Any, number: int) -> list[Path]:
    return [one for one in lab.state(f"node-{number}").results.glob("*/??/*") if one.is_file()]


def test_results_stay_where_they_were_made_and_can_be_read(lab) -> None:
    for number in (1, 2, 3):
        lab.node(number)
    api = lab.api()
    swarm = lab.run(api, Makes("node-3", collect="references", specified_ids=["node-1", "node-2"]))
    assert spooled(lab) < SIZE
    assert [len(held(lab, number)) for number in (1, 2, 3)] == [2, 2, 0]
    assert api.select_results(swarm, "lengths").values() == [[SIZE, SIZE]]
    assert [len(value) for value in api.select_results(swarm, "large").values()] == [SIZE, SIZE]
    assert api.select_results(swarm, "small").values() == [b"small", b"small"]
    api.remove_swarm(swarm)
    lab.wait_until(lambda: not held(lab, 1) and not held(lab, 2))


def test_a_holder_that_is_away_is_named_and_gives_it_when_it_is_back(lab) -> None:
    lab.node(1)
    lab.node(2)
    lab.node(3)
    api = lab.api()
    swarm = lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    lab.nodes[0].stop()
    lab.wait_until(lambda: lab.state("node-1").read_status().state == "stopped")
    (lost,) = api.select_results(swarm, "large")
    with pytest.raises(NotFound, match=r"'large' of iteration 0.*'node-1', which is not connected"):
        _ = lost.value
    assert api.select_results(swarm, "small").values() == [b"small"]
    record, _ = _pulled(api, swarm, lab.folder / "pulled")
    assert record["results"] == 3
    index = json.loads((lab.folder / "pulled" / "results.json").read_text())
    assert sorted((one["tag"], "away" in one) for one in index) == [
        ("large", True),
        ("small", False),
        ("wanted", True),
    ]
    lab.node(1)
    assert [len(value) for value in api.select_results(swarm, "large").values()] == [SIZE]


def test_a_holder_that_was_removed_took_it_along(lab) -> None:
    nodes = [lab.node(number) for number in (1, 2, 3)]
    api = lab.api()
    swarm = lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    api.remove_node(nodes[0].context.identity.node_id)
    (lost,) = api.select_results(swarm, "large")
    with pytest.raises(NotFound, match=r'which was removed: it is lost; .*collect="all"'):
        _ = lost.value


def test_a_task_is_told_what_it_cannot_have(lab) -> None:
    lab.node(1)
    lab.node(2)
    lab.node(3)
    context = lab.nodes[0].context
    keep = context.held.keep

    def loses(swarm_id: str, digest: str, values: Any) -> None:
        keep(swarm_id, digest, values)
        context.held.free(swarm_id)
        values.delete(digest)

    context.held.keep = loses
    api = lab.api()
    swarm = api.deploy_swarm("lab", Makes("node-3", collect="references", specified_ids=["node-1"]))
    assert api.wait_swarm(swarm, timeout=60).status == "FAILED"
    (error,) = api.collect_errors(swarm)
    assert "The result 'large' of iteration 0 cannot be read" in error.sentence
    assert "node-1" in error.sentence


def test_only_the_tags_that_are_named_are_copied(lab) -> None:
    lab.node(1)
    lab.node(2)
    lab.node(3)
    api = lab.api()
    swarm = lab.run(api, Makes(collect=["wanted"], specified_ids=["node-1"]))
    assert SIZE <= spooled(lab) < 2 * SIZE
    assert len(held(lab, 1)) == 1
    lab.nodes[0].stop()
    assert [len(value) for value in api.select_results(swarm, "wanted").values()] == [SIZE]


def test_what_finds_no_room_is_copied_and_its_task_is_told(lab) -> None:
    lab.node(1, resources={"result_disk_mb": 4})
    lab.node(2)
    lab.node(3)
    api = lab.api()
    swarm = lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    assert SIZE <= spooled(lab) < 2 * SIZE
    assert len(held(lab, 1)) == 1
    said = [line.text for line in api.collect_logs(swarm)]
    assert any("'wanted' goes to the manager" in text for text in said)
    assert any("result_disk_mb" in text for text in said)


def test_a_swarm_without_the_values_is_whole(lab) -> None:
    """Nothing of what the manager stores names what it never had."""
    lab.node(1)
    lab.node(2)
    lab.node(3)
    api = lab.api()
    lab.run(api, Makes(collect="references", specified_ids=["node-1"]))
    lab.stop_manager()
    home, file = Home(lab.folder / "manager"), lab.folder / "backup.tar"
    assert verify_home(home).flaws == []
    backup(home, file)
    assert verify_file(file).flaws == []
    lab.start_manager()
