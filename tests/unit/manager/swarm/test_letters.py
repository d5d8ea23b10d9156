"""Letters however many there are, who may send more, and what the sender is told."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.manager.swarm import letters, snapshots
from manta.manager.swarm.events import Woken
from manta.manager.swarm.letters import Load, Most, Post, Room, Route
from manta.manager.swarm.reads import exchange as reads
from manta.manager.swarm.reads.exchange import answer, topic_of
from manta.protocol.base import Instance
from manta.protocol.exchange import (
    ClaimsReturned,
    Exchanged,
    ReadMessage,
    ReadRoom,
    Receiving,
    Sent,
)
from manta.protocol.values import BlobRef, Inline

ROUTE = Route("id1", "id2", "t")


def instance(index: int, attempt: int = 0, iteration: int = 0) -> Instance:
    return Instance("s", "worker", index, iteration, attempt)


class Plain:
    """One channel as its words say it, without a thought of time."""

    def __init__(self) -> None:
        self.letters: list = []  # [sender, serial, value, claim]
        self.claims: list = []  # [instance]
        self.sent: dict = {}

    def match(self) -> None:
        for claim in self.claims:
            free = [one for one in self.letters if one[3] is None]
            if free and not any(one[3] is claim for one in self.letters):
                free[0][3] = claim

    def send(self, at: Instance, value: Inline) -> None:
        serial = self.sent[at] = self.sent.get(at, -1) + 1
        sender = (at.iteration, at.alias, at.index)
        for one in self.letters:
            if one[:2] == [sender, serial]:
                if one[3] is None:
                    one[2] = value
                return
        self.letters.append([sender, serial, value, None])
        self.match()

    def claim(self, at: Instance) -> None:
        self.claims.append([at])
        self.match()

    def of(self, at: Instance) -> list:
        return [claim for claim in self.claims if claim == [at]]

    def claimed(self, at: Instance) -> list:
        found = [[one[2] for one in self.letters if one[3] is claim] for claim in self.of(at)]
        return [value for values in found for value in values or [None]]

    def drop(self, claims: list) -> None:
        for claim in claims:
            self.claims = [other for other in self.claims if other is not claim]
            for one in self.letters:
                if one[3] is claim:
                    one[3] = None
        self.match()

    def end_attempt(self, at: Instance, counts: bool) -> None:
        served = [one[3] for one in self.letters if one[3] is not None]
        self.drop(
            [
                claim
                for claim in self.of(at)
                if not counts or not any(claim is other for other in served)
            ]
        )

    def end_iteration(self) -> None:
        self.letters = [one for one in self.letters if one[3] is None]
        self.claims, self.sent = [], {}


def recounted(post: Post) -> tuple[dict, Load]:
    boxes: dict = {}
    for route, channel in post.channels.items():
        for letter in channel.unread():
            boxes.setdefault(route.to, letters.Box()).add(letter, 1)
    kept = Load()
    for value in post.values():
        kept.add(value)
    return boxes, kept


STEPS = st.tuples(
    st.integers(0, 1),
    st.sampled_from(("send claim " * 4 + "return fail finish iteration copy").split()),
    st.integers(0, 3),
)


@settings(max_examples=300)
@given(steps=st.lists(STEPS, max_size=60))
def test_a_channel_does_what_its_words_say(steps):
    post, plain = Post(), Plain()
    ranks, attempts, iteration, told = [0, 1], [0, 0], 0, 0
    for who, what, number in steps:
        at = instance(ranks[who], attempts[who], iteration)
        match what:
            case "send":
                told += 1
                value = Inline(str(told).encode() * (number + 1))
                post.send(at, ROUTE, value)
                plain.send(at, value)
            case "claim":
                post.claim(at, ROUTE)
                plain.claim(at)
            case "return":
                post.give_back(at, ROUTE, number)
                plain.drop(plain.of(at)[number:])
            case "fail" | "finish":
                post.end_attempt(at, counts=what == "finish")
                plain.end_attempt(at, what == "finish")
                attempts[who] += 1
                if what == "finish":  # nothing runs for that instance any more
                    ranks[who], attempts[who] = ranks[who] + 2, 0
            case "iteration":
                for index in (0, 1):
                    live = instance(ranks[index], attempts[index], iteration)
                    post.end_attempt(live, counts=True)
                    plain.end_attempt(live, True)
                post.end_iteration()
                plain.end_iteration()
                ranks, attempts, iteration = [0, 1], [0, 0], iteration + 1
            case "copy":
                other = copy.deepcopy(Post(sent=post.sent, known=post.known, logged=post.logged))
                for route, channel in post.channels.items():
                    other.load(route, copy.deepcopy(channel.state))
                assert other == post
                post = other
        for index in (0, 1):
            live = instance(ranks[index], attempts[index], iteration)
            expected = plain.claimed(live)
            got = [post.claimed(live, ROUTE, n) for n in range(len(expected))]
            assert [letter and letter.value for letter in got] == expected
            assert post.claimed(live, ROUTE, len(expected)) is None
        unread = [one[2] for one in plain.letters if one[3] is None]
        there = [letter.value for one in post.channels.values() for letter in one.unread()]
        assert there == unread
        boxes, kept = recounted(post)
        assert {to: box for to, box in post.boxes.items() if box.of} == boxes
        assert post.kept == kept


def test_what_was_received_or_not_sent_at_all_leaves_nothing():
    """Each step of a long iteration may have a tag of its own."""
    post = Post()
    for number in range(50):
        route = Route("id1", "id2", f"step-{number}")
        post.claim(instance(1), route)
        post.give_back(instance(1), route, 0)
    assert post == Post()
    for number in range(50):
        route = Route("id1", "id2", f"step-{number}")
        post.send(instance(0), route, Inline(b"x"))
        post.claim(instance(1, number), route)
        post.end_attempt(instance(1, number), counts=True)
    assert not post.channels
    assert not post.claiming
    post.end_attempt(instance(0), counts=True)
    assert (post.sent, post.known) == ({}, {})


def test_a_retry_sends_nothing_twice_whatever_became_of_what_was_sent_before():
    post = Post()
    post.send(instance(0), ROUTE, Inline(b"first"))
    post.claim(instance(1), ROUTE)
    post.end_attempt(instance(1), counts=True)
    post.end_attempt(instance(0), counts=False)
    for text in (b"first again", b"second"):
        post.send(instance(0, 1), ROUTE, Inline(text))
    assert [letter.value for letter in post.channels[ROUTE].unread()] == [Inline(b"second")]


def test_receives_in_vain_leave_nothing_where_others_wait():
    post = Post()
    post.claim(instance(2), ROUTE)
    for _ in range(50):
        post.claim(instance(1), ROUTE)
        post.give_back(instance(1), ROUTE, 0)
    assert len(post.channels[ROUTE]._waiting) == 1
    post.send(instance(0), ROUTE, Inline(b"x"))
    assert post.claimed(instance(2), ROUTE, 0) is not None


def test_many_unread_letters_cost_no_more_each_than_few():
    """With a look at all of them for each, this would take hours."""
    post, many = Post(), 200_000
    for number in range(many):
        post.send(instance(0), ROUTE, Inline(str(number).encode()))
    assert post.boxes["id2"].all.letters == many
    for _ in range(many):
        post.claim(instance(1), ROUTE)
    last = post.claimed(instance(1), ROUTE, many - 1)
    assert last is not None
    assert last.value == Inline(str(many - 1).encode())
    post.end_attempt(instance(1), counts=False)
    assert post.boxes["id2"].all.letters == many, "another attempt is given them again"
    for _ in range(many):
        post.claim(instance(1, 1), ROUTE)
    post.give_back(instance(1, 1), ROUTE, many // 2)
    post.end_attempt(instance(1, 1), counts=True)
    assert post.kept.letters == post.boxes["id2"].all.letters == many // 2


# Room.


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (letters, reads):
        monkeypatch.setattr(module, "UNREAD", Room(10, 1000))
        monkeypatch.setattr(module, "RESERVE", Room(2, 200))
        monkeypatch.setattr(module, "KEPT", Room(25, 100_000))
        monkeypatch.setattr(module, "LOGGED", 40 * letters.ENVELOPE)
    monkeypatch.setattr(letters, "SHARE", Room(4, 400))


def most(data, quota: int) -> Most:
    return Most.of(quota, 1 << 30, len(data.live))


def read(b, request, quota: int = 200_000) -> Exchanged:
    found = answer(b.machine, request, most(b.machine.data, quota), lambda: b.nodes)
    assert isinstance(found, Exchanged)
    return found


def asked(b, index: int, size: int = 1) -> Exchanged:
    return read(b, ReadRoom(b.running("worker")[index], "id2", size))


def sent(b, make, index: int, count: int, text: str = "x"):
    at = b.running("worker")[index]
    return b.say(at, *(Sent(at, "id2", f"{n % 3}", make.value(text)) for n in range(count)))


def test_a_sender_is_given_a_share_until_the_receiver_is_full(bench, make, few):
    b = bench(make.task("worker"), nodes=3)
    assert (asked(b, 0).letters, asked(b, 0).size) == (4, 400)
    sent(b, make, 0, 9)
    assert asked(b, 0).letters == 1
    sent(b, make, 0, 1)
    full = asked(b, 0)
    assert not full.ready
    assert not full.error
    assert full.sentence == (
        "node-2 has 10 unread letters of at most 10 (0.0 MiB of 0.0 MiB), 10 of them from "
        "worker.0; beyond that each instance has 2 (0.0 MiB): have it receive more, or send less"
    )


def test_others_keep_a_reserve_when_one_has_filled_the_receiver_up(bench, make, few):
    b = bench(make.task("worker"), nodes=3)
    sent(b, make, 0, 10)
    assert asked(b, 2).letters == 2
    sent(b, make, 2, 2)
    assert not asked(b, 2).ready
    other = b.running("worker")[1]
    assert read(b, ReadRoom(other, "id3", 1)).letters == 4, "to another node"


def test_bytes_count_as_letters_do_but_not_those_of_blobs(bench, make, few):
    b = bench(make.task("worker"), nodes=3)
    sent(b, make, 0, 2, "x" * 450)
    assert asked(b, 0, size=100).ready
    assert not asked(b, 0, size=101).ready
    at = b.running("worker")[0]
    b.say(at, *(Sent(at, "id2", "t", BlobRef("0" * 64, 1 << 30)) for _ in range(5)))
    assert (asked(b, 0).letters, asked(b, 0).size) == (3, 100)


def test_room_comes_with_what_is_received_and_wakes_the_sender(bench, make, few):
    b = bench(make.task("worker"), nodes=3)
    sent(b, make, 0, 10)
    one, other = b.running("worker")[0], b.running("worker")[1]
    read = ReadRoom(one, "id2", 1)
    actions = b.say(other, Receiving(other, "id1", "0"))
    assert Woken(topic_of(b.machine.data, read)) in actions
    assert asked(b, 0).letters == 1
    b.say(other, ClaimsReturned(other, "id1", "0", 0))
    assert not asked(b, 0).ready, "it was given back"


def test_what_an_attempt_received_is_kept_until_it_ends(bench, make, few):
    b = bench(make.task("worker"), nodes=3)
    other = b.running("worker")[1]
    for _ in range(3):
        sent(b, make, 0, 9)
        b.say(other, *(Receiving(other, "id1", f"{n}") for n in (0, 1, 2) * 3))
    full = asked(b, 0)
    assert not full.ready
    assert full.sentence.startswith("the swarm keeps 27 letters of at most 25")
    b.end(other)
    assert asked(b, 0).letters == 4


def test_letters_of_earlier_iterations_count(bench, make, few):
    b = bench(make.task("worker"), nodes=3, max_iteration=9)
    for _ in range(3):
        sent(b, make, 0, 4)
        b.finish("worker")
    assert not asked(b, 0).ready
    assert asked(b, 2).letters == 2


def test_the_log_takes_so_many_letters_and_no_more(bench, make, few):
    b = bench(make.task("worker"), nodes=3)
    other = b.running("worker")[1]
    for _ in range(4):
        sent(b, make, 0, 9)
        b.say(other, *(Receiving(other, "id1", f"{n}") for n in (0, 1, 2) * 3))
    sent(b, make, 0, 4)
    never = asked(b, 0)
    assert never.error == "ResourceExhaustionError"
    assert never.sentence.startswith("The event log holds 0.0 MiB of what the tasks of this swarm")
    one = b.running("worker")[0]
    assert read(b, ReadRoom(one, "", 0)).error == "ResourceExhaustionError", "to all, as well"


def test_senders_wait_below_the_quota_of_messages_and_go_on_when_some_are_received(bench, make):
    b = bench(make.task("worker"), nodes=3)
    request, quota = ReadRoom(b.running("worker")[0], "id3", 1), 30
    assert read(b, request, quota).letters == 5, "three senders are given half of it"
    sent(b, make, 0, 30)
    full = read(b, request, quota)
    assert not full.ready
    assert full.sentence == (
        "the swarm has 30 unread letters of at most 30, its quota of messages: have it receive "
        "more, or send less"
    )
    other = b.running("worker")[1]
    b.say(other, Receiving(other, "id1", "0"))
    assert read(b, request, quota).letters == 5


def test_who_was_ended_is_told_so(bench, make, few):
    b = bench(make.task("worker"), nodes=3)
    at = b.running("worker")[0]
    b.end(at)
    assert read(b, ReadRoom(at, "id2", 1)).error == "SwarmStopped"


def test_a_full_swarm_goes_on_from_a_snapshot_and_from_its_log(bench, make, few):
    b = bench(make.task("worker", retries=1), nodes=3)
    sent(b, make, 0, 9)
    other = b.running("worker")[1]
    b.say(other, *(Receiving(other, "id1", f"{n}") for n in (0, 1, 2, 0)))
    pages, _ = snapshots.pages(b.machine.data, 1 << 40)
    data, _ = snapshots.load(snapshots.body(b.machine.data, 1), pages, pages.__getitem__)
    for found in (data, b.replayed().data):
        assert found == b.machine.data
        assert found.exchange.post.boxes == b.machine.data.exchange.post.boxes
        assert found.exchange.post.room("id2", "worker", 0, most(found, 200_000)) == Room(4, 400)
        found.exchange.post.end_attempt(other, counts=False)
        assert found.exchange.post.room("id2", "worker", 0, most(found, 200_000)) == Room(1, 400)
    assert read(b, ReadMessage(other, "id1", "0", 1)).ready
