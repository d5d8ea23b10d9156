"""Nodes whose tasks exchange, of which some only dial, and planes that come after each other."""

from __future__ import annotations

import select
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from manta.node.plane.door import Door
from manta.node.plane.orders import Serving
from tests.integration.node.conftest import CLUSTER, Lab
from tests.support.plane_processes import Daemon
from tests.support.swarms import One

two_nodes = pytest.mark.parametrize("lab", [2], indirect=True)
OFF: dict[str, Any] = {"peers": {"listen": "off"}}

TALK = """
    from manta.light import World
    from manta.light.errors import LightError
    def main():
        world = World()
        other = f"node-{2 - world.rank}"
        world.send_to_node(other, "t", [world.rank] * 100_000)
        try:
            return world.receive_from_node(other, "t", timeout=TIMEOUT)[0]
        except LightError as error:
            return f"{type(error).__name__}: {error}"
    """


def told(lab: Lab, timeout: float) -> list[Any]:
    """What both say, by rank."""
    api = lab.api()
    swarm = lab.run(api, One(TALK.replace("TIMEOUT", str(timeout))))
    return [task.output for task in api.get_tasks(swarm)]


@two_nodes
@pytest.mark.parametrize("silent", [1, 2])
def test_one_of_two_nodes_need_not_be_reached(lab: Lab, silent: int) -> None:
    for number in (1, 2):
        lab.node(number, **(OFF if number == silent else {}))
    assert told(lab, 30) == [1, 0]


@two_nodes
def test_who_waits_for_a_node_without_a_link_is_told_so(lab: Lab) -> None:
    lab.node(1, **OFF)
    lab.node(2, **OFF)
    for rank, said in enumerate(told(lab, 1)):
        other = f"node-{2 - rank}"
        assert said.startswith("Timeout: Waited 1 s in vain: "), said
        assert f"essage 't' has come from {other}" in said, said
        assert said.endswith(f"; no link to {other} could be made."), said


KEEPS = """
    import time
    from manta.light import World
    def main():
        world = World()
        if world.rank == 0:
            world.send_to_node("node-2", "t", "left here")
            return None
        while not world.globals.get("go"):
            time.sleep(0.05)
        return world.receive_from_node("node-1", "t", timeout=30)
    """


@two_nodes
def test_what_an_attempt_left_that_has_ended_outlives_both_nodes(lab: Lab) -> None:
    """Also on a node that only dials: its plane begins with it."""
    nodes = [lab.node(1, **OFF), lab.node(2)]
    api = lab.api()
    swarm = api.deploy_swarm(CLUSTER, One(KEEPS))

    def is_left() -> bool:
        return any(task.status == "FINISHED" for task in api.get_tasks(swarm))

    lab.wait_until(is_left)
    for node in nodes:
        node.stop()
    lab.node(1, **OFF)
    lab.node(2)
    api.set_global(swarm, "go", True)
    ended = api.wait_swarm(swarm, timeout=60)
    assert ended.status == "COMPLETED", ended.reason
    outputs = [task.output for task in api.get_tasks(swarm) if task.status == "FINISHED"]
    assert outputs == [None, "left here"]


def test_a_plane_waits_until_the_one_before_has_left_their_folder(tmp_path: Path) -> None:
    before = Daemon(1, tmp_path)
    assert isinstance(before.expect(), Serving)
    after = Daemon(1, tmp_path)
    try:
        assert select.select([after.orders], [], [], 0.5)[0] == []
        before.close()
        assert isinstance(after.expect(), Serving)
    finally:
        after.close()


def test_a_door_tells_once_of_who_knocks_and_accepts_nobody() -> None:
    knocked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        door = Door(listening.fileno(), knocked.set)
        with socket.create_connection(listening.getsockname()[:2]) as guest:
            assert knocked.wait(60)
            door.close()
            accepted, name = listening.accept()
            accepted.close()
            assert name == guest.getsockname()


def test_a_door_that_nobody_knocks_at_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        Door(listening.fileno(), lambda: pytest.fail("nobody did")).close()
