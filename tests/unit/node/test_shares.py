"""Room that swarms share."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from manta.node.plane.shares import MULTIPLE, Cost, SharedRoom, Spare, Whose


def test_one_alone_has_seven_eighths_and_the_next_as_much_of_the_rest() -> None:
    room = SharedRoom(6400)
    assert room.fits("a", 5600)
    assert not room.fits("a", 5601)
    room.take("a", 5600)
    assert not room.fits("a", 1)
    assert room.fits("b", 700)
    assert not room.fits("b", 701)
    assert (room.of("a"), room.allows("a"), room.allows("b")) == (5600, 5600, 700)
    room.give("a", 5600)
    assert room.fits("b", 5600)


def test_room_that_could_be_given_back_counts_as_left() -> None:
    room = SharedRoom(100)
    room.take("a", 80)
    assert not room.fits("b", 30)
    assert room.fits("b", 30, spare=80)


def test_nothing_takes_no_room() -> None:
    room = SharedRoom(100)
    room.take("a", 90)
    assert room.fits("a", 0)
    assert room.make("a", 0)


class Things:
    """Of size 10, by swarm, that can be given back."""

    def __init__(self, room: SharedRoom, cost: Cost, **counts: int) -> None:
        self.room = room
        self.counts = Counter(counts)
        for swarm_id, count in counts.items():
            room.take(swarm_id, 10 * count)
        room.offer(cost, Spare(self.sizes, self.give_back))

    def sizes(self) -> dict[str, int]:
        return {swarm_id: 10 * count for swarm_id, count in self.counts.items()}

    def give_back(self, whose: Whose) -> bool:
        found = [swarm_id for swarm_id, count in self.counts.items() if count and whose(swarm_id)]
        for swarm_id in found[:1]:
            self.counts[swarm_id] -= 1
            self.room.give(swarm_id, 10)
        return bool(found)


def test_what_costs_least_is_given_back_first_and_of_that_a_swarm_s_own() -> None:
    room = SharedRoom(1600)
    dear, cheap = (Things(room, cost, a=5, b=5) for cost in (Cost.SOME, Cost.LITTLE))
    room.take("a", 1200)
    for size, left in ((50, (1, 5, 5, 5)), (30, (0, 3, 5, 5)), (50, (0, 0, 2, 5))):
        assert room.make("a", size)
        room.take("a", size)
        assert (*cheap.counts.values(), *dear.counts.values()) == left


def test_nothing_is_given_back_where_all_of_it_would_not_be_enough() -> None:
    room = SharedRoom(1600)
    things = [Things(room, cost, a=1, b=30) for cost in (Cost.LITTLE, Cost.SOME)]
    room.take("a", 700)
    assert not room.make("a", 701)
    assert [one.counts for one in things] == [{"a": 1, "b": 30}] * 2
    assert room.make("a", 700)


def test_what_may_be_asked_for_goes_for_others_and_not_for_its_own_swarm() -> None:
    room = SharedRoom(160)
    things = Things(room, Cost.MUCH, a=10)
    assert not room.make("a", 50)
    assert things.counts == {"a": 10}
    assert room.make("b", 60)
    assert things.counts == {"a": 9}


@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 5_000)), max_size=60),
)
def test_none_takes_more_than_there_is_and_none_all_of_it(
    most: int, wanted: list[tuple[str, int]]
) -> None:
    room = SharedRoom(most)
    for swarm_id, size in wanted:
        if size and room.fits(swarm_id, size):
            room.take(swarm_id, size)
            assert room.of(swarm_id) <= MULTIPLE * (room.most - room.used)
    assert room.used == sum(room.of(swarm_id) for swarm_id in "abcd") <= most
    for swarm_id in "abcd":
        room.give(swarm_id, room.of(swarm_id))
    assert room.used == 0
