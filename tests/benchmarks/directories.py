"""Until nodes are told of each other, in one process with their manager. Goal: of a node that was
removed, within a second.

A swarm is placed on all nodes; then one after another is removed. Measured from the user's request
until the last of the others has heard of it, and what it costs the machine that decides.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from manta.manager.cluster.peers import Directories, Known
from manta.manager.service import Manager, Settings
from manta.protocol.clusters import RemoveNode
from manta.protocol.node import Assignment, JournalEntry, TaskStarted
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import SendSwarm, StartSwarm
from manta.testing.manager import Client, FakeNode
from manta.transports.security.keys import KeyPair
from tests.benchmarks._measure import spread

ANY = "tcp://127.0.0.1:0"
SPEC = SwarmSpec(
    "s", (TaskSpec("task", "m", quorum=0.01, deadline=600.0),), (ModuleSpec("m", image="none"),)
)


def main() -> None:
    for count in (4, 8, 24):
        _with_nodes(count)
    for count in (100, 1000):
        _alone(count)


def _silent(assignment: Assignment) -> list[JournalEntry]:
    return [TaskStarted(assignment.instance, 0.0)]


def _with_nodes(count: int) -> None:
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="manta-bench-")))
        admin, keys = KeyPair.generate(), [KeyPair.generate() for _ in range(count)]
        bootstrap = folder / "bootstrap.json"
        nodes = [{"alias": f"node-{n}", "key": one.public} for n, one in enumerate(keys)]
        bootstrap.write_text(
            json.dumps(
                {
                    "admin": {"email": "me@localhost", "key": admin.public},
                    "cluster": {"name": "lab"},
                    "nodes": nodes,
                }
            )
        )
        bootstrap.chmod(0o600)
        settings = Settings(folder / "manager", ANY, ANY, ANY, bootstrap=bootstrap)
        file = undo.enter_context(Manager(settings)).file
        there = [
            undo.enter_context(
                FakeNode(
                    file.nodes,
                    file.public_key,
                    alias=f"node-{number}",
                    keys=one,
                    script=_silent,
                    peer_addresses=(f"tcp://127.0.0.1:{7000 + number}",),
                )
            )
            for number, one in enumerate(keys)
        ]
        for node in there:
            assert node.registered.wait(20)
        client = undo.enter_context(Client(file.users, file.public_key, keys=admin))
        swarm = client.ask(SendSwarm("lab", SPEC)).swarm_id
        began = time.perf_counter()
        client.ask(StartSwarm(swarm))
        ids = {node.node_id for node in there}
        _until(lambda: all(_knows(node, swarm, ids) for node in there))
        placed = time.perf_counter() - began
        took = []
        while len(there) > max(2, count - 10):
            gone = there.pop()
            began = time.perf_counter()
            client.ask(RemoveNode(gone.node_id))
            _until(partial(_all_heard, there, swarm, gone.node_id))
            took.append(time.perf_counter() - began)
        print(f"{count} nodes: all know each other {placed * 1000:.0f} ms after the start;")
        print(f"  a removal is told everybody after {spread(took)}")


def _knows(node: FakeNode, swarm: str, ids: set[str]) -> bool:
    return all(node.directories.peer(swarm, one) for one in ids)


def _all_heard(nodes: list[FakeNode], swarm: str, gone: str) -> bool:
    return all(node.directories.departed(swarm, gone) for node in nodes)


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("not within 20 s")
        time.sleep(0.0005)


def _alone(count: int) -> None:
    directories = Directories()
    for number in range(count):
        where = (f"tcp://10.0.{number // 250}.{number % 250 + 1}:7000",)
        directories.here(Known(f"{number:016d}", f"node-{number}", "k" * 40, where))
    directories.begins("s", "")
    began = time.perf_counter()
    for number in range(count):
        directories.assigned("s", f"{number:016d}", 0)
    directories.flush()
    whole = time.perf_counter()
    directories.removed(f"{0:016d}", "it was removed")
    directories.flush()
    removed = time.perf_counter()
    for number in range(1, count):
        directories.assigned("s", f"{number:016d}", 1)
    directories.flush()
    again = time.perf_counter()
    print(
        f"{count} nodes, the machine alone: first placed {(whole - began) * 1000:.1f} ms, one "
        f"removed {(removed - whole) * 1000:.2f} ms, the next iteration "
        f"{(again - removed) * 1000:.2f} ms"
    )
