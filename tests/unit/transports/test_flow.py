"""The rules of one transfer, by tables and by simulation of lossy links."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.transports.bulk.flow import (
    Allowance,
    Budget,
    FlowViolation,
    Piece,
    Position,
    Receiver,
    RequestTimer,
    Sender,
)
from manta.transports.errors import RemoteProtocolError


def test_a_sender_sends_only_what_was_granted():
    sender = Sender(1000, 300, Allowance(10_000))
    assert sender.take() is None
    sender.start(0, 500)
    assert [sender.take(), sender.take(), sender.take()] == [Piece(0, 300), Piece(300, 200), None]
    sender.credit(300, 800)
    assert [sender.take(), sender.take()] == [Piece(500, 300), None]
    sender.credit(800, 1000)
    assert sender.take() == Piece(800, 200)
    assert not sender.done
    sender.credit(1000, 1000)
    assert sender.done


def test_a_sender_goes_on_from_where_the_receiver_stands():
    allowance = Allowance(10_000)
    sender = Sender(1000, 400, allowance)
    sender.start(0, 1000)
    sender.take()
    sender.take()
    assert allowance.used == 800
    sender.pause()
    assert allowance.used == 0
    assert sender.take() is None
    sender.credit(800, 1000)  # granted on the lost connection
    assert sender.take() is None
    sender.start(400, 900)
    assert sender.take() == Piece(400, 400)
    sender.start(0, 1000)  # the receiver was restarted and has lost it all
    assert sender.take() == Piece(0, 400)


def test_an_allowance_is_shared_and_returned():
    allowance = Allowance(500)
    one, other = Sender(1000, 300, allowance), Sender(1000, 300, allowance)
    for sender in (one, other):
        sender.start(0, 1000)
    assert one.take() == Piece(0, 300)
    assert other.take() is None
    one.credit(300, 1000)
    assert other.take() == Piece(0, 300)
    assert one.take() is None
    other.pause()
    assert one.take() == Piece(300, 300)


def test_a_chunk_beyond_the_allowance_is_sent_alone():
    allowance = Allowance(100)
    sender = Sender(1000, 300, allowance)
    sender.start(0, 1000)
    assert sender.take() == Piece(0, 300)
    assert sender.take() is None


@pytest.mark.parametrize(("received", "limit"), [(500, 400), (0, 1001), (1001, 1001)])
def test_an_impossible_start_is_a_violation(received, limit):
    with pytest.raises(FlowViolation):
        Sender(1000, 300, Allowance(1000)).start(received, limit)


@pytest.mark.parametrize(("received", "limit"), [(301, 1000), (99, 1000), (300, 1001)])
def test_credit_for_what_was_not_sent_is_a_violation(received, limit):
    sender = Sender(1000, 100, Allowance(1000))
    sender.start(100, 300)
    sender.take()
    sender.take()
    assert issubclass(FlowViolation, RemoteProtocolError)
    with pytest.raises(FlowViolation):
        sender.credit(received, limit)


def test_a_receiver_waits_for_its_grant():
    receiver = Receiver(1000, 400)
    assert receiver.position() == Position(0, 0)
    with pytest.raises(FlowViolation):
        receiver.chunk(0, 1)
    receiver.grant()
    assert receiver.position() == Position(0, 400)


def test_a_receiver_grants_more_with_each_chunk():
    receiver = Receiver(1000, 400)
    receiver.grant()
    receiver.position()
    assert receiver.chunk(0, 100)
    assert receiver.position() == Position(100, 500)
    assert receiver.chunk(100, 400)
    assert receiver.position() == Position(500, 900)
    assert receiver.chunk(500, 400)
    assert receiver.position() == Position(900, 1000)
    assert receiver.chunk(900, 100)
    assert receiver.complete


def test_a_receiver_ignores_repeats_and_what_follows_a_gap():
    receiver = Receiver(1000, 1000)
    receiver.grant()
    receiver.position()
    assert receiver.chunk(0, 100)
    assert not receiver.chunk(0, 100)
    assert not receiver.chunk(200, 100)
    assert receiver.received == 100


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 401), (400, 1), (0, -1)])
def test_chunks_beyond_the_limit_are_a_violation(offset, length):
    receiver = Receiver(1000, 400)
    receiver.grant()
    receiver.position()
    with pytest.raises(FlowViolation):
        receiver.chunk(offset, length)


def test_a_budget_is_first_come_first_served():
    budget: Budget[str] = Budget(1000)
    assert budget.request("a", 600)
    assert not budget.request("b", 600)
    assert not budget.request("c", 100)  # would fit, but b was first
    assert budget.release("a") == ["b", "c"]
    assert budget.granted == 700
    assert not budget.request("d", 5000)
    assert budget.release("b") == []
    assert budget.release("c") == ["d"]  # larger than the budget, so alone
    assert not budget.request("e", 1)
    assert not budget.request("f", 1)
    assert budget.release("e") == []  # gave up waiting
    assert budget.release("d") == ["f"]


def test_patience():
    timer = RequestTimer(now=100.0, timeout=12.0, repeat_after=5.0)
    assert timer.due(104.9) is None
    assert timer.due(105.0) == "repeat"
    assert timer.due(106.0) is None
    timer.heard(107.0)
    assert timer.due(111.0) is None
    assert timer.due(112.0) == "give up"


def test_a_peer_that_is_silent_or_sends_nothing_is_given_up_sooner():
    timer = RequestTimer(0.0, 900.0, 2.0, silence=5.0, standstill=12.0)
    assert timer.due(2.0) == "repeat"
    assert timer.due(4.9) == "repeat"
    assert timer.due(5.0) == "give up"
    for now in (4.0, 8.0):
        timer.heard(now)
    assert timer.due(9.9) is None
    timer.heard(11.0)
    assert timer.due(12.0) == "give up"
    timer.moved(11.5)
    assert timer.due(13.0) is None
    assert timer.passed(13.0) == 13.0


def test_a_receiver_goes_on_where_another_ended():
    receiver = Receiver(1000, 400, received=300)
    assert receiver.position() == Position(300, 300)
    receiver.grant()
    assert receiver.position() == Position(300, 700)
    assert receiver.chunk(300, 400)
    assert receiver.received == 700


@settings(max_examples=100)
@given(
    size=st.integers(1, 3000),
    chunk=st.integers(20, 700),
    window=st.integers(20, 1500),
    allowance=st.integers(1, 2000),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    seed=st.integers(0, 2**32),
)
def test_any_number_of_cuts_moves_every_byte_once(size, chunk, window, allowance, cuts, seed):
    """A link that delays, and loses all that is under way when it is cut."""
    generator = random.Random(seed)
    blob = generator.randbytes(size)
    arrived = bytearray()
    shared = Allowance(allowance)
    sender, receiver = Sender(size, chunk, shared), Receiver(size, window)
    receiver.grant()
    there: deque[Piece] = deque()
    back: deque[Position] = deque()
    sent = 0

    def connect():
        there.clear()
        back.clear()
        sender.pause()
        stand = receiver.position()
        sender.start(stand.received, stand.limit)

    connect()
    for step in range(20_000):
        if step in cuts:
            connect()
        if sender.done:
            break
        actions = ["take"]
        if there:
            actions.append("deliver")
        if back:
            actions.append("credit")
        match generator.choice(actions):
            case "take":
                piece = sender.take()
                if piece is not None:
                    there.append(piece)
                    sent += piece.length
            case "deliver":
                piece = there.popleft()
                if receiver.chunk(piece.offset, piece.length):
                    arrived += blob[piece.offset : piece.offset + piece.length]
                    back.append(receiver.position())
            case "credit":
                credit = back.popleft()
                sender.credit(credit.received, credit.limit)
        under_way = sum(piece.length for piece in there)
        assert under_way <= min(window, max(allowance, chunk))
        assert shared.used <= max(allowance, chunk)
    assert sender.done
    assert arrived == blob
    assert receiver.complete
    sender.pause()
    assert shared.used == 0
    assert sent <= size + len(cuts) * window
