"""Values that memory should not hold: through a socket into a file, and read from there."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.node.task_server import messages as light
from manta.testing import wait_until
from manta.transports.errors import BlobRefused
from tests.integration.light.test_hostile import Task, answers, is_cut
from tests.support.harness import Node

MIB = 1 << 20


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One that keeps what is larger than 100 kB in files."""
    node = Node(tmp_path, largest=100_000)
    yield node
    node.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_every_way_of_a_value(node: Node) -> None:
    runtime = node.start("""
        import numpy as np
        from manta.light import World, Local
        def main():
            world, local = World(), Local()
            value = {"w": np.arange(500_000.0), "b": b"x" * 300_000}
            world.set("model", value)
            world.results.add("trained", value)
            local.set_state("momentum", value)
            for got in (
                world.get("model"),
                local.get_state("momentum"),
                *world.results.select("trained").values(),
            ):
                np.testing.assert_array_equal(got["w"], value["w"])
                assert got["b"] == value["b"]
                got["w"] += 1.0  # a reader's own
            return world.get("model")["w"]
    """)
    assert runtime.run().output.sum() == sum(range(500_000))
    assert len({body.value.digest for body in node.requests if hasattr(body, "value")}) == 1


def test_the_node_holds_a_window_and_not_the_value(node: Node) -> None:
    """Half a gigabyte to and fro; what the node's process has grown by meanwhile."""
    size = 512 * MIB
    runtime = node.start(f"""
        import numpy as np
        from manta.light import World
        def main():
            World().set("model", np.ones({size}, "u1"))
            return int(World().get("model")[::4096].sum())
    """)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert runtime.run().output == size // 4096
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < 64 * MIB, f"{grown / MIB:.0f} MiB"


def test_a_service_that_comes_back_in_the_middle(node: Node) -> None:
    runtime = node.start("""
        import numpy as np
        from manta.light import World
        def main():
            print("in", flush=True)
            for number in range(40):
                World().set("model", np.full(1_000_000, number))
            return int(World().get("model")[-1])
    """)
    runtime.begin()
    runtime.output("stdout", "in")
    for _ in range(3):
        node.restart_service(0.02)
    assert runtime.end().output == 39


def test_a_disk_without_room_is_an_exception_in_the_task(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(read: object, size: int) -> str:
        raise BlobRefused(f"no room for a blob of {size} bytes")

    monkeypatch.setattr(node.depot, "put_stream", refuse)
    runtime = node.start("""
        import numpy as np
        from manta.light import World
        from manta.light.errors import ResourceExhaustionError
        def main():
            try:
                World().set("model", np.ones(3_000_000))
            except ResourceExhaustionError as error:
                World().set("small", 1)
                return str(error)
    """)
    assert runtime.run().output.startswith("no room for a blob of 24000")


@pytest.mark.parametrize("written", [0, 50_000])
def test_a_task_that_hands_in_less_than_it_announced(node: Node, written: int) -> None:
    before = descriptors()
    task = Task(node)
    fd = taken(task, 1, 200_000)
    os.write(fd, b"x" * written)
    task.attempt.send({"k": "set_global", "n": 2, "tag": "x", "value": 1})
    os.close(fd)
    error = task.expect(task.attempt, "error")
    assert "too soon" in error["sentence"]
    task.close()
    answers(node)
    assert not list(node.depot)
    wait_until(lambda: descriptors() <= before)


def test_a_task_that_writes_for_ever_or_never_costs_its_own_attempt(node: Node) -> None:
    task = Task(node)
    silent = taken(task, 1, 1 << 28)
    talker = taken(task, 2, 200_000)
    os.write(talker, b"x" * 200_000)
    task.attempt.send({"k": "set_global", "n": 3, "tag": "x", "value": 2})
    task.expect(task.attempt, "answer")  # although it still holds the descriptor
    task.attempt.send({"k": "set_global", "n": 4, "tag": "x", "value": 1})  # of which nothing came
    answers(node)
    task.attempt.send({"k": "set_global", "n": 5, "tag": "x", "value": 1})  # handed in twice
    assert is_cut(task.attempt)
    node.sessions.tell(light.CloseSession(task.id))
    os.close(silent)
    os.close(talker)
    task.close()
    answers(node)


def test_what_was_written_and_not_handed_in_is_let_go(node: Node) -> None:
    task = Task(node)
    fd = taken(task, 1, 200_000)
    os.write(fd, b"x" * 200_000)
    node.sessions.tell(light.CloseSession(task.id))
    os.close(fd)
    task.close()
    answers(node)

    def is_let_go() -> bool:
        node.depot.trim(0, 0)
        return not list(node.depot)

    wait_until(is_let_go)  # by the thread that wrote it


def taken(task: Task, number: int, size: int) -> int:
    """The descriptor of a memory of that size."""
    task.attempt.send({"k": "memory", "n": number, "size": size})
    received = task.attempt.receive()
    assert received is not None
    message, (fd,) = received
    assert message["memory"] == number
    return fd
