"""Who may connect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.transports.security.admission import (
    KNOWN_BURST,
    KNOWN_RATE,
    Admission,
    Decision,
    Standing,
    TokenBucket,
)
from manta.transports.security.strangers import StrangerLimits

ALLOW, DENY, BUSY = Decision.ALLOW, Decision.DENY, Decision.BUSY


class Time:
    now = 0.0

    def __call__(self):
        return self.now


def test_known_keys_pass_and_others_do_not():
    admission = Admission(["alice"])
    assert [admission.decide(key) for key in ("alice", "bob")] == [ALLOW, DENY]
    admission.allow("bob")
    assert admission.decide("bob") is ALLOW
    assert admission.standing("bob") is Standing.KNOWN


def test_a_forgotten_key_is_unknown():
    admission = Admission(["alice"])
    admission.forget("alice")
    assert admission.decide("alice") is DENY
    open_house = Admission(["alice"], guests=True)
    open_house.forget("alice")
    assert open_house.standing("alice") is Standing.GUEST


def test_a_denied_key_is_not_even_a_guest_until_it_is_allowed_or_forgotten():
    admission = Admission(["alice"], guests=True)
    for lift in (admission.allow, admission.forget):
        admission.deny("alice")
        assert admission.standing("alice") is Standing.DENIED
        assert admission.decide("alice") is DENY
        lift("alice")
        assert admission.decide("alice") is ALLOW


def test_another_set_of_known_keys_keeps_the_denials():
    admission = Admission(["alice"])
    admission.deny("mallory")
    admission.replace_known(["bob", "mallory"])
    keys = ("alice", "bob", "mallory")
    assert [admission.decide(key) for key in keys] == [DENY, ALLOW, DENY]


def test_guests_come_at_their_rate_and_known_keys_always():
    time = Time()
    limits = StrangerLimits(rate=2.0, burst=3)
    admission = Admission(["alice"], guests=True, limits=limits, clock=time)
    assert [admission.decide(f"guest {n}") for n in range(5)] == [ALLOW] * 3 + [BUSY] * 2
    assert admission.decide("alice") is ALLOW
    time.now += 1.0
    assert [admission.decide(f"guest {n}") for n in range(3)] == [ALLOW, ALLOW, BUSY]
    assert admission.standing("guest 9") is Standing.GUEST  # asking costs nothing


def test_known_keys_come_at_a_rate_that_all_of_one_owner_share():
    time = Time()
    keys = [f"{number}@alice" for number in range(1000)]
    admission = Admission([*keys, "bob"], owner_of=lambda key: key.split("@")[-1], clock=time)
    assert [admission.decide(key) for key in keys].count(ALLOW) == KNOWN_BURST
    assert admission.decide("bob") is ALLOW
    assert admission.decide(keys[0]) is BUSY
    time.now += 1.0
    assert [admission.decide(keys[0]) for _ in range(100)].count(ALLOW) == KNOWN_RATE


def test_owners_that_are_told_apart_are_bounded():
    admission = Admission(map(str, range(100)), limits=StrangerLimits(sources=10))
    assert {admission.decide(str(number)) for number in range(100)} == {ALLOW}
    assert len(admission._known_handshakes) == 10


@given(
    st.floats(0.1, 100),
    st.floats(1, 50),
    st.lists(st.floats(0, 10), min_size=1, max_size=100),
)
def test_a_bucket_gives_no_more_than_burst_and_rate(rate, burst, waits):
    bucket, now, taken = TokenBucket(rate, burst), 0.0, 0
    for wait in waits:
        now += wait
        taken += bucket.take(now)
        assert taken <= burst + rate * now + 1e-6


def test_a_clock_that_runs_back_gives_nothing():
    bucket = TokenBucket(1.0, 1.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)


@pytest.mark.parametrize("change", ["allow", "deny", "forget"])
def test_a_reader_sees_one_snapshot_or_the_next(change):
    admission = Admission(["alice"])
    before = admission._snapshot
    getattr(admission, change)("bob")
    assert admission._snapshot is not before
    assert before.known == {"alice"}


def test_a_known_key_that_breaks_the_protocol_often_has_to_wait() -> None:
    now = 0.0
    admission = Admission(["known", "other"], guests=True, clock=lambda: now)
    for _ in range(4):
        admission.offended("known")
        now += 1.0
    assert admission.decide("known") is Decision.ALLOW
    admission.offended("known")
    assert admission.decide("known") is Decision.BUSY
    assert admission.decide("other") is Decision.ALLOW
    now = 59.9
    assert admission.decide("known") is Decision.BUSY
    now = 60.0
    assert admission.decide("known") is Decision.ALLOW


def test_offences_of_strangers_are_not_kept() -> None:
    admission = Admission(guests=True)
    for number in range(100):
        admission.offended(f"stranger-{number}")
    assert not admission._offences._times
    assert admission.decide("stranger-1") is Decision.ALLOW


def test_who_watches_hears_of_each_key_that_is_withdrawn() -> None:
    admission = Admission(["a", "b", "c", "d"], guests=True)
    heard: list[str] = []
    unwatch = admission.watch(heard.append)
    admission.allow("e")
    admission.forget("a")
    admission.forget("a")
    admission.deny("b")
    admission.deny("stranger")
    assert heard == ["a", "b"]
    admission.replace_known(["c", "f"])
    assert sorted(heard[2:]) == ["d", "e"]
    unwatch()
    admission.forget("c")
    assert len(heard) == 4
