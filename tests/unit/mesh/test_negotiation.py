from __future__ import annotations

from typing import Any

import msgspec
import pytest

from manta.mesh.coordination.events import Joined, Left, Received, Send, Tick
from manta.mesh.coordination.negotiation import (
    BIDS,
    CHECK,
    HOLD,
    MOST_ROUNDS,
    MOST_UNITS,
    MOST_WORKS,
    PAUSE,
    RETRY,
    Accept,
    Again,
    Announce,
    Award,
    Begin,
    Bid,
    Cancel,
    Completed,
    Decline,
    Done,
    Ended,
    Message,
    Negotiation,
    Offered,
    Settled,
)


def met(me: str, capacity: int, *others: str) -> Negotiation:
    machine = Negotiation(me, capacity)
    for other in others:
        machine.handle(Joined(other), 0.0)
    return machine


def awarded(machine: Negotiation) -> None:
    """Of 10 units, 6 to c and 4 to b."""
    machine.handle(Offered("w", 10), 0.0)
    machine.handle(Received("b", Bid("w", 1, 5)), 0.1)
    actions = machine.handle(Received("c", Bid("w", 1, 6)), 0.1)
    assert actions == [Send("c", Award("w", 1, 6)), Send("b", Award("w", 2, 4))]


def test_those_that_offer_most_are_awarded_parts_until_all_is_placed() -> None:
    machine = met("a", 0, "b", "c", "d")
    announced = machine.handle(Offered("w", 10), 0.0)
    assert announced == [Send(peer, Announce("w", 1, 10)) for peer in "bcd"]
    machine.handle(Received("b", Bid("w", 1, 5)), 0.1)
    machine.handle(Received("c", Bid("w", 1, 6)), 0.1)
    actions = machine.handle(Received("d", Bid("w", 1, 1)), 0.1)
    assert actions == [Send("c", Award("w", 1, 6)), Send("b", Award("w", 2, 4))]


def test_bids_have_their_time() -> None:
    machine = met("a", 0, "b", "c")
    machine.handle(Offered("w", 1), 0.0)
    machine.handle(Received("b", Bid("w", 1, 5)), 0.1)
    assert machine.handle(Tick(), RETRY) == [Send("c", Announce("w", 1, 1))]
    assert machine.handle(Tick(), BIDS) == [Send("b", Award("w", 1, 1))]
    assert machine.handle(Received("c", Bid("w", 1, 5)), BIDS + 0.1) == []


def test_a_work_ends_once_all_its_parts_are_done() -> None:
    machine = met("a", 0, "b", "c")
    awarded(machine)
    machine.handle(Received("c", Accept(1)), 0.2)
    assert machine.handle(Received("c", Done(1)), 1.0)[0] == Send("c", Settled(1))
    ended = machine.handle(Received("b", Done(2)), 1.0)
    assert ended == [Send("b", Settled(2)), Ended("w", 10, 0)]
    assert machine.due is None


def test_an_award_is_said_again_until_it_is_answered_and_seldom_after_that() -> None:
    machine = met("a", 0, "b", "c")
    awarded(machine)
    machine.handle(Received("c", Accept(1)), 0.2)
    assert machine.handle(Tick(), 0.1 + RETRY) == [Send("b", Award("w", 2, 4))]
    assert Send("c", Award("w", 1, 6)) in machine.handle(Tick(), 0.2 + CHECK)


@pytest.mark.parametrize("how", ["declined", "lost"])
def test_what_a_contractor_does_not_do_is_announced_again_as_another_part(how: str) -> None:
    machine = met("a", 0, "b", "c")
    awarded(machine)
    if how == "declined":
        machine.handle(Received("c", Decline(1)), 0.2)
    else:
        assert machine.handle(Left("c"), 0.2)[0] == Again("w", 1, 6)
    machine.handle(Received("b", Accept(2)), 0.2)
    again = machine.handle(Tick(), 0.1 + PAUSE)
    assert Send("b", Announce("w", 2, 6)) in again
    machine.handle(Received("b", Bid("w", 2, 6)), 1.5)
    late = machine.handle(Tick(), 0.1 + PAUSE + BIDS)
    assert Send("b", Award("w", 3, 6)) in late or how == "lost"
    machine.handle(Joined("c"), 3.0)
    assert machine.handle(Received("c", Done(1)), 3.0) == [Send("c", Settled(1))]  # not counted


def test_what_nobody_takes_is_given_back() -> None:
    machine = met("a", 0, "b")
    now, actions = 0.0, machine.handle(Offered("w", 3), 0.0)
    for round_ in range(1, MOST_ROUNDS + 1):
        assert Send("b", Announce("w", round_, 3)) in actions
        actions = machine.handle(Received("b", Bid("w", round_, 0)), now)
        now += PAUSE
        if round_ < MOST_ROUNDS:
            actions = machine.handle(Tick(), now)
    assert actions == [Ended("w", 0, 3)]


