from __future__ import annotations

from typing import Any

import msgspec
import pytest

from manta.mesh.coordination.events import Ignored, Joined, Left, Received, Send, Tick
from manta.mesh.coordination.leader import (
    LEAP,
    RETRY,
    Claim,
    Epoch,
    Follow,
    Lead,
    Leadership,
    Message,
    Newer,
    Promise,
    Resign,
)


def met(me: str, *others: str) -> Leadership:
    machine = Leadership(me)
    for other in others:
        machine.handle(Joined(other), 0.0)
    return machine


def test_who_is_alone_leads() -> None:
    machine = Leadership("a")
    before = machine.leader
    assert machine.handle(Tick(), 0.0) == [Lead(Epoch(1, "a"))]
    assert (before, machine.leader, machine.due) == (None, "a", None)


def test_the_lowest_leads_once_all_have_promised() -> None:
    machine = Leadership("a")
    machine.alive |= {"b", "c"}
    claim = Claim(Epoch(1, "a"))
    assert machine.handle(Tick(), 0.0) == [Send("b", claim), Send("c", claim)]
    assert machine.handle(Received("b", Promise(Epoch(1, "a"))), 0.1) == []
    assert machine.leader is None
    assert machine.handle(Received("c", Promise(Epoch(1, "a"))), 0.1) == [Lead(Epoch(1, "a"))]


def test_a_claim_is_said_again_to_those_that_have_not_promised() -> None:
    machine = Leadership("a")
    machine.alive |= {"b", "c"}
    machine.handle(Tick(), 0.0)
    machine.handle(Received("b", Promise(Epoch(1, "a"))), 0.1)
    assert machine.due == RETRY
    assert machine.handle(Tick(), RETRY) == [Send("c", Claim(Epoch(1, "a")))]


def test_a_death_ends_the_wait_for_a_promise() -> None:
    machine = Leadership("a")
    machine.alive |= {"b"}
    machine.handle(Tick(), 0.0)
    assert machine.handle(Left("b"), 1.0) == [Lead(Epoch(1, "a"))]


def test_the_next_leads_when_the_leader_dies() -> None:
    machine = met("b", "a")
    follows = machine.handle(Received("a", Claim(Epoch(5, "a"))), 1.0)
    assert follows == [Follow(Epoch(5, "a")), Send("a", Promise(Epoch(5, "a")))]
    assert machine.leader == "a"
    assert machine.handle(Left("a"), 2.0) == [Lead(Epoch(6, "b"))]


def test_a_leader_that_finds_a_lower_id_resigns_and_says_its_epoch() -> None:
    machine = met("b")
    machine.handle(Tick(), 0.0)
    assert machine.handle(Joined("a"), 1.0) == [Resign(Epoch(1, "b"))]
    assert machine.leader is None
    assert machine.handle(Tick(), 1.0 + RETRY) == [Send("a", Newer(Epoch(1, "b")))]


def test_who_hears_of_a_higher_epoch_claims_a_higher_one_but_not_at_once() -> None:
    machine = Leadership("a")
    machine.handle(Tick(), 0.0)
    machine.handle(Joined("b"), 0.1)
    assert machine.handle(Received("b", Newer(Epoch(7, "b"))), 0.2) == [Resign(Epoch(1, "a"))]
    assert machine.due == RETRY
    assert machine.handle(Tick(), RETRY) == [Send("b", Claim(Epoch(8, "a")))]


def test_a_lower_claim_is_answered_with_the_epoch_that_is_followed() -> None:
    machine = met("c", "a", "b")
    machine.handle(Received("a", Claim(Epoch(5, "a"))), 1.0)
    lower = machine.handle(Received("b", Claim(Epoch(4, "b"))), 1.0)
    assert lower == [Send("b", Newer(Epoch(5, "a")))]
    again = machine.handle(Received("a", Claim(Epoch(5, "a"))), 2.0)
    assert again == [Send("a", Promise(Epoch(5, "a")))]


@pytest.mark.parametrize(
    "message",
    [
        Claim(Epoch(3, "c")),  # for another
        Claim(Epoch(LEAP + 2, "b")),
        Newer(Epoch(LEAP + 2, "b")),
        Promise(Epoch(LEAP + 2, "b")),
    ],
)
def test_what_cannot_be_has_no_effect_and_is_told(message: Message) -> None:
    machine = met("a", "b")
    before = machine.epoch
    (ignored,) = machine.handle(Received("b", message), 0.1)
    assert isinstance(ignored, Ignored)
    assert ignored.peer == "b"
    assert machine.epoch == before


@pytest.mark.parametrize(
    "event",
    [
        Received("z", Claim(Epoch(3, "z"))),  # whom the mesh does not count alive
        Received("b", Promise(Epoch(1, "b"))),  # of another epoch
        Received("b", Newer(Epoch(0, ""))),
        Joined("b"),
        Joined("a"),
        Left("z"),
    ],
)
def test_what_says_nothing_new_changes_nothing(event: Any) -> None:
    machine = met("a", "b")
    machine.handle(Tick(), 0.0)
    machine.handle(Received("b", Promise(machine.epoch)), 0.0)
    before = machine.epoch
    sends = machine.handle(event, 0.1)
    assert all(isinstance(action, Send) for action in sends)
    assert (machine.epoch, machine.leader) == (before, "a")


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        [],
        ["claim"],
        ["claim", 3],
        ["claim", [1]],
        ["claim", [-1, "a"]],
        ["claim", [1.5, "a"]],
        ["claim", [2**62, "a"]],
        ["claim", [1, "a" * 201]],
        ["claim", ["a", 1]],
        ["order", [1, "a"]],
    ],
)
def test_garbage_is_no_message(garbage: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(garbage, Message)


def test_messages_travel() -> None:
    for message in (Claim(Epoch(1, "a")), Promise(Epoch(2, "b")), Newer(Epoch(0, ""))):
        packed = msgspec.msgpack.encode(message)
        assert msgspec.msgpack.decode(packed, type=Message) == message
