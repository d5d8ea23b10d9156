"""How nodes are linked: what they tell, who may see it, and what the manager relays for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from manta.actors import ActorError, Refused
from manta.protocol.clusters import GetNodeLinks, RemoveNode
from manta.protocol.node import Heartbeat, Load, TaskStarted
from manta.protocol.peers import MOST_LINKS, LinkKind, PeerLink
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import SendSwarm, StartSwarm
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode
from manta.transports.errors import DownReason
from manta.transports.interface import Buffer, Link
from manta.transports.relay import wire
from manta.transports.relay.wire import Kind, Purpose
from manta.transports.zeromq.transport import ZmqTransport

LINK = PeerLink("id", "node-2", LinkKind.RELAYED, 1.5, 10, 20, 0.25, "tcp://a:1: unreachable")


def silent(assignment):
    return [TaskStarted(assignment.instance, 0.0)]


@pytest.fixture
def started(bench) -> list[FakeNode]:
    made = [
        bench.node(number, silent, peer_addresses=(f"tcp://127.0.0.1:{7000 + number}",))
        for number in (1, 2, 3)
    ]
    for node in made:
        assert node.registered.wait(60)
    return made


def deploy(client: Client, *nodes: FakeNode) -> str:
    ids = tuple(node.node_id for node in nodes)
    spec = SwarmSpec(
        "s", (TaskSpec("task", "m", specified_ids=ids),), (ModuleSpec("m", image="none"),)
    )
    swarm: str = client.ask(SendSwarm("lab", spec)).swarm_id
    client.ask(StartSwarm(swarm))
    return swarm


class Plane:
    """A node's plane, as a relay sees it."""

    def __init__(self, bench, node: FakeNode) -> None:
        self.key = node.keys.public
        self.transport = ZmqTransport(node.keys)
        self.said: list[wire.Said] = []
        self.up = threading.Event()
        self.link = self.transport.dial(bench.nodes_at, bench.key, self)
        assert self.up.wait(60)
        self.say(wire.HERE)

    def say(self, said: wire.Said) -> None:
        self.link.send(said.pack())

    def heard(self, kind: Kind) -> Callable[[], bool]:
        return lambda: any(said.kind is kind for said in self.said)

    def link_up(self, link: Link) -> None:
        self.up.set()

    def link_down(self, link: Link, reason: DownReason) -> None:
        self.up.clear()

    def received(self, link: Link, message: list[Buffer]) -> None:
        self.said.append(wire.unpack(message))

    def close(self) -> None:
        self.transport.close()


def opened(one: Plane, two: Plane, number: int) -> bool:
    """Whether a stream from one to the other is. The relay may yet have to hear of the other."""
    one.said.clear()
    two.said.clear()
    one.say(wire.opening(number, Purpose.LINK, two.key))
    wait_until(lambda: bool(one.said or two.said))
    return bool(two.said)


def test_a_manager_relays_for_nodes_of_one_swarm_and_no_others(
    bench, admin: Client, started: list[FakeNode]
) -> None:
    deploy(admin, *started[:2])
    wait_until(lambda: bool(started[0].directories.all() and started[1].directories.all()))
    planes = [Plane(bench, node) for node in started]
    with closing(planes[0]) as one, closing(planes[1]) as two, closing(planes[2]) as other:
        numbers = iter(range(100))
        wait_until(lambda: opened(one, two, next(numbers)))
        stream = two.said[0].stream
        two.say(wire.credit(stream, wire.REPORT))
        wait_until(one.heard(Kind.CREDIT))
        number = next(said.stream for said in one.said if said.kind is Kind.CREDIT)
        one.say(wire.data(number, b"sealed"))
        wait_until(lambda: wire.data(stream, b"sealed") in two.said)
        for attempt in range(3):
            assert not opened(other, two, attempt)
            assert not opened(one, other, 1000 + attempt)
        # Who is removed is cut off, and so is what was relayed for it.
        admin.ask(RemoveNode(started[0].node_id))
        wait_until(lambda: not one.up.is_set())
        wait_until(lambda: wire.Kind.CLOSE in [said.kind for said in two.said])


def test_users_see_how_a_node_is_linked_while_it_is_connected(
    bench, admin: Client, started: list[FakeNode]
) -> None:
    one, *_ = started
    assert admin.ask(GetNodeLinks("node-1")).links == ()
    other = PeerLink("id3", "a", LinkKind.DIRECT, 0.0, 0, 0)
    one.ask(Heartbeat(0, Load(), links=(LINK, other)))
    told = admin.ask(GetNodeLinks("node-1"))
    assert (told.node_id, told.alias, told.links) == (one.node_id, "node-1", (other, LINK))
    one.ask(Heartbeat(0, Load()))
    assert admin.ask(GetNodeLinks("node-1")).links == (other, LINK)
    one.ask(Heartbeat(0, Load(), links=()))
    assert admin.ask(GetNodeLinks("node-1")).links == ()
    with pytest.raises(Refused):
        admin.ask(GetNodeLinks("node-9"))


def test_what_a_node_tells_of_its_links_is_bounded(started: list[FakeNode]) -> None:
    one, two, _ = started
    one.ask(Heartbeat(0, Load(), links=(LINK,) * MOST_LINKS))
    registrations = one.registrations, two.registrations
    for node, links in ((one, (LINK,) * (MOST_LINKS + 1)), (two, (long_error(),))):
        with pytest.raises(ActorError):
            node.ask(Heartbeat(0, Load(), links=links))
    wait_until(
        lambda: one.registrations > registrations[0] and two.registrations > registrations[1]
    )


def long_error() -> PeerLink:
    return PeerLink("id", "a", LinkKind.DOWN, 0.0, 0, 0, 0.0, "x" * 301)
