"""A node without memory for values whose disk takes none either: its tasks are told, and go on when
there is room again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.node.conftest import CLUSTER, Lab
from tests.integration.node.test_storage import full, small_disk
from tests.support.swarms import One

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount"),
]

HEAD = """
    import time
    from pathlib import Path
    from manta.light import World
    from manta.light.errors import ResourceExhaustionError
    def wait(path):
        while not Path(path).exists():
            time.sleep(0.02)
    def send():
        try:
            World().send_to_node("node-1", "t", bytes(12_000_000))
        except ResourceExhaustionError as error:
            return str(error)
        return "sent"
    def receive():
        return len(World().receive_from_node("node-1", "t"))
"""
FILLED = """
    def main():
        World().broadcast("begun", 1)  # its plane is there
        Path({begun!r}).touch()
        wait({full!r})
        said = [send()]
        Path({tried!r}).touch()
        wait({free!r})
        return [*said, send(), receive()]
"""
UNREAD = """
    def main():
        sent = 0
        while (said := send()) == "sent":
            sent += 1
        return [sent, said, *(receive() for _ in range(sent))]
"""


@pytest.fixture
def node(lab: Lab) -> Iterator[Lab]:
    """It keeps 4 MB of values in memory, and has 60 MB of disk."""
    with ExitStack() as undo:
        undo.enter_context(small_disk(lab.state("node-1").path, 60))
        lab.undo.push(undo.pop_all())  # after the node that uses it has stopped
        lab.node(1, resources={"value_memory_mb": 4})
        yield lab


def output(lab: Lab, swarm: Any) -> Any:
    api = lab.api()
    ended = api.wait_swarm(swarm, timeout=60)
    assert ended.status == "COMPLETED", (ended.reason, api.collect_errors(swarm))
    (task,) = api.get_tasks(swarm)
    return task.output


def test_what_others_have_left_no_room_for_is_refused_until_there_is_some(node: Lab) -> None:
    paths = {name: node.folder / name for name in ("begun", "full", "tried", "free")}
    code = FILLED.format(**{name: str(path) for name, path in paths.items()})
    swarm = node.api().deploy_swarm(CLUSTER, One(HEAD + code))
    node.wait_until(paths["begun"].exists)
    with full(node.state("node-1")):
        paths["full"].touch()
        node.wait_until(paths["tried"].exists)
    paths["free"].touch()
    refused, sent, received = output(node, swarm)
    assert refused.startswith("The node's disk takes no value of 12000")
    assert "No space left on device" in refused
    assert (sent, received) == ("sent", 12_000_000)


def test_values_that_nobody_receives_fill_it_up_and_their_sender_is_told(node: Lab) -> None:
    """Until its swarm is over: then there is room for as many again."""
    api, before = node.api(), 0
    values = Path(node.state("node-1").path)
    for _ in range(2):
        swarm = api.deploy_swarm(CLUSTER, One(HEAD + UNREAD))
        sent, refused, *received = output(node, swarm)
        assert sent >= 1
        assert before in (0, sent)
        before = sent
        assert refused.startswith("This node keeps ")
        assert "MiB of values that tasks send to each other, of at most" in refused
        assert "room on the disk of" in refused
        assert received == [12_000_000] * sent
        node.wait_until(lambda: not [path for path in values.rglob("values/*") if path.is_file()])
