"""Messages between planes: each once and in order, also across links that go down."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.node.plane.collectives.messages import (
    CallName,
    CollectiveSaid,
    CollectivesHeard,
    Introduced,
    Message,
    tagged,
)
from manta.node.plane.collectives.post import UNHEARD, Post
from manta.transports.collectives.messages import Finished
from manta.transports.errors import RemoteProtocolError


class Link:
    """Two posts, and a link that may lose what is on its way when it goes down."""

    def __init__(self) -> None:
        self.posts = [Post(b"a"), Post(b"b")]
        self.on_way: list[deque[Message]] = [deque(), deque()]
        """To each."""
        self.got: list[list[int]] = [[], []]
        self.said = [0, 0]
        self.begun = [0, 0]
        self.is_up = False

    def say(self, side: int) -> None:
        name = CallName(0, "w", self.said[side])
        self.said[side] += 1
        message = self.posts[side].say(name, b"", tagged(Finished()))
        if self.is_up:
            self.on_way[1 - side].append(message)

    def up(self) -> None:
        if not self.is_up:
            self.is_up = True
            for side in (0, 1):
                self.on_way[1 - side].append(self.posts[side].link_up())

    def down(self, keep: random.Random) -> None:
        self.is_up = False
        for queue in self.on_way:
            while queue and keep.random() < 0.7:
                queue.pop()

    def hear(self, side: int) -> None:
        if not self.on_way[side]:
            return
        message, post = self.on_way[side].popleft(), self.posts[side]
        answers: list[Message] = []
        if isinstance(message, Introduced):
            answers, is_other = post.introduced(message)
            assert not is_other
        elif isinstance(message, CollectiveSaid):
            is_next, answers = post.hear(message)
            if is_next:
                self.got[side].append(message.call.number)
        else:
            assert isinstance(message, CollectivesHeard)
            post.heard(message)
        if self.is_up:
            self.on_way[1 - side].extend(answers)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["say0", "say1", "hear0", "hear1", "up", "down"])),
    seed=st.integers(0, 999),
)
def test_all_that_is_said_is_heard_once_and_in_order(steps: list[str], seed: int) -> None:
    link, chance = Link(), random.Random(seed)
    for step in steps:
        if step == "up":
            link.up()
        elif step == "down":
            link.down(chance)
        elif step.startswith("say"):
            link.say(int(step[-1]))
        else:
            link.hear(int(step[-1]))
    link.down(chance)
    link.up()
    while any(link.on_way):
        for side in (0, 1):
            link.hear(side)
    for side in (0, 1):
        assert link.got[side] == list(range(link.said[1 - side]))


def test_what_was_heard_is_not_kept_for_long() -> None:
    link = Link()
    link.up()
    for _ in range(1_000):
        link.say(0)
        link.hear(1)
        link.hear(0)
    assert link.posts[0].kept <= UNHEARD + 1


def test_a_peer_that_begins_anew_is_told_all_that_is_kept() -> None:
    post = Post(b"a")
    post.link_up()
    assert post.introduced(Introduced(b"b", b"a", 0)) == ([], False)
    said = [post.say(CallName(0, "w", at), b"", tagged(Finished())) for at in range(3)]
    post.heard(CollectivesHeard(1))
    again, is_other = post.introduced(Introduced(b"c", b"", 0))
    assert is_other
    assert [one.call.number for one in again if isinstance(one, CollectiveSaid)] == [1, 2]
    assert [one.serial for one in again if isinstance(one, CollectiveSaid)] == [0, 1]
    assert len(said) == 3


def test_who_has_heard_more_than_was_said_breaks_the_protocol() -> None:
    post = Post(b"a")
    with pytest.raises(RemoteProtocolError):
        post.heard(CollectivesHeard(1))
    with pytest.raises(RemoteProtocolError):
        post.introduced(Introduced(b"b", b"a", 5))


def test_who_was_not_heard_at_first_is_asked_to_introduce_itself_again() -> None:
    one, other = Post(b"a"), Post(b"b")
    one.link_up()  # is lost
    told = [one.say(CallName(0, "w", at), b"", tagged(Finished())) for at in range(2)]
    assert isinstance(told[1], CollectiveSaid)
    is_next, (asked,) = other.hear(told[1])
    assert not is_next
    assert isinstance(asked, Introduced)
    (introduced, *again), _ = one.introduced(asked)
    assert isinstance(introduced, Introduced)
    assert other.introduced(introduced) == ([], False)
    heard = [other.hear(message)[0] for message in again if isinstance(message, CollectiveSaid)]
    assert heard == [True, True]
