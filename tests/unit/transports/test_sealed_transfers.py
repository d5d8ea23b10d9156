"""Both ends of bulk between peers, in virtual time, over connections that are cut at random."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sized

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports.bulk.flow import FlowViolation
from manta.transports.errors import (
    BulkError,
    LocalTransportError,
    RemoteProtocolError,
    TransferCancelled,
    TransferRefused,
)
from manta.transports.sealed.options import Pace, PeerOptions
from manta.transports.sealed.records import MAX_CHUNK, Head, Kind
from manta.transports.sealed.transfers import Ended, Transfers

PACE = Pace(chunk=100, window=400, report=150, allowance=700)
OPTIONS = PeerOptions(pace=PACE, open=4, queued=40, patience=30.0)


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


class End:
    """One side: its machine, its memory, and what it was told."""

    def __init__(self, options=OPTIONS) -> None:
        self.machine = Transfers(options)
        self.sources: dict[bytes, bytes] = {}
        self.destinations: dict[bytes, bytearray] = {}
        self.ended: dict[tuple[str, bytes], BulkError | None] = {}
        self.progress: dict[tuple[str, bytes], int] = {}
        self.wire: deque[tuple[Head, bytes]] = deque()  # to the other side

    def send(self, number, data, ready=None):
        self.sources[name(number)] = data
        self.machine.send(name(number), len(data), len(data) if ready is None else ready)

    def expect(self, number, size):
        self.destinations[name(number)] = bytearray(size)
        self.machine.expect(name(number), size)

    def hear(self):
        for event in self.machine.events():
            key = event.side, event.transfer
            if isinstance(event, Ended):
                assert key not in self.ended, "told twice"
                self.ended[key] = event.error
            else:
                assert key not in self.ended, "told after the end"
                assert event.upto > self.progress.get(key, -1)
                self.progress[key] = event.upto

    def say(self) -> bool:
        """Put the next message on the wire."""
        said = self.machine.take()
        if said is None:
            return False
        head, payload = said.head, said.text or b""
        if head.kind is Kind.CHUNK:
            payload = self.sources[head.transfer][head.offset : head.offset + head.length]
            self.machine.sent(head)
        assert len(payload) == head.length
        self.wire.append((Head.unpack(head.pack()), payload))
        return True

    def take(self, other, now=0.0) -> bool:
        """Take the next message off the other's wire."""
        if not other.wire:
            return False
        head, payload = other.wire.popleft()
        if head.kind is not Kind.CHUNK:
            self.machine.received(head, payload.decode(), now)
        elif self.machine.lands(head):
            self.destinations[head.transfer][head.offset : head.offset + head.length] = payload
            self.machine.landed(head, whole=True)
        return True


class World:
    def __init__(self, options=OPTIONS, pace=PACE) -> None:
        self.here, self.there = End(options), End(options)
        self.now = 0.0
        self.pace = pace

    def connect(self):
        for end in (self.here, self.there):
            end.machine.connected(self.pace)

    def cut(self):
        for end in (self.here, self.there):
            end.wire.clear()
            if end.machine.up:
                end.machine.lost()

    def run(self):
        """Until nothing moves."""
        moved = True
        while moved:
            moved = False
            for end, other in ((self.here, self.there), (self.there, self.here)):
                moved |= end.say()
                moved |= end.take(other, self.now)
                end.hear()


@pytest.fixture
def world():
    made = World()
    made.connect()
    return made


SENT, RECEIVED = "sending", "receiving"


@pytest.mark.parametrize("expected_first", [True, False])
@pytest.mark.parametrize("size", [0, 1, 100, 101, 5000])
def test_a_transfer(world, size, expected_first):
    data = random.Random(size).randbytes(size)
    if expected_first:
        world.there.expect(1, size)
    world.here.send(1, data)
    world.run()
    if not expected_first:
        assert not world.here.ended
        world.there.expect(1, size)
        world.run()
    assert world.here.ended == {(SENT, name(1)): None}
    assert world.there.ended == {(RECEIVED, name(1)): None}
    assert world.there.destinations[name(1)] == data
    assert world.there.progress.get((RECEIVED, name(1)), 0) == size
    assert world.here.progress.get((SENT, name(1)), 0) == size


