from __future__ import annotations

from typing import Any

import msgspec
import pytest

from manta.mesh.coordination.events import Ignored, Joined, Left, Received, Send, Tick
from manta.mesh.coordination.stealing import (
    MOST_ITEMS,
    MOST_RESULT,
    PERIOD,
    Action,
    Completed,
    Finished,
    News,
    Row,
    Run,
    Stealing,
    Takeover,
)


def news(actions: list[Action], peer: str) -> News:
    (found,) = [one.message for one in actions if isinstance(one, Send) and one.peer == peer]
    return found


def owners(machine: Stealing) -> str:
    return "".join(row.owner for row in machine.rows)


def test_items_are_divided_in_equal_parts() -> None:
    assert owners(Stealing("a", 7, ["a", "b", "c"])) == "aaabbcc"
    assert owners(Stealing("a", 2, ["a", "b", "c"])) == "ab"


def test_a_peer_does_its_items_one_after_another() -> None:
    machine = Stealing("a", 2, ["a"])
    assert machine.handle(Tick(), 0.0) == [Run(0, 1)]
    assert machine.handle(Completed(0, b"x"), 1.0) == [Run(1, 1)]
    assert machine.handle(Completed(1), 2.0) == [Finished()]
    assert [row.result for row in machine.rows] == [b"x", b""]
    assert machine.due is None


def test_of_nothing_all_is_done() -> None:
    assert Stealing("a", 0, ["a"]).handle(Tick(), 0.0) == [Finished()]


def test_who_has_nothing_left_is_given_half_of_what_is_not_begun() -> None:
    thief, victim = Stealing("b", 5, ["a"], ["a"]), Stealing("a", 5, ["a"], ["b"])
    assert victim.handle(Tick(), 0.0) == [Run(0, 1)]
    wants = news(thief.handle(Tick(), 0.0), "a")
    assert wants.wants == 1
    given = news(victim.handle(Received("b", wants), 0.1), "b")
    assert owners(victim) == "aaabb"
    assert Run(3, 1) in thief.handle(Received("a", given), 0.2)
    again = victim.handle(Received("b", wants), 0.3)  # it came twice
    assert owners(victim) == "aaabb"
    assert not any(isinstance(one, Run) for one in again)


def test_what_was_not_acknowledged_is_told_again() -> None:
    machine = Stealing("a", 2, ["a"], ["b"])
    machine.handle(Tick(), 0.0)
    machine.handle(Completed(0), 1.0)
    assert machine.due == 1.0 + PERIOD
    told = news(machine.handle(Tick(), 1.0 + PERIOD), "b")
    assert [row.item for row in told.rows] == [0]
    assert news(machine.handle(Tick(), 2.0), "b") == told
    machine.handle(Received("b", News(upto=0, heard=told.upto, asks=False)), 2.1)
    assert machine.due is None


def test_what_a_dead_peer_owned_is_begun_anew_once_all_others_have_yielded() -> None:
    machine = Stealing("a", 3, ["a", "b", "c"], ["b", "c"])
    machine.handle(Tick(), 0.0)
    machine.handle(Completed(0), 0.5)
    asked = news(machine.handle(Left("c"), 1.0), "b")
    (take,) = asked.takes
    assert take.dead == "c"
    assert machine.running is None
    yields = News(upto=1, heard=asked.upto, asks=True, yields=(take,))
    assert Run(2, 2) in machine.handle(Received("b", yields), 1.1)


def test_a_yield_to_another_takeover_is_not_enough() -> None:
    machine = Stealing("a", 3, ["a", "b", "c"], ["b", "c"])
    machine.handle(Tick(), 0.0)
    machine.handle(Completed(0), 0.5)
    (take,) = news(machine.handle(Left("c"), 1.0), "b").takes
    other = News(upto=1, heard=0, asks=True, yields=(Takeover("c", take.number + 1),))
    assert Run(2, 2) not in machine.handle(Received("b", other), 1.1)


