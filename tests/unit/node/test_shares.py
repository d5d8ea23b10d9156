"""Room that swarms share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.node.plane.shares import MULTIPLE, SharedRoom


def test_one_alone_has_seven_eighths_and_the_next_as_much_of_the_rest() -> None:
    room = SharedRoom(6400)
    assert room.fits("a", 5600)
    assert not room.fits("a", 5601)
    room.take("a", 5600)
    assert not room.fits("a", 1)
    assert room.fits("b", 700)
    assert not room.fits("b", 701)
    assert room.fits("", 800)  # what belongs to no swarm
    room.give("a", 5600)
    assert room.fits("b", 5600)


def test_room_that_could_be_given_back_counts_as_left() -> None:
    room = SharedRoom(100)
    room.take("a", 80)
    assert not room.fits("b", 30)
    assert room.fits("b", 30, spare=80)


@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 5_000)), max_size=60),
)
def test_none_takes_more_than_there_is_and_none_all_of_it(
    most: int, wanted: list[tuple[str, int]]
) -> None:
    room = SharedRoom(most)
    for swarm_id, size in wanted:
        if room.fits(swarm_id, size):
            room.take(swarm_id, size)
            assert room.of(swarm_id) <= MULTIPLE * (room.most - room.used)
    assert room.used == sum(room.of(swarm_id) for swarm_id in "abcd") <= most
    for swarm_id in "abcd":
        room.give(swarm_id, room.of(swarm_id))
    assert room.used == 0