def test_bytes_leave_as_they_become_ready(world):
    world.there.expect(1, 1000)
    world.here.send(1, bytes(1000), ready=0)
    for upto in (0, 1, 150, 1000):
        world.here.machine.ready(name(1), upto)
        world.run()
        assert world.there.progress.get((RECEIVED, name(1)), 0) == upto
    assert world.here.ended[SENT, name(1)] is None


@pytest.mark.parametrize("ready", [0, 99, 149, 399])
def test_one_that_has_nothing_ready_holds_up_no_other(world, ready):
    for number in range(4):
        world.there.expect(number, 1000)
    for number in range(3):
        world.here.send(number, bytes(1000), ready=ready)
    world.here.send(3, bytes(1000))
    world.run()
    assert list(world.here.ended) == [(SENT, name(3))]


def test_the_same_id_both_ways(world):
    for end, other, data in (
        (world.here, world.there, b"a" * 300),
        (world.there, world.here, b"b"),
    ):
        end.send(1, data)
        other.expect(1, len(data))
    world.run()
    assert world.there.destinations[name(1)] == b"a" * 300
    assert world.here.destinations[name(1)] == b"b"


def test_more_than_may_be_open_wait_and_then_go(world):
    for number in range(40):
        world.here.send(number, bytes([number]) * 150)
        world.there.expect(number, 150)
    for number in range(40, 44):
        world.here.send(number, b"")
    with pytest.raises(BulkError, match="40 transfers wait for this peer already"):
        world.here.send(44, b"")
    world.run()
    assert all(world.there.destinations[name(n)] == bytes([n]) * 150 for n in range(40))


def test_what_nobody_expects_is_refused_in_time_and_told(world):
    world.here.send(1, b"x")
    world.run()
    world.there.machine.tick(29.9)
    world.run()
    assert not world.here.ended
    world.there.machine.tick(30.0)
    world.run()
    error = world.here.ended[SENT, name(1)]
    assert isinstance(error, TransferRefused)
    assert "did not expect it within 30 s" in str(error)


@pytest.mark.parametrize("first", [True, False])
def test_what_is_refused_is_told(world, first):
    if first:
        world.there.machine.refuse(name(1), "this era is over")
    world.here.send(1, b"x" * 500)
    world.run()
    if not first:
        world.there.machine.refuse(name(1), "this era is over")
        world.run()
    assert str(world.here.ended[SENT, name(1)]) == "the receiver says: this era is over"
    assert isinstance(world.here.ended[SENT, name(1)], TransferRefused)


def test_what_is_expected_early_is_sent_at_once(world):
    world.there.expect(1, 1000)
    world.run()
    world.here.send(1, bytes(1000))
    assert [world.here.machine.take().head.kind for _ in range(3)] == [
        *(Kind.OPEN, Kind.CHUNK, Kind.CHUNK)
    ]


def test_credit_that_comes_early_is_bounded_and_forgotten_with_its_connection(world):
    machine = world.here.machine
    for number in range(1000):
        machine.received(Head(Kind.CREDIT, name(number), 0, 10), "", 0.0)
    assert len(machine._granted) == OPTIONS.open
    world.here.send(999, bytes(5))  # of another size: it has to be opened first
    world.here.send(998, bytes(50))
    assert [machine.take().head.kind for _ in range(3)] == [Kind.OPEN, Kind.OPEN, Kind.CHUNK]
    assert machine.take() is None
    world.cut()
    world.connect()
    world.here.send(997, bytes(50))
    assert [machine.take().head.kind for _ in range(3)] == [Kind.OPEN] * 3
    assert machine.take() is None


