"""Views of many peers in virtual time: who joins, dies, is parted, computes for long, and waits."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Iterable

import pytest

from manta.mesh.said import Begin, Commit, Position, Proposals
from manta.mesh.views import SOON, Action, Enter, GiveUp, Tell, View, Views

HEARD = 0.4
"""Seconds until all have heard who is alive."""


class Member:
    """Makes calls one after another; each ends when all members of its view that are not given up
    have come to it, but for every third, which only the first member waits for."""

    def __init__(self, net: Net, name: str) -> None:
        self.net, self.name = net, name
        self.views = Views(name, lambda ids: sorted(ids))
        self.number = -1
        self.state = "idle"
        self.token = self.views.view.token
        self.given_up: dict[str, set[str]] = defaultdict(set)
        self.made: dict[str, list[int]] = defaultdict(list)
        """By view: the calls that have ended, which the user saw with that view."""
        self.losses: dict[str, int] = defaultdict(int)
        """By view: the calls for all that lacked somebody."""
        self.opinion: set[str] = {name}

    def perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Tell):
                self.net.send(self.name, action.peer, action.message)
            elif isinstance(action, GiveUp):
                self.given_up[action.view.token].update(action.members)
            elif isinstance(action, Enter):
                if self.state == "here":  # it was the last call of its view
                    self.answered()
                self.token, self.number = action.view.token, -1
                self.net.entered(self, action.view)

    def know(self) -> None:
        linked = {one for one in self.opinion if self.net.links(self.name, one)}
        self.perform(self.views.know(self.opinion, linked, self.net.now))

    def step(self) -> None:
        """What its program does next."""
        net, views = self.net, self.views
        if self.state == "idle":
            goes, actions = views.call(self.number + 1, net.now)
            if goes:
                self.number += 1
                self.state = "inside"
                net.come[self.token, self.number].add(self.name)
            self.perform(actions)
        elif self.state == "inside" and self.lacks <= self.given_up[self.token]:
            if self.lacks and self.number % 3 != 2:
                self.losses[self.token] += 1
            self.state = "here"
        if self.state == "here":
            goes, actions = views.came(self.number, net.now)
            if goes:
                self.answered()
            self.perform(actions)

    @property
    def lacks(self) -> set[str]:
        """Who is yet to come to the call."""
        if self.number % 3 == 2 and self.name != self.views.view.members[0]:
            return set()
        return set(self.views.view.members) - self.net.come[self.token, self.number]

    def answered(self) -> None:
        self.made[self.token].append(self.number)
        self.state = "computing"
        pause = self.net.random.choice([0.0, 0.001, 0.01, 0.3])
        self.net.at(self.net.now + pause, self.computed)

    def computed(self) -> None:
        self.state = "idle"

    def run(self) -> None:
        due = self.views.due
        if due is not None and due <= self.net.now:
            self.perform(self.views.tick(self.net.now))
        self.step()


class Waiter(Member):
    """Makes no calls. It waits for a view of so many once it has been there for a while."""

    def __init__(self, net: Net, name: str, size: int) -> None:
        super().__init__(net, name)
        self.wait(size)

    def wait(self, size: int) -> None:
        self.size = size
        self.since = self.net.now + self.net.random.uniform(0, 2.0)

    def step(self) -> None:
        lacks = len(self.views.view.members) < self.size
        is_free = lacks and self.since <= self.net.now
        self.perform(self.views.waits(is_free, self.net.now))


class Net:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.members: dict[str, Member] = {}
        self.come: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.known: dict[str, tuple[str, ...]] = {}
        self.sides: list[set[str]] = []
        self.losing: tuple[type[Proposals], str] | None = None
        """To whom the next such message is lost."""
        self.delay = 0.02
        """Seconds that a message takes at most."""
        self.loss = 0.0
        """The part of all messages that is lost, as with links that are replaced."""
        self.down: set[frozenset[str]] = set()
        """Those between whom there is no link, though each takes the other for alive."""
        self._due: list[tuple[float, int, object]] = []
        self._count = itertools.count()
        self._last: dict[tuple[str, str], float] = {}

    def at(self, when: float, call: object) -> None:
        heapq.heappush(self._due, (when, next(self._count), call))

    def joins(self, one: str, other: str) -> bool:
        there = one in self.members and other in self.members
        return there and not any((one in side) != (other in side) for side in self.sides)

    def links(self, one: str, other: str) -> bool:
        return self.joins(one, other) and frozenset((one, other)) not in self.down

    def send(self, sender: str, receiver: str, message: Proposals) -> None:
        """In order; lost where there is no link."""
        when = max(
            self.now + self.random.uniform(0, self.delay), self._last.get((sender, receiver), 0.0)
        )
        self._last[sender, receiver] = when

        if self.losing == (type(message), receiver):
            self.losing = None
            return

        if self.loss and self.random.random() < self.loss:
            return

        def arrive() -> None:
            if self.links(sender, receiver):
                member = self.members[receiver]
                member.perform(member.views.heard(sender, message, self.now))

        self.at(when, arrive)

    def entered(self, member: Member, view: View) -> None:
        assert self.known.setdefault(view.token, view.members) == view.members
        assert member.name in view.members

    def lose(self, kind: type[Proposals], receiver: str) -> None:
        self.losing = kind, receiver

    def changed(self) -> None:
        """Who is there is heard by each at its own time."""
        for member in list(self.members.values()):

            def hear(member: Member = member) -> None:
                if self.members.get(member.name) is member:
                    there = (one for one in self.members if self.joins(member.name, one))
                    member.opinion = {member.name, *there}
                    member.know()

            self.at(self.now + self.random.uniform(0, HEARD), hear)

    def turn(self, pair: frozenset[str]) -> None:
        """Their link goes down, or comes up again."""
        self.down ^= {pair}
        for name in sorted(pair):
            self.members[name].know()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.005
            while self._due and self._due[0][0] <= self.now:
                heapq.heappop(self._due)[2]()  # type: ignore[operator]
            for member in list(self.members.values()):
                member.run()

    def add(self, name: str) -> None:
        self.put(Member(self, name))

    def put(self, member: Member) -> None:
        self.members[member.name] = member
        self.changed()

    def check_whole(self) -> None:
        views = {member.views.view for member in self.members.values()}
        assert [set(view.members) for view in views] == [set(self.members)], views


@pytest.mark.parametrize("case", range(12))
def test_all_that_are_there_come_to_one_view_and_make_the_same_calls(case: int) -> None:
    net = Net(case)
    for number in range(net.random.randint(2, 6)):
        net.add(f"p{number}")
        net.run(net.random.choice([0.0, 0.1, 1.0]))
    net.run(8.0)
    net.check_whole()
    whole = {name: dict(member.made) for name, member in net.members.items()}
    for token, members in net.known.items():
        # Nobody was lost: whoever was in a view made the same calls in it.
        is_over = all(net.members[one].token != token for one in members)
        counts = {len(whole[one].get(token, ())) for one in members}
        assert max(counts) - min(counts) <= (0 if is_over else 2), (token, members, counts)
    assert not any(member.losses for member in net.members.values())


@pytest.mark.parametrize("case", range(12))
def test_a_death_costs_one_call_and_the_others_go_on(case: int) -> None:
    net = Net(case)
    for number in range(5):
        net.add(f"p{number}")
    net.run(6.0)
    net.check_whole()
    lost = net.random.choice(sorted(net.members))
    del net.members[lost]
    net.changed()
    net.run(6.0)
    net.check_whole()
    for member in net.members.values():
        assert sum(member.losses.values()) <= 1, member.losses
        before = len(member.made[member.views.view.token])
        net.run(1.0)
        assert len(member.made[member.views.view.token]) > before or before == 0


@pytest.mark.parametrize("case", range(12))
def test_two_sides_of_a_partition_go_on_and_become_one_again(case: int) -> None:
    net = Net(case)
    for number in range(6):
        net.add(f"p{number}")
    net.run(6.0)
    net.check_whole()
    side = set(net.random.sample(sorted(net.members), 2))
    net.sides.append(side)
    net.changed()
    net.run(6.0)
    for member in net.members.values():
        mine = side if member.name in side else set(net.members) - side
        assert set(member.views.view.members) == mine
    net.sides.clear()
    net.changed()
    net.run(8.0)
    net.check_whole()


@pytest.mark.parametrize("case", range(40))
def test_deaths_in_a_changing_view_are_told_by_one_call_each(case: int) -> None:
    net = Net(case)
    for number in range(5):
        net.add(f"p{number}")
    net.run(6.0)
    net.check_whole()
    names = sorted(net.members)
    lost = set()
    for name in net.random.sample(["a", "f", "q"], 2):
        net.add(name)
        net.run(net.random.uniform(0.0, 1.0))
        lost.add(names.pop(net.random.randrange(len(names))))
        net.members = {name: one for name, one in net.members.items() if name not in lost}
        net.changed()
        net.run(net.random.uniform(0.0, 1.0))
    net.run(8.0)
    net.check_whole()
    for member in net.members.values():
        told = [one for given_up in member.given_up.values() for one in given_up]
        assert set(told) <= lost, "nobody is given up that lives"
        assert len(told) == len(set(told)), (member.name, dict(member.given_up))
        assert sum(member.losses.values()) <= len(lost)
    for token in net.known:
        made = {tuple(one.made[token]) for one in net.members.values() if token in one.made}
        assert len(made) <= 1 or token == member.token, (token, made)


@pytest.mark.parametrize("kind", [Commit, Begin])
@pytest.mark.parametrize("case", range(4))
def test_who_missed_a_message_goes_on_with_the_others(kind: type[Proposals], case: int) -> None:
    net = Net(case)
    for name in ("p0", "p1", "p2"):
        net.add(name)
    net.run(6.0)
    net.check_whole()
    net.lose(kind, "p1")
    net.add("p3")
    net.run(6.0)
    assert net.losing is None, "it was lost"
    net.check_whole()
    assert not any(any(one.given_up.values()) for one in net.members.values())


def test_what_is_said_before_a_commit_is_heard_does_not_count_after_it() -> None:
    first, second = Views("a", sorted), Views("b", sorted)
    first.waits(True, 0.0)
    first.know("ab", "b", 0.0)
    (proposal,) = first.tick(SOON)
    assert isinstance(proposal, Tell)
    second.know("ab", "a", SOON)
    said = second.heard("a", proposal.message, SOON)
    said += second.waits(True, SOON)
    for one in said:
        assert isinstance(one, Tell)
        first.heard("b", one.message, SOON)
    assert len(said) == 2
    assert first.view.members == ("a",), "it begins the view with the other"


def test_that_a_member_waits_is_said_again_where_it_was_lost() -> None:
    net = Net(0)
    first, second = (Waiter(net, name, 2) for name in ("p0", "p1"))
    net.put(first)
    net.put(second)
    net.run(6.0)
    net.check_whole()
    first.wait(3)
    net.put(Waiter(net, "p2", 3))
    net.run(6.0)
    assert first.views.view.members == ("p0", "p1"), "the second does not wait"
    net.lose(Position, "p0")
    second.wait(3)
    second.since = net.now
    net.run(0.01)
    assert net.losing is None, "it was lost"
    net.run(3.0)
    net.check_whole()


@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("case", range(40))
def test_all_that_wait_meet_whatever_was_lost_on_the_way(case: int, loss: float) -> None:
    net = Net(case)
    size = net.random.randint(2, 5)
    net.delay = net.random.choice([0.02, 0.3])
    before = [Waiter(net, f"p{number}", size) for number in range(net.random.randint(1, size - 1))]
    for waiter in before:
        net.put(waiter)
        waiter.wait(len(before))
    net.run(8.0)
    net.check_whole()
    net.loss = loss
    for waiter in before:
        waiter.wait(size)
    for number in range(len(before), size):
        net.put(Waiter(net, f"{net.random.choice('oq')}{number}", size))
        net.run(net.random.choice([0.0, 0.1, 0.5]))
    for _ in range(net.random.randint(0, 6) if loss else 0):
        net.turn(frozenset(net.random.sample(sorted(net.members), 2)))
        net.run(net.random.uniform(0.0, 0.6))
    net.loss = 0.0
    for pair in list(net.down):
        net.turn(pair)
    net.run(8.0)
    net.check_whole()
