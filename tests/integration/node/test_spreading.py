"""What several nodes of a swarm read leaves the manager twice at most."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import Future
from hashlib import sha256
from typing import Any

import pytest

from manta import Module, Swarm, Task
from manta.node.blobs.arriving import Arriving, ArrivingSource
from manta.node.link import local_blobs, node_depot
from manta.node.link.local_blobs import LocalFetches
from manta.node.link.node_depot import NodeDepot
from manta.node.link.peer_hub import PeerHub
from manta.node.service import Node
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.server import BulkServer
from manta.transports.errors import BlobMissing, BlobRefused

NODES = 5
HERE = LocalFetches.fetch
SIZE = 40 << 20

pytestmark = [
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


def elsewhere(*_: Any) -> Future[None]:
    """As from nodes on other machines."""
    future: Future[None] = Future()
    future.set_exception(BlobMissing("that node is not on this machine"))
    return future


@pytest.fixture
def planes(monkeypatch: pytest.MonkeyPatch) -> Planes:
    """Begins before the manager does. Nodes do not find each other on this machine."""
    monkeypatch.setattr(LocalFetches, "fetch", elsewhere)
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


def test_modules_are_spread_as_globals_are(planes, lab) -> None:
    nodes = [lab.node(number) for number in range(1, NODES + 1)]
    # Random characters, of which lz4 makes few less.
    ballast = b64encode(os.urandom(15 << 20)).decode()
    code = f"{READS}\nBALLAST = {ballast!r}\n"
    read_by_all(lab, b"small", code=code)
    sent = planes.sent(lab.file.public_key)
    assert len(code) <= sent <= 2 * len(code) + (1 << 20)
    assert sum(map(planes.of_node, nodes)) >= (NODES - 2) * len(code)


WRITES = f"""
import os
from manta.light import World

def main():
    world = World()
    world.globals["value"] = os.urandom({SIZE})
    world.results.add("value", os.urandom({SIZE}))
"""
READS_BOTH = """
from manta.light import World

def main():
    world = World()
    (result,) = world.results.select("value").values()
    world.results.add("read", len(world.globals["value"]) + len(result))
