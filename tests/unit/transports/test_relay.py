"""What a relay carries, for whom, and how much of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports.errors import RemoteProtocolError
from manta.transports.relay import hub as hubs
from manta.transports.relay import wire
from manta.transports.relay.hub import Hub, RelayLimits, Send
from manta.transports.relay.wire import (
    MAX_DATA,
    OVERHEAD,
    REPORT,
    RESERVE,
    THEIRS,
    WINDOW,
    Kind,
    Purpose,
    Said,
)

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
    granted = made.received(B, B, wire.credit(THEIRS, REPORT), 0.0)
    assert granted == [Send(A, wire.credit(5, REPORT))]
    [passed] = made.received(A, A, wire.data(5, b"abc"), 0.0)
    assert passed == Send(B, wire.data(THEIRS, b"abc"))
    with pytest.raises(RemoteProtocolError, match=f"{REPORT} bytes of a stream where"):
        made.received(A, A, wire.data(5, bytes(REPORT - OVERHEAD)), 0.0)
    with pytest.raises(RemoteProtocolError, match="credit for more"):
        made.received(B, B, wire.credit(THEIRS, WINDOW + 1), 0.0)
    with pytest.raises(RemoteProtocolError, match=f"where {REPORT} are the least"):
        made.received(B, B, wire.credit(THEIRS, REPORT - 1), 0.0)
    with pytest.raises(RemoteProtocolError, match="are given back where"):
        made.received(A, A, wire.giving_back(5, REPORT), 0.0)
    assert made.received(A, A, wire.closing(5, "x"), 0.0) == [Send(B, wire.closing(THEIRS, "x"))]
    assert len(made) == 0


def test_who_may_not_be_joined_is_not_and_is_parted_when_that_ends() -> None:
    allowed = {A, B}
    made = hub(allowed=allowed)
    [refused] = made.received(C, C, wire.opening(1, Purpose.LINK, B), 0.0)
    [absent] = made.received(A, A, wire.opening(1, Purpose.LINK, "D" * 40), 0.0)
    assert refused.said == absent.said  # nobody learns who is there
    made.received(A, A, wire.opening(1, Purpose.LINK, B), 0.0)
    made.received(B, B, wire.credit(THEIRS, REPORT), 0.0)
    allowed.discard(B)
    sends = made.received(A, A, wire.data(1, b"secret"), 0.0)
    assert {(send.link, send.said.kind) for send in sends} == {(A, Kind.CLOSE), (B, Kind.CLOSE)}
    assert len(made) == 0


def test_a_link_that_is_lost_ends_its_streams() -> None:
    made = hub()
    made.received(A, A, wire.opening(1, Purpose.LINK, B), 0.0)
    assert [send.link for send in made.left(A, A, 0.0)] == [B]
    assert made.left(A, A, 0.0) == []
    made.received("anew", A, wire.HERE, 0.0)
    assert made.left(A, A, 0.0) == []  # that was not the one that counts
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
    made = hub(RelayLimits(between=2), {A, B, C})
    tos = [B, B, B, C]
    sends = [
        made.received(A, A, wire.opening(number, Purpose.LINK, to), 0.0)[0]
        for number, to in enumerate(tos)
    ]
    assert [send.link for send in sends] == [B, B, A, C]  # one that fills its share leaves others


def crowd(count: int, limits: RelayLimits = FAST) -> tuple[Hub, dict[str, int], dict[str, int]]:
    """Nodes with a stream each to B, which takes a window of each. Returns what each may send, and
    the number of its stream at B."""
    keys = [f"{number:040}" for number in range(count)]
    made = Hub(lambda one, other: True, limits)
    made.received(B, B, wire.HERE, 0.0)
    may, at = {}, {}
    for key in keys:
        [opened] = made.received(key, key, wire.opening(1, Purpose.LINK, B), 0.0)
        at[key] = opened.said.stream
        may[key] = 0
        give(may, made.received(B, B, wire.credit(opened.said.stream, WINDOW), 0.0))
    return made, may, at


def give(may: dict[str, int], sends: list[Send]) -> None:
    for link, said in sends:
        if said.kind is Kind.CREDIT:
            may[str(link)] += said.credit


def test_however_many_streams_are_idle_another_is_carried() -> None:
    made, may, _ = crowd(200)
    assert set(may.values()) == {RESERVE}
    *_, last = may
    sends = made.received(last, last, wire.data(1, bytes(RESERVE - OVERHEAD)), 0.0)
    assert sends[0].link == B
    give(may, sends)
    assert may[last] == WINDOW  # as it has used what it had, it is given the rest


def test_whatever_others_hold_a_stream_has_its_reserve_again_when_that_was_taken() -> None:
    made, may, at = crowd(30)
    *busy, last = may
    for key in busy:  # they fill what the link is promised, and B takes nothing of it
        give(may, made.received(key, key, wire.data(1, bytes(RESERVE - OVERHEAD)), 0.0))
        may[key] -= RESERVE
        while may[key] >= RESERVE * 2:
            size = min(MAX_DATA, may[key] - OVERHEAD)
            give(may, made.received(key, key, wire.data(1, bytes(size)), 0.0))
            may[key] -= size + OVERHEAD
    for _ in range(10):
        sends = made.received(last, last, wire.data(1, bytes(RESERVE - OVERHEAD)), 0.0)
        assert [send.link for send in sends] == [B]  # no more is given to it
        may[last] -= RESERVE
        give(may, made.received(B, B, wire.credit(at[last], RESERVE), 0.0))
        assert may[last] == RESERVE


def test_what_may_come_to_one_link_is_bounded_however_many_send_all_they_may() -> None:
    limits = RelayLimits(rate=1e12, total=1e12)
    made, may, _ = crowd(limits.streams, limits)
    came = 0
    for key in may:
        while may[key] > OVERHEAD:
            size = min(MAX_DATA, may[key] - OVERHEAD)
            sends = made.received(key, key, wire.data(1, bytes(size)), 0.0)
            may[key] -= size + OVERHEAD
            came += size + OVERHEAD
            give(may, sends)
    assert limits.promised < came < limits.promised + limits.streams * RESERVE + MAX_DATA
    assert came < 7.5 * (1 << 20)  # of a link's window of 8 MiB


def test_what_a_stream_gives_back_is_given_to_those_that_wait() -> None:
    made, may, _ = crowd(12)
    held = []
    for key in may:
        give(may, made.received(key, key, wire.data(1, bytes(RESERVE - OVERHEAD)), 0.0))
        may[key] -= RESERVE
        if may[key] < WINDOW - RESERVE:
            held.append(key)
    assert held
    first = next(iter(may))
    back = may[first] - RESERVE
    sends = made.received(first, first, wire.giving_back(1, back), 0.0)
    before = sum(may[key] for key in held)
    give(may, sends)
    assert sum(may[key] for key in held) > before
    assert {str(send.link) for send in sends} <= set(held)


def test_credit_costs_the_same_however_many_streams_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    wait = hubs._Rate.wait

    def counted(self: hubs._Rate, now: float) -> float:
        nonlocal looks
        looks += 1
        return wait(self, now)

    monkeypatch.setattr(hubs._Rate, "wait", counted)
    costs = []
    for count in (20, 400):
        made, may, at = crowd(count, RelayLimits(rate=1e12, total=1e4))
        for key in may:
            made.received(key, key, wire.data(1, bytes(RESERVE - OVERHEAD)), 0.0)
        looks = 0
        for key in list(may)[:10]:
            made.received(B, B, wire.credit(at[key], REPORT), 0.0)
        costs.append(looks)
        looks = 0
        made.tick(0.01)
        costs.append(looks)
    few, few_ticked, many, many_ticked = costs
    assert many <= few
    assert few_ticked <= many_ticked < 128 * 8


def test_credit_waits_where_a_node_would_move_more_than_its_share() -> None:
    made = hub(RelayLimits(rate=100_000, total=1e12))
    made.received(A, A, wire.opening(1, Purpose.LINK, B), 0.0)
    first = made.received(B, B, wire.credit(THEIRS, WINDOW), 0.0)
    first += made.received(A, A, wire.data(1, bytes(RESERVE - OVERHEAD)), 0.0)
    granted = sum(send.said.credit for send in first if send.said.kind is Kind.CREDIT)
    now = 0.0
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
        st.tuples(st.just("back"), st.sampled_from([A, B]), st.integers(0, 3), st.integers(1, 9)),
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
    limits = RelayLimits(rate=1e6, total=1.5e6, promised=WINDOW, streams=4)
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
                    taken[at] = taken.get(at, 0) - wire.cost(said.payload)
                    assert taken[at] >= 0

    for kind, key, number, size in steps:
        mine = sorted(end for end in ends if end[0] == key)
        if kind == "open":
            if (key, number) not in ends:
                ends.add((key, number))
                perform(made.received(key, key, wire.opening(number, Purpose.LINK, str(size)), now))
        elif kind == "left":
            perform(made.left(key, key, now))
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
                if said.credit < REPORT:
                    continue
                taken[at] = taken.get(at, 0) + said.credit
            elif kind == "back":
                said = wire.giving_back(at[1], min(size * REPORT, may.get(at, 0)))
                if at in may:
                    may[at] -= said.credit
            else:
                count = min(size * unit, may.get(at, 0) - OVERHEAD, MAX_DATA)
                if count <= 0:
                    continue
                may[at] -= count + OVERHEAD
                said = wire.data(at[1], bytes(count))
            perform(made.received(key, key, said, now))
        assert all(0 <= left <= WINDOW for left in may.values())
        assert len(made) * 2 == len(ends)
