"""Real nodes know of each other what a real manager tells them, and tell it a plane."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from manta import Module, Swarm, Task
from manta.actors import Actor, ChildSpec
from manta.node.doctor.configuration import examine
from manta.node.link.peer_directory import NeedRoster, TellPlane
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.peers.known import KnownPeers
from manta.node.peers.listening import CannotListen
from manta.node.peers.rosters import RosterChanged, RosterDiffers
from manta.node.service import Node
from manta.node.shared.addresses import PEER_DIRECTORY
from manta.protocol.peers import Peer
from manta.protocol.roster import Roster
from manta.roster import differences
from manta.testing import crash, wait_for_successor
from manta.transports.addresses import split_address

pytestmark = [pytest.mark.parametrize("lab", [3], indirect=True)]

WAITS = """
import time
from manta.light import World

def main():
    world = World()
    while not world.globals.get("go", False):
        time.sleep(0.05)
"""


class Waits(Swarm):
    """On the nodes that are named, until it may go on."""

    def __init__(self, *aliases: str, **task: Any) -> None:
        super().__init__()
        self._task = {**task, "specified_ids": list(aliases)}
        self.set_global("go", False)

    def execute(self) -> Task:
        return Task(Module(WAITS, name="waits"), **self._task)


class Plane(Actor):
    """Keeps what it is told."""

    def __init__(self, keeps: Feed) -> None:
        self._feed = keeps

    def on_start(self) -> None:
        self.notify(PEER_DIRECTORY, TellPlane(self.ref))

    def receive(self, message: Any) -> None:
        self._feed.told(message)


class Feed:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.messages: list[Any] = []
        self.known = KnownPeers()
        self.cut: list[str] = []
        self.lock = threading.Lock()
        self.plane = node.system.spawn(ChildSpec("plane", lambda: Plane(self)))

    def told(self, message: Any) -> None:
        with self.lock:
            self.messages.append(message)
            if isinstance(message, DirectoryChanged | DirectoryOver | PeersAnew):
                self.cut += self.known.apply(message)

    def peers(self, swarm: str, *nodes: Node) -> list[Peer | None]:
        with self.lock:
            return [self.known.peer(swarm, node.context.keys.public) for node in nodes]

    def all_of(self, *kinds: type) -> list[Any]:
        with self.lock:
            return [message for message in self.messages if isinstance(message, kinds)]

    def need(self, swarm: str, *, needed: bool = True) -> None:
        self.node.system.ref(PEER_DIRECTORY).tell(NeedRoster(swarm, needed))


@pytest.fixture
def running(lab) -> Callable[..., tuple[str, list[Node], list[Feed]]]:
    """Nodes, and a swarm that waits on the first two of them."""

    def start(**task: Any) -> tuple[str, list[Node], list[Feed]]:
        nodes = [lab.node(number) for number in (1, 2, 3)]
        feeds = [Feed(node) for node in nodes]
        api = lab.api()
        swarm = api.deploy_swarm("lab", Waits("node-1", "node-2", **task)).swarm_id
        lab.wait_until(lambda: [one.status for one in api.get_tasks(swarm)] == ["RUNNING"] * 2)
        lab.wait_until(lambda: all(map(all, (feed.peers(swarm, *nodes[:2]) for feed in feeds[:2]))))
        return swarm, nodes, feeds

    return start


def test_nodes_of_a_swarm_can_reach_each_other(lab, running) -> None:
    swarm, nodes, feeds = running()
    for feed in feeds[:2]:
        for peer, node in zip(feed.peers(swarm, *nodes[:2]), nodes[:2], strict=True):
            assert (peer.alias, peer.node_id) == (
                node.context.config.alias,
                node.context.identity.node_id,
            )
            assert ("127.0.0.1", node.context.peer_socket.port) in map(
                split_address, peer.addresses
            )
    # The third has no part in it.
    assert feeds[2].known.epoch(swarm) is None
    assert feeds[0].peers(swarm, nodes[2]) == [None]
    api = lab.api()
    api.set_global(swarm, "go", True)
    assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    lab.wait_until(lambda: not any(feed.known.keys for feed in feeds))
    assert feeds[0].all_of(DirectoryOver) == [DirectoryOver(swarm)]
    for node in nodes[:2]:  # last, as it has the plane begin, which takes the feed's place
        with closing(socket.create_connection(("127.0.0.1", node.context.peer_socket.port), 5)):
            pass


def test_a_node_that_is_removed_is_to_be_cut_off(lab, running) -> None:
    swarm, nodes, feeds = running(quorum=0.5, deadline=60.0)
    api = lab.api()
    api.remove_node(nodes[1].context.identity.node_id)
    lab.wait_until(lambda: nodes[1].context.keys.public in feeds[0].cut)
    why = feeds[0].known.departed(swarm, nodes[1].context.identity.node_id)
    assert why is not None
    assert why.why == "revoked"
    # The node that was removed is told that it was, and ends.
    lab.wait_until(lambda: lab.finished)


def test_while_the_manager_is_away_and_after_it_came_back_nobody_departs(lab, running) -> None:
    swarm, nodes, feeds = running()
    before = feeds[0].peers(swarm, *nodes[:2])
    lab.stop_manager()
    for number in (1, 2):
        lab.wait_for(lab.state(f"node-{number}"), "lost", "unreachable", "connecting")
    assert feeds[0].peers(swarm, *nodes[:2]) == before
    lab.start_manager()
    for number in (1, 2):
        lab.wait_for(lab.state(f"node-{number}"), "connected")
    api = lab.api()
    api.set_global(swarm, "go", True)
    assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    both = sorted(node.context.keys.public for node in nodes[:2])
    lab.wait_until(lambda: all(feed.cut == both for feed in feeds[:2]))
    for feed in feeds[:2]:
        assert not any(change.departed for change in feed.all_of(DirectoryChanged))


def test_a_plane_that_starts_anew_is_told_all(lab, running) -> None:
    swarm, nodes, feeds = running()
    again = Feed.__new__(Feed)
    feeds[0].plane.stop()
    feeds[0].plane.wait(60)
    again.__init__(nodes[0])  # type: ignore[misc]
    lab.wait_until(lambda: all(again.peers(swarm, *nodes[:2])))
    assert isinstance(again.messages[0], PeersAnew)


def test_what_is_known_outlives_the_actor_that_keeps_it(lab, running) -> None:
    swarm, nodes, feeds = running()
    anew = len(feeds[0].all_of(PeersAnew))
    keeper = nodes[0].system.find(PEER_DIRECTORY)
    crash(keeper)
    wait_for_successor(nodes[0].system, keeper)
    lab.wait_until(lambda: len(feeds[0].all_of(PeersAnew)) > anew)
    assert all(feeds[0].peers(swarm, *nodes[:2]))
    assert feeds[0].cut == []


def test_a_plane_that_needs_a_roster_is_told_what_becomes_of_the_tasks(lab, running) -> None:
    swarm, _, feeds = running()
    feed = feeds[0]
    feed.need(swarm)

    def states() -> dict[str, str]:
        roster: Roster | None = None
        for news in feed.all_of(RosterChanged, RosterDiffers):
            is_whole = isinstance(news, RosterChanged)
            roster = news.roster if is_whole else differences.apply(news.parts, roster)
        tasks = () if roster is None else roster.tasks.values()
        return {one.node_alias: one.state for task in tasks for one in task.instances}

    lab.wait_until(lambda: states() == {"node-1": "RUNNING", "node-2": "RUNNING"}, what=states)
    assert feeds[1].all_of(RosterChanged) == []
    # Over another link it is asked for again.
    told = len(feed.all_of(RosterChanged))
    lab.stop_manager()
    lab.start_manager()
    lab.wait_until(lambda: len(feed.all_of(RosterChanged)) > told)
    feed.need(swarm, needed=False)
    assert lab.api().get_swarm(swarm).status == "ACTIVE"


def test_a_node_that_only_dials_has_no_address(lab) -> None:
    dials = lab.node(1, peers={"listen": "off"})
    assert dials.context.peer_socket is None
    other = lab.node(2)
    feed = Feed(other)
    swarm = lab.api().deploy_swarm("lab", Waits("node-1", "node-2")).swarm_id
    lab.wait_until(lambda: all(feed.peers(swarm, dials, other)))
    [seen] = feed.peers(swarm, dials)
    assert seen is not None
    assert seen.addresses == ()


def test_what_is_advertised_is_told(lab) -> None:
    lab.node(1, peers={"listen": "127.0.0.1:0", "advertise": ["gate.example:7", "10.0.0.9"]})
    other = lab.node(2)
    feed = Feed(other)
    one = lab.nodes[0]
    swarm = lab.api().deploy_swarm("lab", Waits("node-1", "node-2")).swarm_id
    lab.wait_until(lambda: all(feed.peers(swarm, one, other)))
    [seen] = feed.peers(swarm, one)
    assert seen is not None
    own = one.context.peer_socket.port
    assert seen.addresses[:2] == ("tcp://gate.example:7", f"tcp://10.0.0.9:{own}")
    # The manager sees it at loopback, and so the other.
    assert f"tcp://127.0.0.1:{own}" in seen.addresses


def test_a_node_whose_port_is_taken_does_not_start_and_the_doctor_says_so(
    lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        config = lab.config("node-1", peers={"listen": where})
        with pytest.raises(CannotListen, match=rf"at {where} \(peers.listen\): .*choose another"):
            lab.start(config, lab.known(1))

        def findings(listen: str) -> list[tuple[str, str]]:
            text = config.path.read_text().replace(where, listen)
            home = lab.folder / "home" / "nodes"
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            home.joinpath("edge.toml").write_text(text)
            home.joinpath("edge.toml").chmod(0o600)
            monkeypatch.setenv("MANTA_HOME", str(lab.folder / "home"))
            found = examine("edge", lab.state("edge"), offline=True)
            return [(str(one.level), one.sentence) for one in found if one.check == "peers"]

        [(level, sentence)] = findings(where)
        assert (level, where in sentence) == ("fault", True)
        [(level, sentence)] = findings("127.0.0.1:0")
        assert (level, "tells them 127.0.0.1:" in sentence) == ("ok", True)
        [(level, sentence)] = findings("off")
        assert (level, sentence) == ("ok", 'No node connects to this one: peers.listen is "off".')