"""


class WritesAndReads(Swarm):
    """Written on one node, and read on all."""

    def execute(self) -> Task:
        write = Task(Module(WRITES, name="writes"), method="any")
        return Task(Module(READS_BOTH, name="reads"))(write())


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "gone"])
def test_what_a_task_wrote_is_fetched_from_its_node_while_that_has_it(
    planes, lab, monkeypatch, is_there: bool
) -> None:
    nodes = [lab.node(number) for number in range(1, NODES + 1)]
    if not is_there:

        def gone(*_: Any) -> Any:
            raise BlobMissing("others took its room")

        monkeypatch.setattr(PeerHub, "_source", gone)
    api = lab.api()
    swarm = lab.run(api, WritesAndReads())
    found = api.select_results(swarm, "read")
    assert [one.value for one in found] == [2 * SIZE] * NODES
    others, sent = NODES - 1, planes.sent(lab.file.public_key)
    if is_there:
        assert sent < 1 << 20
        assert sum(map(planes.of_node, nodes)) >= 2 * (others + 1) * SIZE  # and to the manager
    else:
        assert sent >= 2 * others * SIZE


@pytest.mark.parametrize("how", ["falls silent", "is cut off"])
def test_a_source_that_ends_in_mid_transfer_is_replaced(
    planes, lab, monkeypatch, caplog, how: str
) -> None:
    """The first node that serves another one ceases to."""
    for number in range(1, NODES + 1):
        lab.node(number)
    ended: list[BulkServer] = []
    received = BulkServer.received

    def receive(self: BulkServer, route: bytes, key: str, *args: Any) -> bool:
        of_node = isinstance(self._depot, NodeDepot)
        if of_node and not ended and self._total.sent > SIZE // 10:
            ended.append(self)
            if how == "is cut off":
                self._admission.replace_known(())
        return True if ended and self is ended[0] else received(self, route, key, *args)

    monkeypatch.setattr(BulkServer, "received", receive)
    read_by_all(lab, os.urandom(SIZE))
    assert ended
    assert "is fetched from another source" in caplog.text
    # It went on where it was: no node had more than it needs, but for what was on its way.
    came = sum(plane.statistics.received for made in planes.made.values() for plane in made)
    assert came < (NODES + 1) * SIZE + (8 << 20)


def test_who_passes_on_wrong_bytes_is_named_and_another_is_asked(
    planes, lab, monkeypatch, caplog
) -> None:
    for number in range(1, NODES + 1):
        lab.node(number)
    lies: list[int] = []

    def forged(read: Callable[[Any, int, int], Any]) -> Callable[[Any, int, int], Any]:
        def lie(self: Any, offset: int, length: int) -> Any:
            data = bytearray(read(self, offset, length))
            if len(lies) < 40:
                lies.append(offset)
                data[0] ^= 1
            return bytes(data)

        return lie

    # What a node passes on while it arrives, and when all of it has.
    for source in (ArrivingSource, node_depot._Pinned):
        monkeypatch.setattr(source, "read", forged(source.read))
    read_by_all(lab, os.urandom(SIZE))
    assert lies
    assert "arrived with wrong bytes, from node-" in caplog.text


def test_nodes_that_only_dial_are_served_and_serve_nobody(planes, lab) -> None:
    nodes = [lab.node(1), *(lab.node(n, peers={"listen": "off"}) for n in range(2, NODES + 1))]
    read_by_all(lab, os.urandom(SIZE))
    assert [planes.of_node(node) > 0 for node in nodes[1:]] == [False] * (NODES - 1)
    assert planes.sent(lab.file.public_key) <= NODES * SIZE + (1 << 20)


def test_a_node_without_room_says_so_and_the_others_have_it(planes, lab) -> None:
    nodes = [lab.node(number) for number in range(1, NODES + 1)]

    def full(digest: str, size: int) -> Any:
        raise BlobRefused("no room for a blob")

    nodes[0].context.values.draft = full
    api = lab.api()
    value = os.urandom(SIZE)
    swarm = api.deploy_swarm("lab", Reads(value))
    ended = api.wait_swarm(swarm, timeout=60)
    assert ended.status == "FAILED"
    found = api.select_results(swarm, "read")
    assert {one.value for one in found} <= {sha256(value).hexdigest()}
    assert any("no room" in error.sentence for error in api.collect_errors(swarm))


def test_memory_for_less_than_a_value_is_no_obstacle(planes, lab) -> None:
    small = {"resources": {"value_memory_mb": 8}}
    for number in range(1, NODES + 1):
        lab.node(number, **(small if number % 2 else {}))
    read_by_all(lab, os.urandom(SIZE))
    assert planes.sent(lab.file.public_key) <= 2 * SIZE + (1 << 20)


def test_nodes_on_one_machine_pass_it_to_each_other(planes, lab, monkeypatch) -> None:
    monkeypatch.setattr(LocalFetches, "fetch", HERE)
    nodes = [lab.node(number) for number in range(1, NODES + 1)]
    read_by_all(lab, os.urandom(SIZE))
    assert planes.sent(lab.file.public_key) <= 2 * SIZE + (1 << 20)
    assert sum(map(planes.of_node, nodes)) < 1 << 20


def test_nodes_that_are_to_be_linked_as_others_are_pass_nothing(planes, lab, monkeypatch) -> None:
    monkeypatch.setattr(LocalFetches, "fetch", HERE)
    sealed = {"peers": {"links": "sealed"}}
    nodes = [lab.node(number, **sealed) for number in range(1, NODES + 1)]
    read_by_all(lab, os.urandom(SIZE))
    assert planes.sent(lab.file.public_key) <= 2 * SIZE + (1 << 20)
    assert sum(map(planes.of_node, nodes)) >= SIZE


def test_what_is_passed_and_evicted_at_once_is_moved(planes, lab, monkeypatch) -> None:
    monkeypatch.setattr(LocalFetches, "fetch", HERE)

    def evicted(_: Arriving) -> None:
        raise BlobMissing("it made room for others")

    monkeypatch.setattr(Arriving, "came", evicted)
    nodes = [lab.node(number) for number in range(1, NODES + 1)]
    read_by_all(lab, os.urandom(SIZE))
    assert sum(map(planes.of_node, nodes)) >= (NODES - 2) * SIZE


def test_where_there_is_no_room_for_what_is_passed_it_is_moved(planes, lab, monkeypatch) -> None:
    monkeypatch.setattr(LocalFetches, "fetch", HERE)

    def full(fd: int, *_: Any) -> None:
        os.close(fd)
        raise BlobRefused("no room")

    monkeypatch.setattr(local_blobs, "_kept", full)
    nodes = [lab.node(number) for number in range(1, NODES + 1)]
    read_by_all(lab, os.urandom(SIZE))
    assert sum(map(planes.of_node, nodes)) >= (NODES - 2) * SIZE
