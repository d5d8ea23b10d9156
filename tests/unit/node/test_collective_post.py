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
    Places,
    Side,
    tagged,
)
from manta.node.plane.collectives.post import MOST_INTRODUCTIONS, UNHEARD, Change, Post
from manta.transports.collectives.messages import Finished
from manta.transports.errors import RemoteProtocolError

WHERE = Places(0, b"")


def name(number: int) -> CallName:
    return CallName(0, "w", number)


def side(text: str, losses: int = 0) -> Side:
    return Side(text.encode(), losses)


class Link:
    """Two posts, and a link that may lose what is on its way when it goes down."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.posts = [self.made("a"), self.made("b")]
        self.on_way: list[deque[Message]] = [deque(), deque()]
        """To each."""
        self.number = 0
        self.kept: list[list[int]] = [[], []]
        """By side: what it said to the other as that is now, and had not lost since."""
        self.got: list[list[int]] = [[], []]
        """By side: of what the other has said."""
        self.lost = [0, 0]
        """By side: how often it has lost the other, or begun anew."""
        self.is_up = False

    def made(self, name: str) -> Post:
        return Post(side(name), self.random.randrange(1 << 40))

    def say(self, side: int) -> None:
        self.kept[side].append(self.number)
        message = self.posts[side].say(name(self.number), WHERE, tagged(Finished()))
        self.number += 1
        if self.is_up and message is not None:
            self.on_way[1 - side].append(message)

    def up(self) -> None:
        """Also where one is up already: another takes its place."""
        self.is_up = True
        for at in (0, 1):
            self.on_way[1 - at].append(self.posts[at].link_up())

    def down(self) -> None:
        self.is_up = False
        for queue in self.on_way:
            while queue and self.random.random() < 0.7:
                queue.pop()

    def again(self, at: int) -> None:
        """The process of a side ends, and another begins."""
        self.down()
        self.on_way[at].clear()
        self.posts[at] = self.made(f"{at}{self.number}")
        self.number += 1
        self.kept[at].clear()
        self.got[at].clear()

    def lose(self, at: int) -> None:
        """A side is told that the other is lost, and then that it is there, over the same link."""
        self.posts[at] = self.posts[at].after_loss()
        self.kept[at].clear()
        self.got[at].clear()
        if self.is_up:
            self.on_way[1 - at].append(self.posts[at].link_up())

    def hear(self, at: int) -> None:
        if not self.on_way[at]:
            return
        message, post = self.on_way[at].popleft(), self.posts[at]
        answers: list[Message] = []
        if isinstance(message, Introduced):
            try:
                answers, change = post.introduced(message)
            except RemoteProtocolError:  # of links that came up and were not listened to
                for queue in self.on_way:
                    queue.clear()
                self.up()
                return
            if change is not Change.NONE:
                self.kept[at].clear()
                self.got[at].clear()
        elif isinstance(message, CollectiveSaid):
            is_next, answers = post.hear(message)
            if is_next:
                self.got[at].append(message.call.number)
        else:
            assert isinstance(message, CollectivesHeard)
            post.heard(message)
        if self.is_up:
            self.on_way[1 - at].extend(answers)

    def settle(self) -> None:
        for _ in range(10_000):
            if not any(self.on_way):
                return
            for at in (0, 1):
                self.hear(at)
        raise AssertionError("they never end introducing themselves")


STEPS = st.lists(
    st.sampled_from(
        ["say0", "say1", "hear0", "hear1", "up", "down", "again0", "again1", "lose0", "lose1"]
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 999))
def test_all_that_is_said_to_who_is_there_is_heard_once_and_in_order(
    steps: list[str], seed: int
) -> None:
    """Whoever begins anew or loses the other, and whatever is lost with links."""
    link = Link(seed)
    for step in steps:
        if step in ("up", "down"):
            getattr(link, step)()
        else:
            getattr(link, step[:-1])(int(step[-1]))
    link.down()
    link.up()
    link.settle()
    for at in (0, 1):  # both know each other, and what is said from now on comes
        link.say(at)
    link.settle()
    for at in (0, 1):
        assert link.posts[at].kept <= UNHEARD
        said, got = link.kept[1 - at], link.got[at]
        assert got == sorted(set(got))
        assert got[len(got) - len(said) :] == said


def test_what_was_heard_is_not_kept_for_long() -> None:
    link = Link()
    link.up()
    for _ in range(1_000):
        link.say(0)
        link.hear(1)
        link.hear(0)
    assert link.posts[0].kept <= UNHEARD + 1


def met() -> Link:
    """Each has said three things, which have come."""
    link = Link()
    link.up()
    link.settle()
    for _ in range(3):
        link.say(0)
        link.say(1)
        link.settle()
    return link


def test_who_was_lost_and_comes_back_hears_that_and_is_heard_again() -> None:
    link = met()
    link.posts[0] = link.posts[0].after_loss()
    link.got[0].clear()
    (told, *_), change = link.posts[1].introduced(link.posts[0].link_up())  # type: ignore[arg-type]
    assert change is Change.LOST
    assert isinstance(told, Introduced)
    link.down()
    link.up()
    link.settle()
    link.say(1)
    link.settle()
    assert link.got[0] == [6]


@pytest.mark.parametrize("lost", range(5))
def test_a_process_that_begins_anew_is_heard_whatever_message_is_lost(lost: int) -> None:
    link = met()
    link.again(1)
    link.up()
    for at in range(20):
        for to in (0, 1):
            if at == lost and link.on_way[to]:
                link.on_way[to].popleft()
            link.hear(to)
    link.down()
    link.up()
    link.settle()
    for at in (0, 1):
        link.say(at)
    link.settle()
    assert link.got == [[8], [7]]


def test_what_was_kept_for_a_process_is_not_said_to_the_next() -> None:
    link = met()
    link.down()
    link.say(0)
    link.again(1)
    link.up()
    link.settle()
    assert link.got[1] == []
    link.say(0)
    link.settle()
    assert link.got[1] == [8]


def test_what_comes_late_of_a_process_before_is_not_taken_for_the_next_one_s() -> None:
    link = met()
    late = link.posts[1].say(name(99), WHERE, tagged(Finished()))
    assert isinstance(late, CollectiveSaid)
    link.again(1)
    link.up()
    link.settle()
    assert link.posts[0].hear(late) == (False, [])


def test_who_has_heard_more_than_was_said_breaks_the_protocol() -> None:
    post = Post(side("a"), 7)
    with pytest.raises(RemoteProtocolError):
        post.introduced(Introduced(side("b"), side("a"), 9, 0, False))
    post = Post(side("a"), 7)
    post.introduced(Introduced(side("b"), side("a"), 7, 0, False))
    with pytest.raises(RemoteProtocolError):
        post.heard(CollectivesHeard(8))


def test_what_was_said_to_another_process_is_no_break_of_the_protocol() -> None:
    post = Post(side("a"), 7)
    post.heard(CollectivesHeard(9))
    post.introduced(Introduced(side("b"), side("before a"), 9, 0, False))
    said = CollectiveSaid(0, 9, name(0), WHERE, tagged(Finished()))
    assert post.hear(said)[0] is False


def test_all_that_is_kept_is_not_said_again_for_each_introduction() -> None:
    post = Post(side("a"), 0)
    asks = Introduced(side("b"), side("a"), 0, 0, True)
    for _ in range(MOST_INTRODUCTIONS + 1):
        post.introduced(asks)
    with pytest.raises(RemoteProtocolError):
        post.introduced(asks)
    post.link_up()
    post.introduced(asks)


def test_who_is_not_known_yet_asks_once_for_an_introduction() -> None:
    post = Post(side("a"), 0)
    said = [CollectiveSaid(at, 0, name(at), WHERE, tagged(Finished())) for at in range(3)]
    answers = [post.hear(one) for one in said]
    assert [is_next for is_next, _ in answers] == [False] * 3
    assert [len(told) for _, told in answers] == [1, 0, 0]
