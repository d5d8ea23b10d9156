from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.node.scheduling.lanes import Lanes
from manta.protocol.node import Instance


def instance(index: int, iteration: int = 0, alias: str = "worker", attempt: int = 0) -> Instance:
    return Instance("s", alias, index, iteration, attempt)


def test_until_it_is_known_what_the_module_is_each_index_has_its_own_lane() -> None:
    lanes = Lanes()
    assert lanes.take(instance(0)) == ("s", "worker", 0)
    lanes.leave(instance(0))
    assert lanes.take(instance(7)) == ("s", "worker", 7)


def test_fresh_rounds_share_the_lanes_that_are_free() -> None:
    lanes = Lanes()
    first, second = lanes.take(instance(4)), lanes.take(instance(9))
    lanes.attempts_are_fresh(first, True)
    assert lanes.take(instance(5)) not in (first, second)
    lanes.leave(instance(9))
    assert lanes.take(instance(6)) == second
    lanes.leave(instance(4))
    assert lanes.take(instance(7)) == first


def test_a_living_object_stays_with_its_index() -> None:
    lanes = Lanes()
    lane = lanes.take(instance(0))
    lanes.attempts_are_fresh(lane, False)
    lanes.leave(instance(0))
    assert lanes.take(instance(1)) == ("s", "worker", 1)
    lanes.leave(instance(1))
    assert lanes.take(instance(1, iteration=1)) == ("s", "worker", 1)
    assert lanes.take(instance(0, iteration=1)) == lane


def test_an_index_goes_back_to_the_lane_of_its_number() -> None:
    lanes = Lanes()
    for index in range(3):
        lanes.take(instance(index))
    lanes.attempts_are_fresh(("s", "worker", 0), True)
    for index in range(3):
        lanes.leave(instance(index))
    assert lanes.take(instance(2, iteration=1)) == ("s", "worker", 2)


def test_an_instance_that_is_taken_twice_keeps_its_lane() -> None:
    lanes = Lanes()
    lane = lanes.take(instance(3))
    lanes.attempts_are_fresh(lane, True)
    assert lanes.take(instance(3)) == lane == lanes.of(instance(3))


def test_tasks_do_not_share_lanes() -> None:
    lanes = Lanes()
    lanes.attempts_are_fresh(lanes.take(instance(0)), True)
    lanes.leave(instance(0))
    assert lanes.take(instance(0, alias="other")) == ("s", "other", 0)


def test_a_closed_lane_is_forgotten_unless_something_is_to_run_in_it() -> None:
    lanes = Lanes()
    lane = lanes.take(instance(0))
    lanes.attempts_are_fresh(lane, True)
    lanes.close(lane)
    assert lanes.of(instance(0)) == lane
    lanes.leave(instance(0))
    lanes.close(lane)
    assert lanes.take(instance(5)) == ("s", "worker", 5), "what is known of it is forgotten too"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=120))
def test_fresh_rounds_need_no_more_lanes_than_run_at_once(steps: list[tuple[bool, int]]) -> None:
    lanes, running, used, most, number = Lanes(), list[Instance](), set[int](), 1, 0
    lanes.attempts_are_fresh(lanes.take(instance(0, iteration=-1)), True)
    used.add(0)
    lanes.leave(instance(0, iteration=-1))
    for begins, which in steps:
        if begins:
            number += 1
            one = instance(which, iteration=number)
            lane = lanes.take(one)
            assert all(lanes.of(other) != lane for other in running)
            running.append(one)
            used.add(lane[2])
            most = max(most, len(running))
        elif running:
            lanes.leave(running.pop(which % len(running)))
    assert len(used) <= most
