"""Which strangers a listener bears, and who has to go."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from manta.transports.security.admission import KNOWN_BURST, Admission, Decision, Handshakes
from manta.transports.security.strangers import (
    MINUTE,
    Fate,
    StrangerLimits,
    Strangers,
    Tally,
    _Room,
    _Waiting,
    source_of,
)

HERE, THERE = "192.0.2.1", "192.0.2.2"


def strangers(**limits) -> Strangers:
    return Strangers(StrangerLimits(**limits), handshake=5.0, hello=5.0)


def fates(cuts) -> list[tuple[int, Fate]]:
    return [(cut.connection, cut.fate) for cut in cuts]


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("no:address", "no:address"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_a_source_is_an_address_or_a_network(address, source):
    assert source_of(address) == source


def test_who_proves_no_key_and_who_does_not_sign_in_has_to_go():
    door = strangers(patience=10.0)
    assert door.accepted(1, HERE, 0.0) == []
    assert door.accepted(2, HERE, 0.0) == []
    assert door.accepted(3, HERE, 4.0) == []
    assert door.guest(2, HERE, 1.0) == []
    assert door.overdue(10.0) == []
    assert fates(door.overdue(10.1)) == [(1, Fate.UNFINISHED), (2, Fate.LATE)]
    door.known(3, "key")
    assert door.overdue(1000.0) == []
    assert len(door) == 0


def test_a_guest_has_no_more_time_than_since_it_came_and_one_that_was_known_has_all_of_it():
    door = strangers(patience=10.0)
    door.accepted(1, HERE, 0.0)
    door.guest(1, HERE, 9.0)
    door.guest(1, HERE, 9.5)  # said again
    door.guest(2, HERE, 9.0)  # it signed out
    assert fates(door.overdue(10.5)) == [(1, Fate.LATE)]
    assert fates(door.overdue(19.5)) == [(2, Fate.LATE)]


def test_who_is_too_many_pushes_out_the_oldest_of_the_same_source():
    door = strangers(arriving_per_source=2, arriving=10)
    door.accepted(9, THERE, 0.0)
    door.accepted(1, HERE, 0.0)
    door.accepted(2, HERE, 0.0)
    assert fates(door.accepted(3, HERE, 0.0)) == [(1, Fate.CROWDED)]
    assert sorted(door.arriving) == [2, 3, 9]


def test_too_many_in_total_cost_the_source_that_has_most():
    door = strangers(arriving_per_source=10, arriving=4)
    for number in (1, 2, 3):
        door.accepted(number, HERE, 0.0)
    door.accepted(8, THERE, 0.0)
    assert fates(door.accepted(9, THERE, 0.0)) == [(1, Fate.CROWDED)]


def test_those_who_arrive_do_not_push_out_guests():
    door = strangers(arriving=2, guests=2)
    for number in (1, 2):
        door.accepted(number, HERE, 0.0)
        door.guest(number, HERE, 0.0)
    for number in range(3, 50):
        assert {cut.connection for cut in door.accepted(number, HERE, 0.0)}.isdisjoint({1, 2})
    assert door.guests == [1, 2]


def test_where_descriptors_run_out_each_that_comes_costs_another_and_never_itself():
    door = strangers(last_descriptor=100)
    door.accepted(50, HERE, 0.0)
    door.accepted(51, THERE, 0.0)
    assert fates(door.accepted(101, HERE, 0.0)) == [(50, Fate.CROWDED)]
    assert fates(door.accepted(102, HERE, 0.0)) == [(101, Fate.CROWDED)]
    door.known(51, "key")
    door.known(102, "key")
    assert door.accepted(103, HERE, 0.0) == []
    door.guest(103, HERE, 0.0)
    assert fates(door.accepted(104, HERE, 0.0)) == [(103, Fate.CROWDED)]


def test_where_only_known_ones_are_left_the_one_with_most_gives_way_if_it_has_several():
    door = strangers(last_descriptor=100, last_of_known=110)
    for number, key in ((1, "node"), (2, "greedy"), (3, "greedy"), (4, "user")):
        door.known(number, key)
    assert door.accepted(105, HERE, 0.0) == []
    door.known(105, "newcomer")
    (cut,) = door.accepted(111, HERE, 0.0)
    assert cut == (2, Fate.SURPLUS, "greedy")
    door.known(111, "another")
    assert door.accepted(112, HERE, 0.0) == []


def test_a_descriptor_that_comes_again_is_another_connection():
    door = strangers(patience=10.0)
    door.accepted(1, HERE, 0.0)
    door.accepted(1, THERE, 9.0)
    assert len(door) == 1
    assert door.overdue(15.0) == []


def test_what_the_library_cuts_is_counted_and_what_leaves_in_time_is_not():
    door = strangers()
    for number in (1, 2, 3):
        door.accepted(number, HERE, 0.0)
    door.guest(3, HERE, 0.0)
    assert door.ended(1, 1.0) is None
    ended = door.ended(2, 4.9)
    assert ended is not None
    assert ended.fate is Fate.UNFINISHED
    assert door.ended(3, 9.0) is None
    assert door.ended(77, 9.0) is None
    assert len(door) == 0


@pytest.mark.parametrize("descriptors", [64, 256, 1024, 20_000, 1 << 20])
def test_strangers_take_a_quarter_of_the_descriptors_and_leave_the_last_ones(descriptors):
    limits = StrangerLimits().within(descriptors)
    if descriptors >= 512:
        assert 3 * (limits.arriving + limits.guests) <= descriptors / 4
    assert limits.arriving_per_source < limits.arriving
    assert limits.guests_per_source < limits.guests
    assert limits.last_descriptor < descriptors


def test_a_guest_on_whom_this_side_has_yet_to_decide_stays_until_a_hard_end():
    door = strangers(patience=10.0, longest=30.0)
    for number in (1, 2):
        door.accepted(number, HERE, 0.0)
        door.guest(number, HERE, 5.0)
    assert fates(door.overdue(11.0, {1}.__contains__)) == [(2, Fate.LATE)]
    assert door.overdue(30.0, {1}.__contains__) == []
    assert door.guests == [1]
    assert fates(door.overdue(30.1, {1}.__contains__)) == [(1, Fate.LATE)]


@pytest.mark.parametrize("strangers_that_return", [0, 1, 2, 5])
def test_a_user_with_many_keys_does_not_use_up_the_descriptors(strangers_that_return):
    """One connection with each of them, while strangers that were cut come again at once."""
    limits = StrangerLimits(last_descriptor=50, last_of_known=60)
    door, free, now = Strangers(limits, handshake=5.0, hello=5.0), set(range(1000)), 0.0
    most = 0

    def accept() -> tuple[int, list[int]]:
        free.remove(came := min(free))  # the system gives the lowest
        cut = [cut.connection for cut in door.accepted(came, HERE, now)]
        free.update(cut)
        return came, cut

    honest = [accept()[0] for _ in range(5)]
    for number, connection in enumerate(honest):
        door.known(connection, f"node {number}")
    held = {accept()[0] for _ in range(strangers_that_return)}
    for _ in range(500):
        came, cut = accept()
        door.known(came, "user 1")
        held.difference_update(cut)
        assert not set(cut) & set(honest)
        for _ in range(strangers_that_return - len(held)):
            back, cut = accept()
            held.difference_update(cut)
            held.add(back)
            assert not set(cut) & set(honest)
        door.in_use = 1000 - len(free)  # as is looked at now and then
        most = max(most, door.in_use)
    assert most <= limits.last_of_known + strangers_that_return + 2


def test_who_has_most_is_known_without_a_search():
    """Against a count of all, whatever comes and goes."""
    room, chance = _Room(10**6, 10**6), random.Random(5)
    sources: dict[int, str] = {}
    for step in range(5000):
        if sources and chance.random() < 0.45:
            gone = chance.choice(list(sources))
            room.leave(gone)
            del sources[gone]
        else:
            sources[step] = f"source {min(chance.randrange(40), chance.randrange(40))}"
            room.enter(step, _Waiting(sources[step], 0.0, 0.0))
        counts = Counter(sources.values())
        if counts and step % 7 == 0:
            most = max(counts.values())
            (cut,) = room.evict(Fate.CROWDED)
            assert counts[cut.source] == most
            assert cut.connection == min(one for one, at in sources.items() if at == cut.source)
            del sources[cut.connection]
    assert set(room.connections) == set(sources)


class AtTheDoor(RuleBasedStateMachine):
    """Whatever happens in whatever order, against what is promised."""

    LIMITS = StrangerLimits(
        patience=10.0, arriving=6, arriving_per_source=4, guests=4, guests_per_source=2
    )

    def __init__(self):
        super().__init__()
        self.door = Strangers(self.LIMITS, handshake=5.0, hello=5.0)
        self.now = 0.0
        self.inside: dict[int, tuple[str, float]] = {}
        self.of_known: set[int] = set()

    @rule(number=st.integers(1, 30), source=st.sampled_from("abc"))
    def accept(self, number, source):
        self.of_known.discard(number)
        self.inside[number] = source, self.now
        self._cut(self.door.accepted(number, source, self.now), number)

    @rule(number=st.integers(1, 30), source=st.sampled_from("abc"))
    def prove_unknown(self, number, source):
        self.of_known.discard(number)
        source, _ = self.inside.setdefault(number, (source, self.now))
        self._cut(self.door.guest(number, source, self.now), number)

    @rule(number=st.integers(1, 30))
    def prove_known(self, number):
        self.door.known(number, f"key {number % 3}")
        self.inside.pop(number, None)
        self.of_known.add(number)

    @rule(number=st.integers(1, 30))
    def end(self, number):
        self.door.ended(number, self.now)
        self.inside.pop(number, None)
        self.of_known.discard(number)

    @rule(seconds=st.floats(0.0, 12.0))
    def wait(self, seconds):
        self.now += seconds
        for cut in self.door.overdue(self.now):
            source, since = self.inside.pop(cut.connection)
            assert self.now - since > self.LIMITS.patience
            assert cut.source == source

    def _cut(self, cuts, newcomer):
        for cut in cuts:
            source, _ = self.inside.pop(cut.connection)
            assert cut.fate is Fate.CROWDED
            assert cut.connection != newcomer
            assert cut.connection not in self.of_known
            assert cut.source == source

    @invariant()
    def within_bounds(self):
        door, limits = self.door, self.LIMITS
        for those, most, per_source in (
            (door.arriving, limits.arriving, limits.arriving_per_source),
            (door.guests, limits.guests, limits.guests_per_source),
        ):
            assert len(those) <= most
            sources = Counter(self.inside[number][0] for number in those)
            assert all(count <= per_source for count in sources.values())

    @invariant()
    def nobody_is_forgotten(self):
        assert set(self.door.arriving) | set(self.door.guests) == set(self.inside)
        assert len(self.door) == len(self.inside)


TestAtTheDoor = AtTheDoor.TestCase


def test_one_source_does_not_use_up_what_is_for_all():
    handshakes = Handshakes(
        StrangerLimits(rate=100, burst=100, rate_per_source=20, burst_per_source=20)
    )
    assert sum(handshakes.take(HERE, 0.0) for _ in range(1000)) == 20
    assert sum(handshakes.take(f"10.0.0.{n}", 0.0) for n in range(200)) == 80
    # What the total refused, a source may take later.
    assert sum(handshakes.take("10.0.0.199", 1.0) for _ in range(1000)) == 20


def test_sources_that_are_told_apart_are_bounded_and_the_quietest_is_forgotten():
    handshakes = Handshakes(
        StrangerLimits(rate=1e9, burst=1e9, burst_per_source=1, rate_per_source=0, sources=3)
    )
    assert [handshakes.take(source, 0.0) for source in "abca"] == [True, True, True, False]
    assert handshakes.take("d", 0.0)  # in place of b
    assert len(handshakes._sources) == 3
    assert [handshakes.take(source, 0.0) for source in "acd"] == [False] * 3
    assert handshakes.take("b", 0.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from("abcdef"), st.booleans()), max_size=300))
def test_known_keys_are_admitted_whatever_strangers_do(events):
    now = [0.0]
    limits = StrangerLimits(rate=3, burst=5, rate_per_source=1, burst_per_source=2)
    admission = Admission(["known"], guests=True, limits=limits, clock=lambda: now[0])
    admitted = 0
    for number, (wait, source, known) in enumerate(events):
        now[0] += wait
        if known and number < KNOWN_BURST:
            assert admission.decide("known", source) is Decision.ALLOW
        else:
            admitted += admission.decide(f"key {number}", source) is Decision.ALLOW
        assert admitted <= limits.burst + limits.rate * now[0] + 1e-6


def test_what_became_of_many_is_one_sentence_a_minute_of_each_kind():
    tally = Tally()
    assert tally.sentences(0.0) == []
    for _ in range(1000):
        tally.count(Fate.CROWDED, HERE)
    tally.count(Fate.LATE, THERE)
    first = tally.sentences(1.0)
    assert len(first) == 2
    assert any(": 1000, the last from 192.0.2.1" in sentence for sentence in first)
    for second in range(2, 60):
        tally.count(Fate.CROWDED, THERE)
        assert tally.sentences(float(second)) == []
    (sentence,) = tally.sentences(1.0 + MINUTE)
    assert sentence.endswith(": 58, the last from 192.0.2.2")
    tally.count(Fate.SURPLUS, "user 4711")
    (sentence,) = tally.sentences(100.0)
    assert sentence.endswith(": 1, the last of user 4711")
    assert tally.sentences(500.0) == []
    assert tally.counts() == {
        "late": 1,
        "unfinished": 0,
        "crowded": 1058,
        "surplus": 1,
        "put_off": 0,
    }


def test_the_page_says_what_they_may_take():
    page = (Path(__file__).parents[3] / "docs" / "manager.md").read_text()
    limits = StrangerLimits()
    for row in (
        f"| {limits.patience:g} | `patience` |",
        f"| {limits.guests} and {limits.guests_per_source} | `guests`, `guests_per_source` |",
        f"| {limits.rate:g} and {limits.rate_per_source:g} | `rate`, `rate_per_source` |",
        f"| {limits.burst:g} and {limits.burst_per_source:g} | `burst`, `burst_per_source` |",
        f"| {limits.arriving:,} and {limits.arriving_per_source:,} |",
    ):
        assert row in page, row
