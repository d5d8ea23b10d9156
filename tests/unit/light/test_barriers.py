"""When a barrier has to wait until the manager has what the attempt wrote."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manta.light import Results, World
from manta.light.collectives import direct
from manta.light.context import usage
from manta.light.errors import Timeout
from manta.light.runtime.client import AttemptClient, _Channel
from tests.unit.light.test_api import Recorder


class Node:
    """Answers all that an attempt asks of it and its plane."""

    def __init__(self) -> None:
        self.settled: list[bool] = []
        """Of each barrier, whether it was to follow on what was written."""
        self.error: Exception | None = None

    def call(self, channel: _Channel, request: str, fields: dict[str, Any]) -> Any:
        if request != "call_collective":
            return None
        self.settled.append(fields.get("settles", False))
        if self.error is not None:
            raise self.error
        return {"parts": [], "data": b""}, []


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    node = Node()
    monkeypatch.setattr(_Channel, "call", lambda *given: node.call(*given))
    brief = Recorder(tmp_path).brief
    brief.direct = True
    theirs, ours = socket.socketpair()
    theirs.close()
    client = AttemptClient(str(tmp_path / "nobody"), "token", brief, ours.detach())
    client.open(os.getpid())
    usage.context = client
    yield node
    usage.context = None
    client.close()


WRITES = [
    lambda: World().set("x", 1),
    lambda: Results().add("x", 1),
    lambda: World().checkpoint(1),
]


@pytest.mark.parametrize("write", WRITES, ids=("global", "result", "checkpoint"))
def test_it_waits_for_what_was_written_since_the_last_one(node: Node, write: Any) -> None:
    world = World()
    for _ in range(2):
        write()
        world.barrier()
        world.barrier()
    assert node.settled == [True, False] * 2


def test_of_what_is_only_told_it_does_not_wait(node: Node) -> None:
    world = World()
    world.log_metrics({"loss": 1.0})
    world.progress(0.5)
    world.send_to_node("node", "x", 1)
    world.globals.get("x")
    world.barrier()
    assert node.settled == [False]


def test_after_one_in_vain_the_next_one_waits_for_it(node: Node) -> None:
    world = World()
    world.set("x", 1)
    node.error = Timeout("of a test")
    with pytest.raises(Timeout):
        world.barrier()
    node.error = None
    world.barrier()
    world.barrier()
    assert node.settled == [True, True, False]


def test_what_another_thread_writes_meanwhile_is_for_the_next_one(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, call = World(), direct._call

    def meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(direct, "_call", call)
        world.set("x", 2)
        return call(*given)

    world.set("x", 1)
    monkeypatch.setattr(direct, "_call", meanwhile)
    world.barrier()
    world.barrier()
    assert node.settled == [True, True]