def test_a_bidder_offers_what_it_has_room_for_and_keeps_it_for_a_while() -> None:
    machine = met("b", 5, "a", "c")

    def bid(sender: str, units: int, now: float) -> int:
        (answer,) = machine.handle(Received(sender, Announce("w", 1, units)), now)
        assert isinstance(answer, Send)
        assert isinstance(answer.message, Bid)
        return answer.message.units

    assert bid("a", 3, 0.0) == 3
    assert bid("c", 3, 0.0) == 2
    assert bid("a", 9, 0.0) == 3  # anew
    assert bid("c", 9, HOLD + 0.1) == 5


def test_a_contractor_begins_a_part_once_and_says_that_it_is_done_until_that_is_settled() -> None:
    machine = met("b", 5, "a")
    award = Received("a", Award("w", 7, 5))
    assert machine.handle(award, 0.0) == [Begin("a", "w", 7, 5), Send("a", Accept(7))]
    assert machine.handle(award, 0.1) == [Send("a", Accept(7))]
    assert machine.busy == 5
    assert machine.handle(Completed("a", 7), 1.0) == [Send("a", Done(7))]
    assert machine.busy == 0
    assert machine.handle(Tick(), 1.0 + RETRY) == [Send("a", Done(7))]
    assert machine.handle(award, 1.4) == [Send("a", Done(7))]
    assert machine.handle(Received("a", Settled(7)), 1.5) == []
    assert machine.due is None
    assert machine.handle(award, 1.6) == [Send("a", Decline(7))]  # that came late


def test_an_award_for_which_there_is_no_room_is_declined_for_good() -> None:
    machine = met("b", 5, "a", "c")
    machine.handle(Received("a", Award("w", 1, 5)), 0.0)
    assert machine.handle(Received("c", Award("v", 4, 1)), 0.0) == [Send("c", Decline(4))]
    machine.handle(Completed("a", 1), 1.0)
    assert machine.handle(Received("c", Award("v", 4, 1)), 1.1) == [Send("c", Decline(4))]
    assert machine.handle(Received("c", Award("v", 5, 0)), 1.2) == [Send("c", Decline(5))]


@pytest.mark.parametrize("event", [Left("a"), Received("a", Settled(1))])
def test_what_nobody_wants_any_more_is_cancelled(event: Any) -> None:
    machine = met("b", 5, "a")
    machine.handle(Received("a", Award("w", 1, 5)), 0.0)
    assert machine.handle(event, 1.0) == [Cancel("a", 1)]
    assert machine.busy == 0
    assert machine.handle(Completed("a", 1), 1.0) == []


def test_who_is_no_contractor_of_a_part_settles_nothing() -> None:
    machine = met("a", 0, "b", "c")
    awarded(machine)
    assert machine.handle(Received("b", Done(1)), 0.2) == [Send("b", Settled(1))]
    assert machine.handle(Received("b", Decline(1)), 0.2) == []
    assert machine.handle(Received("z", Done(1)), 0.2) == []
    assert machine.handle(Received("b", Bid("v", 1, 3)), 0.2) == []
    machine.handle(Received("b", Done(2)), 0.3)
    assert machine.handle(Received("c", Done(1)), 0.3)[-1] == Ended("w", 10, 0)


@pytest.mark.parametrize("capacity", [-1, MOST_UNITS + 1])
def test_a_capacity_that_cannot_be_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"capacity is {capacity}: give 0 to"):
        Negotiation("a", capacity)


@pytest.mark.parametrize(
    ("work", "units", "words"),
    [
        ("w", 0, "'w' has 0 units: give 1 to"),
        ("w", MOST_UNITS + 1, "units: give 1 to"),
        ("", 1, "has 0 characters"),
        ("w" * 201, 1, "has 201 characters"),
        ("there", 1, "'there' is being handed out: give another name"),
    ],
)
def test_a_work_that_cannot_be_is_refused(work: str, units: int, words: str) -> None:
    machine = Negotiation("a", 0)
    machine.handle(Offered("there", 1), 0.0)
    with pytest.raises(ValueError, match=words):
        machine.handle(Offered(work, units), 0.0)


def test_a_manager_has_a_bounded_number_of_works() -> None:
    machine = Negotiation("a", 0)
    for number in range(MOST_WORKS):
        machine.handle(Offered(str(number), 1), 0.0)
    with pytest.raises(ValueError, match="wait until one has ended"):
        machine.handle(Offered("one more", 1), 0.0)


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        [],
        ["bid"],
        ["bid", "w", 1, -1],
        ["bid", "w", 1, MOST_UNITS + 1],
        ["bid", "w", 1.5, 1],
        ["announce", "", 1, 1],
        ["announce", "w" * 201, 1, 1],
        ["award", "w", 2**62, 1],
        ["done", "1"],
        ["bribe", 1],
    ],
)
def test_garbage_is_no_message(garbage: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(garbage, Message)


def test_messages_travel() -> None:
    messages = [Announce("w", 1, 2), Bid("w", 1, 2), Award("w", 1, 2), Accept(1), Done(1)]
    for message in [*messages, Decline(1), Settled(1)]:
        packed = msgspec.msgpack.encode(message)
        assert msgspec.msgpack.decode(packed, type=Message) == message