def test_who_acknowledges_what_was_not_sent_loses_the_connection(world):
    world.here.send(1, bytes(100))
    for received in (1, 100):
        with pytest.raises(RemoteProtocolError, match="acknowledges what was not sent"):
            world.here.machine.received(Head(Kind.CREDIT, name(1), received, 100), "", 0.0)
    world.here.send(2, b"")
    world.here.machine.received(Head(Kind.CREDIT, name(2), 0, 0), "", 0.0)
    assert [world.here.machine.take().head.transfer for _ in range(1)] == [name(1)]


@pytest.mark.parametrize("first", [True, False])
def test_two_sizes_are_told_at_both_ends(world, first):
    if first:
        world.there.expect(1, 10)
    world.here.send(1, b"x" * 11)
    world.run()
    if not first:
        world.there.expect(1, 10)
        world.run()
    for error in (world.here.ended[SENT, name(1)], world.there.ended[RECEIVED, name(1)]):
        assert "expects 10 bytes, and the sender has 11" in str(error)


def test_the_sender_cancels(world):
    world.there.expect(1, 5000)
    world.here.send(1, bytes(5000), ready=1000)
    world.run()
    world.here.machine.cancel(name(1), "its task was stopped")
    world.run()
    assert isinstance(world.here.ended[SENT, name(1)], TransferCancelled)
    error = world.there.ended[RECEIVED, name(1)]
    assert isinstance(error, TransferCancelled)
    assert str(error) == "the sender says: its task was stopped"


def test_the_receiver_cancels_with_chunks_under_way(world):
    world.there.expect(1, 5000)
    world.here.send(1, bytes(5000))
    for _ in range(3):
        world.here.say()
        world.there.take(world.here)
        world.there.say()
        world.here.take(world.there)
    while world.here.say():
        pass
    assert len(world.here.wire) > 1
    world.there.machine.refuse(name(1), "no room any more")
    world.run()
    assert str(world.here.ended[SENT, name(1)]) == "the receiver says: no room any more"
    assert isinstance(world.there.ended[RECEIVED, name(1)], TransferCancelled)


def test_what_was_not_opened_yet_is_cancelled_in_silence(world):
    for number in range(6):
        world.here.send(number, b"x")
    for number in range(6):
        world.here.machine.cancel(name(number), "over")
    world.run()
    assert len(world.here.ended) == 6
    assert not world.there.machine._opened


def test_memory_in_hand_is_given_back_before_the_end_is_told(world):
    world.there.expect(1, 1000)
    world.here.send(1, bytes(1000))
    said = world.here.machine.take()
    assert said is not None
    world.here.wire.append((said.head, b""))
    world.there.take(world.here)
    world.there.say()
    world.here.take(world.there)
    chunk = world.here.machine.take()
    assert chunk is not None
    assert world.there.machine.lands(chunk.head)
    world.here.machine.cancel(name(1), "over")
    world.there.machine.refuse(name(1), "over")
    assert world.here.machine.events() == []
    assert world.there.machine.events() == []
    with pytest.raises(LocalTransportError, match="sending already"):
        world.here.machine.send(name(1), 5, 5)
    world.here.machine.sent(chunk.head)
    world.there.machine.landed(chunk.head, whole=True)
    assert [type(event) for event in world.here.machine.events()] == [Ended]
    assert [type(event) for event in world.there.machine.events()] == [Ended]


def test_a_chunk_that_did_not_open_does_not_count(world):
    world.there.expect(1, 150)
    world.here.send(1, b"x" * 150)
    head = None
    while head is None:
        world.here.say()
        if world.here.wire[0][0].kind is Kind.CHUNK:
            head = world.here.wire.popleft()[0]
        world.there.take(world.here)
        world.there.say()
        world.here.take(world.there)
    assert world.there.machine.lands(head)
    world.there.machine.landed(head, whole=False)
    world.cut()
    world.connect()
    world.run()
    assert world.there.destinations[name(1)] == b"x" * 150


def test_an_answer_that_was_lost_is_given_again(world):
    for number in range(4):
        world.there.expect(number, 100)
        world.here.send(number, bytes(100))
    while len(world.there.ended) < 4:
        world.here.say()
        world.there.take(world.here)
        world.there.hear()
        if len(world.there.ended) < 4:
            world.there.say()
            world.here.take(world.there)
    world.cut()
    world.connect()
    world.run()
    assert world.here.ended == {(SENT, name(number)): None for number in range(4)}


