"""Messages between planes: each once and in order, also across links that go down."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.node.plane.collectives import post
from manta.node.plane.collectives.messages import (
    CallName,
    CollectiveSaid,
    CollectivesHeard,
    Introduced,
    Message,
    Places,
    Side,
    packed,
)
from manta.node.plane.collectives.post import (
    LONGEST,
    MOST_INTRODUCTIONS,
    OVERHEAD,
    UNHEARD,
    Change,
    Post,
    TooLong,
)
from manta.transports.collectives.calls import Call, Entry, Kind
from manta.transports.collectives.messages import (
    Aborted,
    Announcement,
    Finished,
    Member,
    weight_of,
)
from manta.transports.collectives.messages import (
    Message as Told,
)
from manta.transports.errors import RemoteProtocolError

WHERE = Places(0, b"")


SMALL = 40
"""Bytes of a part in these tests."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "PART", SMALL)
    monkeypatch.setattr(post, "WINDOW", 4 * (SMALL + OVERHEAD))


def name(number: int) -> CallName:
    return CallName(0, "w", number)


def side(text: str, losses: int = 0) -> Side:
    return Side(text.encode(), losses)


def sentence(size: int) -> Aborted:
    """A message of about so many bytes."""
    return Aborted("Error", "x" * size)


def said(serial: int, heard: int, number: int = 0, left: int = 0) -> CollectiveSaid:
    return CollectiveSaid(serial, heard, name(number), WHERE, packed(Finished()), left)


