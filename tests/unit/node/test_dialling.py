"""Which addresses of a peer are dialled, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.node.plane.dialling import (
    FIRST_PAUSE,
    LONGEST_IN_VAIN,
    LONGEST_PAUSE,
    PATIENT,
    STAGGER,
    Dialling,
)

A, B, C = "tcp://a:1", "tcp://b:1", "tcp://[::1]:1"


def test_the_next_address_is_tried_when_one_says_nothing_or_fails() -> None:
    dialling = Dialling([A, B, C], 0.0)
    assert dialling.next(0.0) == A
    assert dialling.next(STAGGER / 2) is None
    assert dialling.next(STAGGER) == B
    dialling.failed(B, "refused", 0.4, 0.5)
    assert dialling.error == f"{B}: refused"
    assert dialling.next(0.4) == C
    assert dialling.due is None
    assert dialling.up(A) == {C}
    assert dialling.due is None
    assert dialling.next(100.0) is None


def test_what_worked_is_tried_first() -> None:
    dialling = Dialling([A, B], 0.0)
    assert [dialling.next(0.0), dialling.next(1.0)] == [A, B]
    dialling.up(B)
    dialling.lost("silent", 5.0)
    assert dialling.next(4.9) is None
    assert [dialling.next(5.0), dialling.next(6.0)] == [B, A]


def test_pauses_grow_to_a_bound_and_begin_anew_with_other_addresses() -> None:
    dialling, now, pauses = Dialling([A], 0.0), 0.0, []
    for _ in range(12):
        assert dialling.next(now) == A
        dialling.failed(A, "denied", now, 0.5)
        assert dialling.due is not None
        pauses.append(dialling.due - now)
        now = dialling.due
    assert abs(pauses[0] - FIRST_PAUSE) < 1e-6
    assert abs(pauses[-1] - LONGEST_PAUSE) < 1e-6
    assert dialling.changed([A], now) == set()
    assert dialling.changed([B], now) == set()
    assert dialling.next(now) == B
    assert dialling.changed([A], now) == {B}
    dialling.failed(B, "late", now, 0.5)  # of a round that is over
    assert dialling.next(now) == A


def test_who_has_no_addresses_is_not_dialled() -> None:
    dialling = Dialling([], 0.0)
    assert dialling.due is None
    assert dialling.up() == set()
    dialling.lost("lost", 1.0)
    assert dialling.due is None
    dialling.changed([A], 1.0)
    assert dialling.next(1.0) == A


@pytest.mark.parametrize("worked", [False, True])
def test_addresses_that_never_answered_are_dialled_seldom_in_the_end(worked: bool) -> None:
    dialling, now = Dialling([A], 0.0), 0.0
    if worked:
        dialling.next(now)
        dialling.up(A)
        dialling.lost("x", now)
    pauses = []
    for _ in range(2 * PATIENT):
        assert dialling.due is not None
        pauses.append(dialling.due - now)
        now = dialling.due
        dialling.next(now)
        dialling.failed(A, "refused", now, 0.5)
    assert max(pauses[:PATIENT]) == LONGEST_PAUSE
    assert pauses[-1] == (LONGEST_PAUSE if worked else LONGEST_IN_VAIN)
    dialling.changed([B], now)
    assert dialling.due == now


addresses = st.lists(st.sampled_from([A, B, C]), max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("next"), st.floats(0, 20)),
        st.tuples(st.just("failed"), st.sampled_from([A, B, C])),
        st.tuples(st.just("up"), st.sampled_from([A, B, C, ""])),
        st.tuples(st.just("lost"), st.just("")),
        st.tuples(st.just("changed"), addresses),
    ),
    max_size=60,
)


@given(addresses, steps)
def test_whatever_happens_it_dials_on_while_there_is_no_link_and_never_twice_at_once(
    first, steps
) -> None:
    dialling, now, open_, linked = Dialling(first, 0.0), 0.0, set(), False
    for kind, what in steps:
        match kind:
            case "next":
                now += what
                while (address := dialling.next(now)) is not None:
                    assert not linked
                    assert address in dialling.addresses
                    assert address not in open_
                    open_.add(address)
            case "failed":
                dialling.failed(what, "x", now, 0.5)
                open_.discard(what)
            case "up" if not what or what in open_:
                given_up = dialling.up(what)
                assert given_up == open_ - {what}
                open_, linked = set(), True
            case "lost":
                dialling.lost("x", now)
                linked = False
            case "changed":
                given_up = dialling.changed(what, now)
                assert given_up <= open_
                open_ -= given_up
        assert dialling.trying == open_
        if linked:
            assert dialling.due is None
        elif dialling.addresses:
            assert open_ or dialling.due is not None  # it does not come to rest
            assert dialling.due is None or dialling.due <= now + 1.5 * LONGEST_PAUSE
