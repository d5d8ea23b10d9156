"""What a relay carries, for whom, and how much of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports.errors import RemoteProtocolError
from manta.transports.relay import wire
from manta.transports.relay.hub import Hub, RelayLimits, Send
from manta.transports.relay.wire import THEIRS, WINDOW, Kind, Purpose, Said

A, B, C = (letter * 40 for letter in "ABC")
FAST = RelayLimits(rate=1e12, total=1e12)


def hub(limits: RelayLimits = FAST, allowed: set[str] | None = None) -> Hub:
    known = {A, B} if allowed is None else allowed
    made = Hub(lambda one, other: {one, other} <= known, limits)
    for key in (A, B, C):
        assert made.received(key, key, wire.HERE, 0.0) == []
    return made


def test_bytes_go_to_the_other_end_as_far_as_it_takes_them() -> None:
    made = hub()
    [opened] = made.received(A, A, wire.opening(5, Purpose.BULK, B), 0.0)
    assert opened == Send(B, wire.opening(THEIRS, Purpose.BULK, A))
    assert made.received(B, B, wire.credit(THEIRS, 3), 0.0) == [Send(A, wire.credit(5, 3))]
    assert made.received(A, A, wire.data(5, b"abc"), 0.0) == [Send(B, wire.data(THEIRS, b"abc"))]
    with pytest.raises(RemoteProtocolError, match="1 bytes of a stream where 0 may come"):
        made.received(A, A, wire.data(5, b"d"), 0.0)
    with pytest.raises(RemoteProtocolError, match="credit for more"):
        made.received(B, B, wire.credit(THEIRS, WINDOW + 1), 0.0)
    assert made.received(A, A, wire.closing(5, "x"), 0.0) == [Send(B, wire.closing(THEIRS, "x"))]
    assert len(made) == 0


def test_who_may_not_be_joined_is_not_and_is_parted_when_that_ends() -> None:
    allowed = {A, B}
    made = hub(allowed=allowed)
    [refused] = made.received(C, C, wire.opening(1, Purpose.LINK, B), 0.0)
    [absent] = made.received(A, A, wire.opening(1, Purpose.LINK, "D" * 40), 0.0)
    assert refused.said == absent.said  # nobody learns who is there
    made.received(A, A, wire.opening(1, Purpose.LINK, B), 0.0)
    made.received(B, B, wire.credit(THEIRS, 100), 0.0)
    allowed.discard(B)
    sends = made.received(A, A, wire.data(1, b"secret"), 0.0)
    assert {(send.link, send.said.kind) for send in sends} == {(A, Kind.CLOSE), (B, Kind.CLOSE)}
    assert len(made) == 0


def test_a_link_that_is_lost_ends_its_streams() -> None:
    made = hub()
    made.received(A, A, wire.opening(1, Purpose.LINK, B), 0.0)
    assert [send.link for send in made.left(A, A)] == [B]
    assert made.left(A, A) == []
    made.received("anew", A, wire.HERE, 0.0)
    assert made.left(A, A) == []  # that was not the one that counts
    made.received("anew", A, wire.opening(1, Purpose.LINK, B), 0.0)
    [gone, _] = made.received(A, A, wire.opening(1, Purpose.LINK, B), 0.0)
    assert gone.said.kind is Kind.CLOSE


def test_streams_and_openings_of_a_node_are_bounded() -> None:
    made = hub(RelayLimits(streams=3))
    sends = [made.received(A, A, wire.opening(n, Purpose.LINK, B), 0.0)[0] for n in range(5)]
    assert [send.said.kind for send in sends] == [Kind.OPEN] * 3 + [Kind.CLOSE] * 2
    made = hub(RelayLimits(opens=1.0, opens_burst=2.0))
    for number in range(4):
        [send] = made.received(A, A, wire.opening(number, Purpose.LINK, B), 0.0)
        assert (send.link == B) == (number < 2)


def test_credit_waits_where_a_node_would_move_more_than_its_share() -> None:
    made = hub(RelayLimits(rate=100_000, total=1e12))
    made.received(A, A, wire.opening(1, Purpose.LINK, B), 0.0)
    first = made.received(B, B, wire.credit(THEIRS, WINDOW), 0.0)
    granted, now = sum(send.said.credit for send in first), 0.0
    while granted < WINDOW:
        assert made.due is not None
        assert made.due > now
        now = made.due
        granted += sum(send.said.credit for send in made.tick(now))
    assert granted == WINDOW
    assert now > (WINDOW - 25_000 - 2 * 128 * 1024) / 100_000
    assert made.due is None


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("open"), st.sampled_from([A, B, C]), st.integers(0, 2), st.sampled_from([A, B])
        ),
        st.tuples(st.just("credit"), st.sampled_from([A, B]), st.integers(0, 3), st.integers(1, 9)),
        st.tuples(st.just("data"), st.sampled_from([A, B]), st.integers(0, 3), st.integers(1, 9)),
        st.tuples(st.just("close"), st.sampled_from([A, B]), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("left"), st.sampled_from([A, B]), st.just(0), st.just(0)),
        st.tuples(st.just("time"), st.just(A), st.just(0), st.integers(1, 9)),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(steps)
def test_whatever_is_said_no_link_is_sent_more_than_it_takes_and_both_ends_agree(steps) -> None:
    unit = WINDOW // 8
    limits = RelayLimits(rate=1e6, total=1.5e6, promised=3 * WINDOW, streams=4)
    made, now = hub(limits), 0.0
    taken: dict[tuple[str, int], int] = {}  # what each end has said that it takes, less what came
    may: dict[tuple[str, int], int] = {}  # what each end may send
    ends: set[tuple[str, int]] = set()

    def perform(sends: list[Send]) -> None:
        for link, said in sends:
            at = str(link), said.stream
            match said.kind:
                case Kind.OPEN:
                    assert said.opening[1] != link
                    ends.add(at)
                case Kind.CLOSE:
                    ends.discard(at)
                    taken.pop(at, None)
                    may.pop(at, None)
                case Kind.CREDIT:
                    may[at] = may.get(at, 0) + said.credit
                case Kind.DATA:
                    taken[at] = taken.get(at, 0) - len(said.payload)
                    assert taken[at] >= 0

    for kind, key, number, size in steps:
        mine = sorted(end for end in ends if end[0] == key)
        if kind == "open":
            if (key, number) not in ends:
                ends.add((key, number))
                perform(made.received(key, key, wire.opening(number, Purpose.LINK, str(size)), now))
        elif kind == "left":
            perform(made.left(key, key))
            for end in mine:
                ends.discard(end)
                taken.pop(end, None)
                may.pop(end, None)
        elif kind == "time":
            now += size / 10
            perform(made.tick(now))
        elif number < len(mine):
            at = mine[number]
            said = Said(Kind.CLOSE, at[1], b"")
            if kind == "close":
                ends.discard(at)
                taken.pop(at, None)
                may.pop(at, None)
            elif kind == "credit":
                said = wire.credit(at[1], min(size * unit, WINDOW - taken.get(at, 0)))
                if not said.credit:
                    continue
                taken[at] = taken.get(at, 0) + said.credit
            else:
                count = min(size * unit, may.get(at, 0), wire.MAX_DATA)
                if not count:
                    continue
                may[at] -= count
                said = wire.data(at[1], bytes(count))
            perform(made.received(key, key, said, now))
        assert all(0 <= left <= WINDOW for left in may.values())
        assert len(made) * 2 == len(ends)