class Link:
    """Two posts, and a link that may lose what is on its way when it goes down."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.counted = [0, 0]
        """By side: what it keeps."""
        self.posts = [self.made("a", 0), self.made("b", 1)]
        self.on_way: list[deque[Message]] = [deque(), deque()]
        """To each."""
        self.number = 0
        self.kept: list[list[int]] = [[], []]
        """By side: what it said to the other as that is now, and had not lost since."""
        self.got: list[list[int]] = [[], []]
        """By side: of what the other has said."""
        self.has_room = [True, True]
        """By side: is there any for what comes next?"""
        self.is_up = False

    def made(self, name: str, at: int) -> Post:
        def counted(size: int) -> None:
            self.counted[at] += size

        self.counted[at] = 0
        return Post(side(name), self.random.randrange(1 << 40), counted)

    def say(self, side: int, size: int = 0) -> None:
        self.kept[side].append(self.number)
        self.posts[side].say(name(self.number), WHERE, sentence(size))
        self.number += 1
        self.send(side)

    def send(self, side: int) -> None:
        while self.is_up and (message := self.posts[side].next()) is not None:
            self.on_way[1 - side].append(message)
            on_way = [one for one in self.on_way[1 - side] if isinstance(one, CollectiveSaid)]
            assert all(len(one.part) <= SMALL for one in on_way)

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
        self.posts[at] = self.made(f"{at}{self.number}", at)
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

    def fill(self, at: int) -> None:
        """There is no room for what comes next to this side."""
        self.has_room[at] = False

    def free(self, at: int) -> None:
        """There is room again."""
        self.has_room[at] = True
        if self.posts[at].is_stalled:
            told = self.posts[at].resume()
            if self.is_up:
                self.on_way[1 - at].append(told)

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
            listens, answers = post.listens(message)
            if listens:
                self._listen(at, message)
            if (told := post.report()) is not None:
                answers.append(told)
        else:
            assert isinstance(message, CollectivesHeard)
            post.heard(message)
        if self.is_up:
            self.on_way[1 - at].extend(answers)
        self.send(at)

    def _listen(self, at: int, message: CollectiveSaid) -> None:
        post = self.posts[at]
        if post.length(message) and not self.has_room[at]:
            post.stall()
        elif (heard := post.hear(message)) is not None:
            if not self.has_room[at] and not message.left and heard.size <= SMALL:
                post.unhear()
            else:
                self.got[at].append(heard.call.number)

    def settle(self) -> None:
        for at in (0, 1):
            self.free(at)
            self.send(at)
        for _ in range(10_000):
            if not any(self.on_way):
                return
            for at in (0, 1):
                self.hear(at)
        raise AssertionError("they never end introducing themselves")


SIDES = ["say", "long", "hear", "again", "lose", "fill", "free"]
STEPS = st.lists(
    st.sampled_from(["up", "down", *(f"{what}{at}" for what in SIDES for at in (0, 1))]),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 999))
def test_all_that_is_said_to_who_is_there_is_heard_once_and_in_order(
    steps: list[str], seed: int
) -> None:
    """Whoever begins anew or loses the other, or has no room, and whatever is lost with links."""
    link = Link(seed)
    for step in steps:
        if step in ("up", "down"):
            getattr(link, step)()
        elif step.startswith("long"):
            link.say(int(step[-1]), 5 * SMALL)
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
        assert link.counted[at] == link.posts[at].size
        said, got = link.kept[1 - at], link.got[at]
        assert got == sorted(set(got))
        assert got[len(got) - len(said) :] == said


def test_what_was_heard_is_not_kept_for_long() -> None:
    link = Link()
    link.up()
    link.settle()
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
    link.say(1)
    (late,) = link.on_way[0]
    assert isinstance(late, CollectiveSaid)
    link.again(1)
    link.up()
    link.settle()
    assert link.posts[0].listens(late) == (False, [])


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
    assert post.listens(said(0, 9))[0] is False


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
    answers = [post.listens(said(at, 0, at)) for at in range(3)]
    assert [is_next for is_next, _ in answers] == [False] * 3
    assert [len(told) for _, told in answers] == [1, 0, 0]


def on_way(link: Link, to: int) -> list[CollectiveSaid]:
    return [one for one in link.on_way[to] if isinstance(one, CollectiveSaid)]


def test_a_message_larger_than_any_link_takes_goes_in_parts() -> None:
    link = met()
    link.say(0, 1_000 * SMALL)
    link.settle()
    assert link.got[1][-1] == link.number - 1
    assert link.counted[0] <= post.WINDOW // 4 + OVERHEAD + SMALL


def test_no_more_is_on_its_way_than_a_window() -> None:
    """Also when a link comes up after much was said, and where the peer hears nothing."""
    link = met()
    link.down()
    for queue in link.on_way:
        queue.clear()
    for _ in range(50):
        link.say(0, 3 * SMALL)
    link.up()
    for _ in range(3):  # they introduce themselves
        link.hear(1)
        link.hear(0)
    sizes = [OVERHEAD + len(one.part) for one in on_way(link, 1)]
    assert 0 < sum(sizes) <= post.WINDOW
    link.settle()
    assert link.got[1][-50:] == list(range(link.number - 50, link.number))


def test_what_there_is_no_room_for_is_asked_for_again_and_nothing_behind_it_is_taken() -> None:
    link = met()
    link.fill(1)
    link.say(0, 10 * SMALL)
    for _ in range(20):
        link.say(0)
    while link.on_way[1]:
        link.hear(1)
    assert link.posts[1].is_stalled
    assert link.got[1][-1] < link.number - 21
    before = link.got[1][-1]
    link.free(1)
    link.settle()
    assert link.got[1][-21:] == list(range(link.number - 21, link.number))
    assert before not in link.got[1][-21:]


def test_who_says_more_than_a_window_to_one_that_does_not_listen_breaks_the_protocol() -> None:
    """One that keeps to its window never does, whatever is lost with links meanwhile."""
    link = met()
    link.fill(1)
    link.say(0, 100 * SMALL)
    for _ in range(20):
        while link.on_way[1]:
            link.hear(1)
        link.down()
        link.up()
        while link.on_way[0]:
            link.hear(0)
    assert link.posts[1].is_stalled
    post_ = link.posts[1]
    more = CollectiveSaid(0, 0, name(0), WHERE, b"x" * SMALL)
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        deque(post_.listens(more) for _ in range(100))


@pytest.mark.parametrize(
    "parts",
    [[(b"12", 10), (b"34", 9)], [(b"", 10)], [(b"1", LONGEST)]],
    ids=["of two lengths", "empty", "too long"],
)
def test_parts_that_are_of_no_message_break_the_protocol(parts: list[tuple[bytes, int]]) -> None:
    link = met()
    told = [CollectiveSaid(at, 0, name(0), WHERE, *part) for at, part in enumerate(parts)]
    with pytest.raises(RemoteProtocolError):
        deque(map(link.posts[1].hear, told))


def test_what_makes_no_message_breaks_the_protocol() -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        met().posts[1].hear(CollectiveSaid(0, 0, name(0), WHERE, b"garbage"))


def test_what_waits_to_be_said_is_not_encoded_yet_and_is_counted() -> None:
    link = Link()
    for _ in range(10):
        link.say(0, 1_000)
    assert 10 * 1_000 <= link.counted[0] == link.posts[0].size <= 10 * 5_000
    link.posts[0].close()
    assert link.counted[0] == 0


def test_what_is_longer_than_a_message_may_be_is_not_said() -> None:
    with pytest.raises(TooLong):
        Post(side("a"), 0).say(name(0), WHERE, sentence(LONGEST))


@pytest.mark.parametrize(
    "message",
    [
        Finished(),
        sentence(1_000),
        Aborted("Error", "\U0001f600" * 100),
        Announcement(
            0,
            tuple(
                Member(
                    rank,
                    Entry(Call(Kind.ALL_GATHER, "gath\u00e9r()"), (1 << 40,) * 50, (("a", "é"),)),
                    ((-1, b"x" * 300),),
                )
                for rank in range(20)
            ),
            tuple(range(50)),
        ),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_a_message_weighs_is_no_less_than_its_bytes(message: Told) -> None:
    assert len(packed(message)) <= weight_of(message)