def test_everything_ends_when_the_peer_does(world):
    world.there.expect(1, 1000)
    world.there.send(2, b"x")
    for number in range(10, 20):
        world.there.send(number, b"x")
    world.there.machine.fail(BulkError("its key was withdrawn"))
    world.there.hear()
    assert len(world.there.ended) == 12
    assert all("withdrawn" in str(error) for error in world.there.ended.values())


# --- what a peer may not do -------------------------------------------------------------------


def test_ten_thousand_transfers_cost_the_connection(world):
    machine = world.there.machine
    refused: list[str] = []
    for number in range(10_000):
        try:
            machine.received(Head(Kind.OPEN, name(number), limit=1), "", 0.0)
        except RemoteProtocolError as error:
            refused.append(str(error))
    assert refused == ["it opened more than 4 transfers"] * 9_996
    assert len(machine._opened) == len(machine._theirs) == 4


def test_opening_and_cancelling_without_reading_fills_nothing(world):
    machine = world.there.machine
    for number in range(10_000):
        machine.refuse(name(number), "unwanted")
        machine.received(Head(Kind.OPEN, name(number), limit=1), "", 0.0)
        machine.received(Head(Kind.CANCEL, name(number)), "", 0.0)
    assert not machine._theirs
    assert not machine._out.answers
    assert len(machine._past) <= 2 * OPTIONS.open
    assert len(machine._unwanted) <= 16 * OPTIONS.open


@pytest.mark.parametrize(
    "head",
    [
        Head(Kind.CHUNK, name(9), 0, 1000, 100),  # never opened
        Head(Kind.CHUNK, name(2), 0, 1000, 100),  # opened, and not expected
        Head(Kind.CHUNK, name(3), 0, 1000, 100),  # expected, and not opened
        Head(Kind.CHUNK, name(1), 0, 1000, 401),  # more than its credit
        Head(Kind.CHUNK, name(1), 400, 1000, 1),
        Head(Kind.CHUNK, name(1), 0, 1001, 100),  # of another size
    ],
)
def test_chunks_that_were_not_asked_for_cost_the_connection(world, head):
    world.there.expect(1, 1000)
    world.there.expect(3, 1000)
    world.here.send(1, bytes(1000), ready=0)
    world.here.send(2, bytes(1000))
    world.run()
    with pytest.raises(RemoteProtocolError):
        world.there.machine.lands(head)
    assert world.there.machine._receiving[name(1)].receiver.received == 0


def test_a_chunk_of_the_other_direction_costs_the_connection(world):
    world.there.expect(1, 1000)
    world.here.send(1, bytes(1000), ready=100)
    world.run()
    with pytest.raises(RemoteProtocolError, match="not granted"):
        world.here.machine.lands(Head(Kind.CHUNK, name(1), 0, 1000, 100))


@pytest.mark.parametrize(
    ("received", "limit"), [(300, 600), (50, 600), (200, 1001), (1 << 61, 1 << 62)]
)
def test_credit_that_is_not_true_costs_the_connection(world, received, limit):
    world.there.expect(1, 1000)
    world.here.send(1, bytes(1000), ready=200)
    world.run()
    with pytest.raises(FlowViolation):
        world.here.machine.received(Head(Kind.CREDIT, name(1), received, limit), "", 0.0)


def test_one_transfer_opened_twice_costs_the_connection(world):
    world.there.machine.received(Head(Kind.OPEN, name(1), limit=1), "", 0.0)
    with pytest.raises(RemoteProtocolError, match="twice"):
        world.there.machine.received(Head(Kind.OPEN, name(1), limit=1), "", 0.0)


