"""Locks of a mesh."""

from __future__ import annotations

import random
from collections import defaultdict, deque

import pytest

from manta.mesh.locks import Got, Locks, Tell
from manta.mesh.said import Ballot, Locking
from manta.mesh.views import View


class Net:
    def __init__(self, *names: str) -> None:
        self.view = View(Ballot(1, names[0]), names)
        self.peers = {name: Locks(name, View(Ballot(0, name), (name,))) for name in names}
        self.way: dict[tuple[str, str], deque[Locking]] = defaultdict(deque)
        self.has: dict[str, set[str]] = {name: set() for name in names}
        for name in names:
            self.do(name, self.peers[name].committed(self.view))

    def do(self, name: str, actions: list[Tell | Got]) -> None:
        for action in actions:
            if isinstance(action, Tell):
                self.way[name, action.peer].append(action.message)
            else:
                self.has[name].add(action.name)

    def want(self, name: str, lock: str) -> None:
        self.do(name, self.peers[name].want(lock))

    def drop(self, name: str, lock: str) -> None:
        self.has[name].discard(lock)
        self.do(name, self.peers[name].drop(lock))

    def deliver(self, sender: str, receiver: str) -> None:
        message = self.way[sender, receiver].popleft()
        if receiver in self.peers and sender in self.peers:
            self.do(receiver, self.peers[receiver].heard(sender, message))

    def settle(self) -> None:
        while any(self.way.values()):
            for way in [way for way, waiting in self.way.items() if waiting]:
                self.deliver(*way)

    def lose(self, name: str) -> None:
        """The others commit to a view without it."""
        del self.peers[name]
        del self.has[name]
        members = tuple(one for one in self.view.members if one != name)
        self.view = View(Ballot(self.view.ballot.number + 1, members[0]), members)
        for one in members:
            self.do(one, self.peers[one].committed(self.view))


def test_who_asked_first_has_it_and_then_the_next() -> None:
    net = Net("a", "b", "c")
    net.want("b", "x")
    net.settle()
    net.want("c", "x")
    net.want("a", "x")
    net.settle()
    assert net.has == {"a": set(), "b": {"x"}, "c": set()}
    assert net.peers["c"].holders == {"x": "b"}
    net.drop("b", "x")
    net.settle()
    assert sum("x" in has for has in net.has.values()) == 1


def test_what_a_lost_peer_had_is_free() -> None:
    net = Net("a", "b", "c")
    net.want("c", "x")
    net.settle()
    net.want("b", "x")
    net.settle()
    net.lose("c")
    net.settle()
    assert net.has == {"a": set(), "b": {"x"}}


def test_a_holder_keeps_it_when_the_server_is_lost() -> None:
    net = Net("a", "b", "c")
    net.want("b", "x")
    net.settle()
    net.want("c", "x")
    net.settle()
    net.lose("a")
    net.settle()
    assert net.has == {"b": {"x"}, "c": set()}
    net.drop("b", "x")
    net.settle()
    assert net.has == {"b": set(), "c": {"x"}}


@pytest.mark.parametrize("case", range(100))
def test_never_two_have_it_and_all_get_it(case: int) -> None:
    dice = random.Random(case)
    net = Net("a", "b", "c", "d")
    wanting: set[str] = set()
    for _ in range(300):
        ways = [way for way, waiting in net.way.items() if waiting]
        if ways and dice.random() < 0.7:
            net.deliver(*dice.choice(ways))
        elif dice.random() < 0.02 and len(net.peers) > 2:
            lost = dice.choice(sorted(net.peers))
            net.lose(lost)
            wanting.discard(lost)
        else:
            one = dice.choice(sorted(net.peers))
            if one in wanting:
                if "x" in net.has[one] or dice.random() < 0.2:
                    net.drop(one, "x")
                    wanting.discard(one)
            else:
                net.want(one, "x")
                wanting.add(one)
        assert sum("x" in has for has in net.has.values()) <= 1
    while wanting:
        net.settle()
        (holder,) = [name for name, has in net.has.items() if "x" in has]
        net.drop(holder, "x")
        wanting.discard(holder)
