"""Which swarms each heartbeat names."""

from __future__ import annotations

from manta.node.link.turns import Turns
from manta.protocol.node import MOST_HOLDS


def test_each_is_named_in_its_turn() -> None:
    turns, few = Turns(), ["a", "b"]
    assert turns.next(few) == ("a", "b") == turns.next(few)
    many = [f"{number}" for number in range(2 * MOST_HOLDS + 500)]
    told = [turns.next(many) for _ in range(3)]
    assert {len(one) for one in told} == {MOST_HOLDS}
    assert set(many) == {swarm_id for one in told for swarm_id in one}