def test_what_is_not_here_is_of_no_interest(world):
    for kind in (Kind.CREDIT, Kind.REFUSE, Kind.CANCEL, Kind.PING):
        world.here.machine.received(Head(kind, name(77)), "", 0.0)
    assert world.here.machine.take() is None


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Pace(chunk=0), "a chunk has"),
        (lambda: Pace(chunk=2 << 20), "a chunk has"),
        (lambda: Pace(window=1000, report=501), "twice"),
        (lambda: PeerOptions(pace=Pace(allowance=1000)), "wait for each other"),
        (lambda: PeerOptions(pace=Pace(whole=32 << 20, allowance=1 << 29)), "wait for each other"),
        (lambda: PeerOptions(heartbeat=10.0, silence=10.0), "shorter"),
    ],
)
def test_options_that_do_not_go_together(make, why):
    with pytest.raises(ValueError, match=why):
        make()


@pytest.mark.parametrize(("size", "limit", "length"), [(2000, 2000, 2000), (2001, 400, 100)])
def test_a_small_transfer_is_granted_at_once_and_moves_in_the_largest_chunks(size, limit, length):
    pace = Pace(chunk=100, window=400, report=150, allowance=2 << 20, whole=2000)
    for is_expected_first in (True, False):
        here, there = (End(PeerOptions(pace=pace, open=4)) for _ in range(2))
        here.send(1, bytes(size))
        if is_expected_first:
            there.expect(1, size)
        for end in (here, there):
            end.machine.connected(pace)
        here.say()
        there.take(here)
        if not is_expected_first:
            there.expect(1, size)
        granted = there.machine.take()
        assert granted is not None
        assert granted.head.kind is Kind.CREDIT
        assert (granted.head.offset, granted.head.limit) == (0, limit)
        here.machine.received(granted.head, "", 0.0)
        chunk = here.machine.take()
        assert chunk is not None
        assert chunk.head.length == length


def test_small_transfers_that_have_nothing_ready_hold_up_no_other() -> None:
    size = MAX_CHUNK
    report = size // 8
    pace = Pace(chunk=100, window=400, report=150, allowance=3 * report + size, whole=size)
    world = World(PeerOptions(pace=pace, open=4, queued=40), pace)
    world.connect()
    for number in range(4):
        world.there.expect(number, size)
    for number in range(3):
        world.here.send(number, bytes(size), ready=report - 1)
    world.here.send(3, bytes(size))
    world.run()
    assert list(world.here.ended) == [(SENT, name(3))]


def test_another_connection_may_have_another_pace(world):
    world.there.expect(1, 2000)
    world.here.send(1, bytes(2000), ready=100)
    world.run()
    world.cut()
    for end in (world.here, world.there):
        end.machine.connected(Pace(chunk=300, window=1000, report=0))
    world.here.machine.ready(name(1), 2000)
    for _ in range(20):
        world.here.say()
        world.there.take(world.here)
        world.there.say()
        world.here.take(world.there)
    assert world.here.machine._sending == {}
    assert world.there.destinations[name(1)] == bytes(2000)


def test_ids_are_used_as_they_should_be(world):
    world.here.send(1, b"x")
    world.here.expect(1, 1)
    with pytest.raises(LocalTransportError, match="use each id once"):
        world.here.send(1, b"x")
    with pytest.raises(LocalTransportError, match="use each id once"):
        world.here.expect(1, 1)
    with pytest.raises(LocalTransportError, match="has 16 bytes, not 2"):
        world.here.machine.send(b"no", 1, 1)


# --- any order --------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 9)),
        st.tuples(st.just("expect"), st.integers(0, 9)),
        st.tuples(st.just("ready"), st.integers(0, 9)),
        st.tuples(st.just("say"), st.integers(1, 20)),
        st.tuples(st.just("answer"), st.integers(1, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("refuse"), st.integers(0, 9)),
        st.tuples(st.just("cut"), st.just(0)),
    ),
    max_size=120,
)


