"""What peers say of collectives: as their links take it, and as there is room for it."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest

from manta.node.plane.collectives import early, memory, peers, post
from manta.node.plane.collectives.early import MessageRoom
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.messages import (
    CallName,
    CollectiveSaid,
    CollectivesHeard,
    Introduced,
    Places,
    Side,
    packed,
)
from manta.node.plane.collectives.peers import Peers
from manta.node.plane.collectives.post import OVERHEAD, Heard
from manta.transports.collectives.messages import Aborted, Message
from manta.transports.errors import RemoteProtocolError
from tests.support.budgets import Budget

WHERE = Places(0, b"")
PART = 100


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "PART", PART)
    monkeypatch.setattr(post, "WINDOW", 3_000)
    monkeypatch.setattr(early, "OF_A_NODE", 2_000)
    monkeypatch.setattr(early, "OF_ALL", 5_000)
    monkeypatch.setattr(peers, "FULL", 10_000)
    monkeypatch.setattr(peers, "UNHEARD", 50_000)
    monkeypatch.setattr(memory, "LEAST_SMALL", 0)


def name(number: int) -> CallName:
    return CallName(0, "w", number)


def message(size: int) -> Message:
    return Aborted("Error", "x" * size)


class Desk:
    """Peers of one node; implements what they need of its plane, and of its desk."""

    def __init__(self, me: str, net: dict[str, Desk]) -> None:
        self.me, self.net = me, net
        token = b"again" if me in net else me.encode()
        net[me] = self
        self.now = 0.0
        self.budget = Budget(1 << 20, 0, Path())
        pool = Pool(self.budget, self.clock)
        self.on_way: dict[str, deque[Any]] = {}
        """By who says it."""
        self.takes = True
        """Does the roster say where calls are carried out?"""
        self.link = 10_000
        """Bytes that a link takes."""
        self.got: list[tuple[str, int]] = []
        self.cuts: list[str] = []
        self.events: list[str] = []
        self.again = 0
        """So many messages are said again to a peer that begins anew."""
        self.asked = 0
        """How often it was seen whether a message can be heard."""
        self.peers = Peers("s", token, 7, self, self, pool, MessageRoom(pool))  # type: ignore[arg-type]

    # What it does for them.

    def tell(self, swarm_id: str, peer: str, told: Any) -> None:
        self.net[peer].on_way.setdefault(self.me, deque()).append(told)

    def on_link(self, peer: str) -> int:
        queue = self.net[peer].on_way.get(self.me, ())
        return sum(OVERHEAD + len(getattr(one, "part", b"")) for one in queue)

    def has_room(self, swarm_id: str, peer: str) -> bool:
        return self.on_link(peer) < self.link

    def is_up(self, swarm_id: str, peer: str) -> bool:
        return True

    def cut(self, swarm_id: str, peer: str, why: str) -> None:
        self.cuts.append(why)

    def clock(self) -> float:
        return self.now

    # The listener.

    def take(self, node: str, heard: Heard) -> bool:
        self.asked += 1
        if self.takes:
            self.got.append((node, heard.call.number))
        return self.takes

    def begun_anew(self, node: str) -> None:
        self.events.append(f"anew {node}")
        for number in range(self.again):
            self.say(node, number, 150)

    def lost_by(self, node: str) -> None:
        self.events.append(f"lost by {node}")

    def lost(self, node: str, why: str) -> None:
        self.events.append(f"lost {node}: {why}")

    def took(self, node: str) -> None:
        self.events.append(f"took {node}")

    # What happens.

    def say(self, peer: str, number: int, size: int = 0) -> None:
        self.peers.say(peer, name(number), WHERE, message(size))

    def hear(self) -> bool:
        for source, queue in self.on_way.items():
            if queue:
                self.peers.handle(source, queue.popleft())
                return True
        return False

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        if self.peers.due is not None and self.peers.due <= self.now:
            self.peers.tick(self.now)


def met(*names: str) -> dict[str, Desk]:
    net: dict[str, Desk] = {}
    for one in names:
        Desk(one, net)
    for one in names:
        for other in names:
            if one != other:
                net[one].peers.link_up(other)
    settle(net)
    return net


def settle(net: dict[str, Desk], seconds: float = 0.0) -> None:
    """Until nothing happens any more, for a while."""
    for _ in range(100_000):
        heard = [one.hear() for one in net.values()]
        if not any(heard):
            if seconds <= 0:
                return
            seconds -= 0.01
            for one in net.values():
                one.pass_(0.01)
    raise AssertionError("it does not end")


def test_no_more_is_said_than_a_link_takes_and_the_rest_once_it_has_room() -> None:
    net = met("a", "b")
    net["a"].link = 1_000
    for number in range(20):
        net["a"].say("b", number, 300)
        assert net["a"].on_link("b") <= 1_000 + OVERHEAD + PART
    assert net["a"].peers.due is not None
    settle(net, 5.0)
    assert net["b"].got == [("a", number) for number in range(20)]
    assert net["a"].cuts == net["b"].cuts == []
    assert net["a"].peers.due is None


def test_what_waits_for_a_roster_takes_no_more_than_a_node_may_have_and_nothing_is_lost() -> None:
    net = met("a", "b")
    two = net["b"]
    two.takes = False
    for number in range(30):
        net["a"].say("b", number, 150)
    settle(net, 2.0)
    assert 0 < two.budget.memory.used <= 2_000
    assert two.got == []
    two.takes = True
    two.peers.take_early(lambda node: True)
    settle(net, 2.0)
    assert two.got == [("a", number) for number in range(30)]
    assert two.cuts == []
    assert two.budget.memory.used == 0


def test_all_nodes_together_take_no_more_than_there_is_for_what_comes_early() -> None:
    senders = [f"n{at}" for at in range(8)]
    net = met("b", *senders)
    two = net["b"]
    two.takes = False
    for number in range(20):
        for one in senders:
            net[one].say("b", number, 150)
    settle(net, 1.0)
    assert 0 < two.budget.memory.used <= 5_000
    two.takes = True
    two.peers.take_early(lambda node: True)
    settle(net, 3.0)
    for one in senders:
        assert [number for node, number in two.got if node == one] == list(range(20))


def test_a_long_message_begins_only_where_there_is_room_for_all_of_it() -> None:
    net = met("a", "c", "b")
    two = net["b"]
    two.takes = False
    net["a"].say("b", 0, 1_000)
    settle(net)
    two.takes = True
    net["c"].say("b", 1, 4_500)
    settle(net, 1.0)
    assert two.got == []
    assert two.budget.memory.used < 2_000
    two.peers.take_early(lambda node: True)
    settle(net, 1.0)
    assert two.got == [("a", 0), ("c", 1)]
    assert two.budget.memory.used == 0


def test_a_message_that_is_longer_than_a_node_may_have_comes_where_that_has_nothing_else() -> None:
    net = met("a", "b")
    net["a"].say("b", 0, 4_000)
    settle(net, 1.0)
    assert net["b"].got == [("a", 0)]


def test_calls_wait_while_a_peer_has_yet_to_hear_much_and_go_on_when_it_has() -> None:
    net = met("a", "b")
    one, two = net["a"], net["b"]
    assert one.peers.full(["b"]) is None
    for number in range(30):
        one.say("b", number, 150)
    assert one.peers.full(["c", "b"]) == "b"
    assert one.peers.full(["c"]) is None
    settle(net, 2.0)
    assert one.peers.full(["b"]) is None
    assert one.events == ["took b"]
    assert len(two.got) == 30


def test_calls_go_on_when_a_peer_that_had_yet_to_hear_much_begins_anew() -> None:
    net = met("a", "b")
    for number in range(30):
        net["a"].say("b", number, 150)
    net["b"].on_way.clear()
    Desk("b", net).peers.link_up("a")
    settle(net)
    assert net["a"].events == ["anew b", "took b"]
    assert net["a"].peers.full(["b"]) is None


def test_calls_go_on_once_a_peer_that_began_anew_has_heard_what_was_said_again() -> None:
    """Which is less than calls begin to wait for, and more than they go on with."""
    net = met("a", "b")
    for number in range(30):
        net["a"].say("b", number, 150)
    net["b"].on_way.clear()
    net["a"].again = 7
    Desk("b", net).peers.link_up("a")
    settle(net, 2.0)
    assert net["a"].events == ["anew b", "took b"]
    assert net["a"].peers.full(["b"]) is None
    assert len(net["b"].got) == 7


def test_a_peer_that_never_listens_is_gone_on_without() -> None:
    net = met("a", "b")
    one = net["a"]
    number = 0
    while not one.cuts:
        one.say("b", number, 300)
        number += 1
        assert one.budget.memory.used <= 50_000 + one.budget.memory.most // 2
    assert one.events == [f"lost b: {one.cuts[0]}", "took b"]
    assert one.peers.full(["b"]) is None
    assert "does not listen" in one.cuts[0]
    assert one.budget.memory.used == 0


def test_a_peer_that_says_more_though_there_is_no_room_loses_its_link() -> None:
    net = met("a", "b")
    two = net["b"]
    two.takes = False
    me = Side(b"a", 0)
    data = packed(message(60))

    def garbage(serial: int) -> CollectiveSaid:
        return CollectiveSaid(serial, 7, name(serial), WHERE, data)

    def says_all() -> None:
        for at in range(100):
            two.peers.handle("a", garbage(7 + at))

    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        says_all()
    assert two.budget.memory.used <= 2_000
    two.peers.handle("a", Introduced(me, Side(b"b", 0), 7, 7, False))  # which gains it nothing
    with pytest.raises(RemoteProtocolError):
        two.peers.handle("a", garbage(100))


@pytest.mark.parametrize("how", ["lost", "begins anew", "closes"])
def test_nothing_is_kept_of_a_node_that_is_gone(how: str) -> None:
    net = met("a", "b")
    two = net["b"]
    two.takes = False
    net["a"].say("b", 0, 150)
    net["a"].say("b", 1, 1_000)  # of which not all has come
    while net["b"].on_way["a"]:
        net["b"].hear()
        if len(net["b"].on_way["a"]) == 1:
            break
    two.say("a", 2, 500)
    assert two.budget.memory.used > 0
    if how == "lost":
        two.peers.lost("a")
    elif how == "closes":
        two.peers.close()
    else:
        net["a"].on_way.clear()
        two.on_way.clear()
        Desk("a", net).peers.link_up("b")
        settle(net)
    assert two.budget.memory.used == 0


@pytest.mark.parametrize("count", [10, 40])
def test_what_waits_of_other_calls_is_not_looked_at_when_one_is_begun(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "OF_A_NODE", 1 << 20)
    monkeypatch.setattr(early, "OF_ALL", 1 << 20)
    net = met("a", "b")
    two = net["b"]
    two.takes = False
    for number in range(count):
        net["a"].say("b", number)
    settle(net)
    assert two.asked == count
    two.takes = True
    two.peers.take_early(lambda node: True, name(5))
    assert two.asked == count + 1
    assert two.got == [("a", 5)]


def test_messages_of_a_call_are_heard_in_order_though_the_first_had_to_wait() -> None:
    net = met("a", "b")
    two = net["b"]
    two.takes = False
    net["a"].say("b", 3)
    settle(net)
    two.takes = True  # of which it is not told yet
    net["a"].say("b", 3)
    settle(net)
    assert two.got == []
    two.peers.take_early(lambda node: True)
    assert two.got == [("a", 3), ("a", 3)]


def test_what_is_asked_for_again_is_said_from_there_on() -> None:
    net = met("a", "b")
    net["a"].say("b", 0)
    net["a"].say("b", 1)
    sent = list(net["b"].on_way["a"])
    net["a"].peers.handle("b", CollectivesHeard(sent[0].serial, again=True))
    assert [one.serial for one in net["b"].on_way["a"]] == [one.serial for one in (*sent, *sent)]
    settle(net)
    assert net["b"].got == [("a", 0), ("a", 1)]


def test_what_was_heard_is_kept_nowhere_for_long() -> None:
    net = met("a", "b")
    net["a"].say("b", 0, 150)
    settle(net)
    assert net["a"].budget.memory.used > 0
    settle(net, peers.REPORTED + 0.1)
    assert net["a"].budget.memory.used == net["b"].budget.memory.used == 0
    assert net["b"].peers.due is None


def test_who_ends_is_told_at_once_what_was_heard() -> None:
    net = met("a", "b")
    net["a"].say("b", 0)
    net["b"].takes = False
    assert net["a"].peers.unheard() == {"b"}
    settle(net)
    assert net["a"].peers.unheard() == set(), "it waits there until its call can be begun"
    net["b"].link = 0
    net["b"].say("a", 1)
    assert net["b"].peers.unheard() == {"a"}
    settle(net)
    assert net["b"].peers.unheard() == {"a"}, "the link took nothing"