def test_who_has_yielded_takes_nothing_of_the_dead_one_until_the_takeover_is_over() -> None:
    machine = Stealing("b", 3, ["a", "c"], ["a", "c"])
    machine.handle(Tick(), 0.0)
    take = Takeover("c", 1)
    asked = News(upto=1, heard=0, asks=True, takes=(take,))
    assert news(machine.handle(Received("a", asked), 0.1), "a").yields == (take,)
    gift = News(upto=5, heard=0, asks=True, rows=(Row(2, 1, 1, "b"),))
    machine.handle(Received("c", gift), 0.2)
    assert machine.running is None
    machine.handle(Received("a", News(upto=2, heard=1, asks=True)), 0.3)
    assert Run(2, 1) in machine.handle(Received("c", gift), 0.4)


def test_of_several_runs_the_first_counts_on_all_peers() -> None:
    rows = [Row(0, 2, 0, "b", True), Row(0, 1, 0, "c", True), Row(0, 1, 3, "a", True)]
    for order in (rows, rows[::-1]):
        machine = Stealing("d", 1, ["a"], ["a"])
        for upto, row in enumerate(order, 1):
            machine.handle(Received("a", News(upto=upto, heard=0, asks=True, rows=(row,))), 0.0)
        assert machine.rows[0].run == 1
        assert machine.rows[0].owner == "a"


def test_a_message_that_was_overtaken_changes_nothing() -> None:
    machine = Stealing("b", 4, ["a"], ["a"])
    machine.handle(Received("a", News(upto=5, heard=0, asks=False)), 0.0)
    machine.handle(Received("a", News(upto=4, heard=0, asks=False, rows=(Row(0, 1, 1, "b"),))), 0.0)
    assert owners(machine) == "aaaa"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (News(upto=1, heard=0, asks=True, rows=(Row(4, 1, 1, "b"),)), "items that are not among"),
        (News(upto=1, heard=10**9, asks=True), "has heard 1000000000 changes"),
    ],
)
def test_what_cannot_be_has_no_effect_and_is_told(message: News, words: str) -> None:
    machine = Stealing("b", 4, ["a"], ["a"])
    actions = machine.handle(Received("a", message), 0.0)
    (ignored,) = [one for one in actions if isinstance(one, Ignored)]
    assert words in ignored.sentence
    assert owners(machine) == "aaaa"


def test_strangers_are_not_heard() -> None:
    machine = Stealing("b", 4, ["a"], ["a"])
    machine.handle(Received("z", News(upto=5, heard=0, asks=True, rows=(Row(0, 1, 1, "b"),))), 0.0)
    assert owners(machine) == "aaaa"
    machine.handle(Joined("b"), 0.0)  # itself
    machine.handle(Left("z"), 0.0)
    assert owners(machine) == "aaaa"


@pytest.mark.parametrize(
    ("items", "names", "words"),
    [
        (-1, ["a"], "-1 items: divide 0 to"),
        (MOST_ITEMS + 1, ["a"], "10001 items"),
        (1, [], "name each peer once, one at least"),
        (1, ["a", "a"], "name each peer once"),
    ],
)
def test_what_cannot_be_divided_is_refused(items: int, names: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Stealing("a", items, names)


def test_only_what_runs_can_be_completed() -> None:
    machine = Stealing("a", 2, ["a"])
    with pytest.raises(ValueError, match="Item 0 was not to be run"):
        machine.handle(Completed(0), 0.0)
    machine.handle(Tick(), 0.0)
    with pytest.raises(ValueError, match="Item 1 was not to be run"):
        machine.handle(Completed(1), 0.0)
    with pytest.raises(ValueError, match="has 1025 bytes: 1024 at most; keep more elsewhere"):
        machine.handle(Completed(0, bytes(MOST_RESULT + 1)), 0.0)
    assert machine.running == Run(0, 1)


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        ["news"],
        ["news", 1, 2],
        ["news", -1, 0, True],
        ["news", 1, 0, 1],
        ["news", 1, 0, True, [[0, 1, 0]]],
        ["news", 1, 0, True, [[0, 1, 0, "a" * 201]]],
        ["news", 1, 0, True, [[0, 1, 0, "a", True, bytes(MOST_RESULT + 1)]]],
        ["news", 1, 0, True, [], [["a"]]],
        ["news", 1, 0, True, [], [], [], 2**62],
        ["olds", 1, 0, True],
    ],
)
def test_garbage_is_no_message(garbage: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(garbage), type=News)


def test_messages_travel() -> None:
    message = News(3, 2, True, (Row(0, 1, 0, "a", True, b"\0"),), (Takeover("b", 1),))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=News) == message
