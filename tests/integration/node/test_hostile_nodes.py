"""Whoever holds the key of a node of a swarm: what it says to other nodes costs its own links, and
never reaches a task that it is not for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

from manta.node.plane.envelope import Ping, pack
from manta.transports.codec.values import encode
from manta.transports.errors import DownReason
from manta.transports.exchange.messages import (
    Known,
    KnownLetters,
    Parcel,
    SentBroadcast,
    SentLetter,
)
from manta.transports.interface import Buffer, Link
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.links import ZmqLink
from manta.transports.zeromq.transport import ZmqTransport
from tests.integration.node.conftest import CLUSTER, Lab
from tests.support.ports import free_ports
from tests.support.swarms import One

three_nodes = pytest.mark.parametrize("lab", [3], indirect=True)

TALK = """
    import time
    from manta.light import World
    from manta.light.errors import LightError
    def main():
        world = World()
        if world.rank == 1:  # of the node whose key somebody else has
            while not world.globals.get("go"):
                time.sleep(0.05)
            return None
        other = f"node-{3 - world.rank}"
        for number in range(40):
            world.send_to_node(other, "x", [number, bytes(100_000)])
            assert world.receive_from_node(other, "x")[0] == number
            if number == 0:
                print("linked", flush=True)
                while not world.globals.get("go"):
                    time.sleep(0.05)
        heard = {}
        for source, tag in (("node-2", "of another time"), (other, "of another node")):
            try:
                heard[tag] = world.receive_from_node(source, tag, timeout=0.5)
            except LightError:
                continue
        return heard
    """
APART = """
    import time
    from manta.light import World
    from manta.light.errors import LightError
    def main():
        world = World()
        other = "node-3" if world.rank == 0 else "node-1"
        world.send_to_node(other, "x", 1)
        world.receive_from_node(other, "x")
        print("linked", flush=True)
        while not world.globals.get("go"):
            time.sleep(0.05)
        heard = []
        for wait in (
            lambda: world.receive_from_node("node-2", "forged", timeout=0.5),
            lambda: world.get_broadcast("forged", timeout=0.5),
        ):
            try:
                heard.append(wait())
            except LightError:
                continue
        return heard
    """


class Intruder:
    """Connects to a node's plane with the key of another node, and says what it likes."""

    def __init__(self, keys: KeyPair, address: str, key: str) -> None:
        self.up, self.cut = threading.Event(), threading.Event()
        self.transport = ZmqTransport(keys)
        self._link = self.transport.dial(address, key, self)
        assert self.up.wait(60)

    def link_up(self, link: Link) -> None:
        self.up.set()

    def link_down(self, link: Link, reason: DownReason) -> None:
        if self.up.is_set():
            self.cut.set()

    def received(self, link: Link, message: list[Buffer]) -> None:
        """Answers may as well go to the node whose key this is: over the link that came first."""

    def say(self, data: bytes) -> None:
        self._link.send([data])

    def is_heard(self) -> bool:
        """Whether the node has taken all that was said."""
        link = self._link
        assert isinstance(link, ZmqLink)
        return link._acknowledged == link._sent > 0


@contextmanager
def intruder(lab: Lab, port: int) -> Iterator[Intruder]:
    """As node-2, at node-1."""
    found = Intruder(lab.keys[1], f"tcp://127.0.0.1:{port}", lab.keys[0].public)
    try:
        yield found
    finally:
        found.transport.close()


def letter(tag: str, rank: int = 1, **fields: Any) -> SentLetter:
    value = encode("forged").to_bytes()
    given: dict[str, Any] = {
        "era": 0,
        "task": "code",
        "rank": rank,
        "tag": tag,
        "serial": 0,
        "value": value,
    }
    return SentLetter(**given | fields)


def broken(swarm_id: str) -> list[bytes]:
    """What nobody says who keeps to the rules."""
    known = Known((KnownLetters("t", 0, "code", 1, 5, (0,) * 1001),), is_last=True)
    whole = pack(swarm_id, "", letter("t"))
    return [
        os.urandom(64),
        whole[:-3],
        pack(swarm_id, "", letter("t", serial=1 << 60)),
        pack(swarm_id, "", known),
    ]


@three_nodes
def test_garbage_and_what_is_not_its_own_to_say_costs_a_node_its_link(lab: Lab) -> None:
    (port,) = free_ports(1)
    both = {"max_concurrent_tasks": 2}
    lab.node(1, peers={"listen": f"127.0.0.1:{port}"}, resources=both)
    lab.node(2)
    lab.node(3, resources=both)
    api = lab.api()
    swarm = api.deploy_swarm(CLUSTER, One(TALK))
    apart = api.deploy_swarm(CLUSTER, One(APART, specified_ids=["node-1", "node-3"]))
    lab.wait_until(lambda: len(api.collect_logs(swarm)) == len(api.collect_logs(apart)) == 2)
    before = planes()
    for said in broken(swarm.swarm_id):
        with intruder(lab, port) as guest:
            guest.say(said)
            assert guest.cut.wait(60), said
    with intruder(lab, port) as guest:
        for said in (
            pack(swarm.swarm_id, "another epoch", letter("of another time")),
            pack(swarm.swarm_id, "", letter("of another node", rank=2)),
            pack(apart.swarm_id, "", letter("forged")),
            pack(apart.swarm_id, "", letter("forged", value=Parcel(bytes(16), 1 << 40))),
            pack(apart.swarm_id, "", SentBroadcast(0, "code", 1, "forged", 9, b"")),
            pack("no swarm at all", "", letter("forged")),
            pack("", "", Ping(7)),
        ):
            guest.say(said)
        lab.wait_until(guest.is_heard)
        assert not guest.cut.is_set()
    for each in (swarm, apart):
        api.set_global(each, "go", True)
        ended = api.wait_swarm(each, timeout=60)
        assert ended.status == "COMPLETED", (ended.reason, api.collect_errors(each))
    assert [task.output for task in api.get_tasks(swarm)] == [{}, None, {}]
    assert [task.output for task in api.get_tasks(apart)] == [[], []]
    assert planes() >= before  # none has ended


def planes() -> set[int]:
    """The processes of this process's nodes' planes."""
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found |= {child.pid} if "manta.node.plane" in child.cmdline() else set()
    return found