@given(STEPS, st.integers(1, 700))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_each_transfer_ends_once_and_is_whole_if_it_says_so(steps, size):
    world = World()
    world.connect()
    here, there = world.here, world.there
    data = {number: random.Random(number).randbytes(size + number) for number in range(10)}
    sent, expected = set(), set()

    def send(number):
        if number not in sent:
            sent.add(number)
            here.send(number, data[number], ready=number * 10)

    def expect(number):
        if number not in expected:
            expected.add(number)
            there.expect(number, size + number)

    for step, number in steps:
        if step == "send":
            send(number)
        elif step == "expect":
            expect(number)
        elif step == "ready":
            here.machine.ready(name(number), size)
        elif step == "cancel" and number in sent:
            here.machine.cancel(name(number), "over")
        elif step == "refuse" and number in expected:
            there.machine.refuse(name(number), "over")
        elif step == "cut":
            world.cut()
            world.connect()
        else:
            end, other = (here, there) if step == "say" else (there, here)
            for _ in range(number):
                end.say()
                other.take(end)
        assert here.machine._allowance.used <= PACE.allowance
        for end in (here, there):
            end.hear()
    world.cut()
    world.connect()
    for number in range(10):
        send(number)
        expect(number)
        here.machine.ready(name(number), size + number)
    world.run()
    there.machine.tick(1000.0)
    world.run()
    for number in range(10):
        transfer = name(number)
        outcome = here.ended[SENT, transfer]
        arrived = there.ended.get((RECEIVED, transfer), "not yet")
        if outcome is None:
            assert arrived is None
        if arrived is None:
            assert bytes(there.destinations[transfer]) == data[number]
        elif arrived == "not yet":  # its sender gave it up before it was opened, or with the cut
            assert isinstance(outcome, TransferCancelled)
    assert here.machine._allowance.used == 0
    assert not here.machine._sending
    assert not there.machine._theirs


HEADS = st.builds(
    lambda kind, number, offset, limit, length, code: Head(
        kind, name(number), offset, limit, length if kind is Kind.CHUNK else 0, code
    ),
    st.sampled_from([one for one in Kind if one is not Kind.BYE]),
    st.integers(0, 12),
    st.sampled_from([0, 0, 0, 1, 100, 150, 300, 1 << 40]),
    st.sampled_from([0, 100, 150, 300, 400, 1000, 1 << 62]),
    st.sampled_from([1, 50, 100, 150]),
    st.integers(0, 2),
)


@given(st.lists(st.tuples(HEADS, st.booleans()), max_size=150))
@settings(max_examples=400, deadline=None)
def test_whatever_a_peer_says_it_breaks_nothing_and_what_is_kept_of_it_is_bounded(said):
    here = End()
    machine = here.machine
    machine.connected(PACE)
    for number in range(4):
        here.send(number, bytes(300), ready=150)
        here.expect(number + 4, 300)
    for head, answers in said:
        try:
            head = Head.unpack(head.pack())
            if head.kind is not Kind.CHUNK:
                machine.received(head, "", 0.0)
            elif machine.lands(head):
                machine.landed(head, whole=True)
        except RemoteProtocolError:
            machine.lost()
            machine.connected(PACE)
        here.hear()
        if answers:
            here.say()
            here.wire.clear()
        out = machine._out
        kept: list[Sized] = [out.answers, out.credits, out.opens, machine._opened, machine._granted]
        assert all(len(one) <= 2 * OPTIONS.open for one in kept)
        assert len(machine._theirs) <= OPTIONS.open
    for number in range(4, 8):
        assert here.progress.get((RECEIVED, name(number)), 0) <= 300
    machine.fail(BulkError("over"))
    here.hear()
    assert len(here.ended) == 8


def test_what_was_expected_before_there_was_a_connection_goes_on_by_the_pace_of_that() -> None:
    transfers = Transfers(PeerOptions())
    transfers.expect(bytes(16), 64 << 20)
    transfers.connected(Pace(chunk=1 << 20, window=16 << 20, report=4 << 20))
    transfers.received(Head(Kind.OPEN, bytes(16), 0, 64 << 20, 0, 0), "", 0.0)
    said = transfers.take()
    assert said is not None
    assert (said.head.kind, said.head.limit) == (Kind.CREDIT, 16 << 20)
