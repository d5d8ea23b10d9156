from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.node.scheduling.reservations import Refuse, Reservations, Start
from manta.node.scheduling.room import Asked, Capacity
from manta.protocol.gpus import demand
from manta.protocol.node import Assignment, Instance
from manta.protocol.spec import ModuleSpec, ResourceSpec

MODULE = ModuleSpec("worker")


def ask(
    index: int = 0,
    swarm: str = "s",
    priority: int = 0,
    cpu: float | None = None,
    memory: int | None = None,
    user: str = "",
    **more: Any,
) -> Assignment:
    instance = Instance(swarm, "worker", index, 0)
    wants = ResourceSpec(cpu, memory, **more) if cpu or memory or more else None
    return Assignment(instance, MODULE, "S", "n", 1, resources=wants, priority=priority, user=user)


def started(actions: list) -> list[int]:
    assert all(isinstance(action, Start) for action in actions)
    return [action.assignment.instance.index for action in actions]


def test_places_are_taken_and_given_back() -> None:
    table = Reservations(Capacity(2))
    assert started(table.offer(ask(0), 0.0)) == [0]
    assert started(table.offer(ask(1), 0.0)) == [1]
    assert table.offer(ask(2), 1.0) == []
    assert (table.running, table.queued) == (2, 1)
    assert table.ended(ask(0).instance, 4.0) == [Start(ask(2), 3.0, 4.0)]


def test_an_offer_twice_is_one() -> None:
    table = Reservations(Capacity(1))
    assert started(table.offer(ask(0), 0.0)) == [0]
    assert table.offer(ask(0), 0.0) == []
    assert table.offer(ask(1), 0.0) == []
    assert table.offer(ask(1), 0.0) == []
    assert started(table.ended(ask(0).instance, 0.0)) == [1]
    assert table.ended(ask(1).instance, 0.0) == []
    assert (table.running, table.queued) == (0, 0)


def test_priority_goes_first() -> None:
    table = Reservations(Capacity(1))
    table.offer(ask(0), 0.0)
    table.offer(ask(1), 0.0)
    table.offer(ask(2, priority=5), 0.0)
    assert started(table.ended(ask(0).instance, 1.0)) == [2]


def test_fair_between_swarms() -> None:
    table = Reservations(Capacity(1))
    table.offer(ask(0, "a"), 0.0)
    for index in range(1, 4):
        table.offer(ask(index, "a"), 0.0)
    for index in range(10, 13):
        table.offer(ask(index, "b"), 0.0)
    order, running, now = [], ask(0, "a").instance, 1.0
    while actions := table.ended(running, now):
        order.append(actions[0].assignment.instance.index)
        running, now = actions[0].assignment.instance, now + 1.0
    assert order == [10, 1, 11, 2, 12, 3]


def test_the_swarm_that_runs_least_goes_first() -> None:
    table = Reservations(Capacity(3))
    for index in range(3):
        table.offer(ask(index, "a"), 0.0)
    table.offer(ask(3, "a"), 0.0)
    table.offer(ask(10, "b"), 0.0)
    table.offer(ask(11, "b"), 0.0)
    assert started(table.ended(ask(0, "a").instance, 0.0)) == [10]
    # One runs of each now: the one that was served longest ago.
    assert started(table.ended(ask(1, "a").instance, 0.0)) == [3]
    assert started(table.ended(ask(2, "a").instance, 0.0)) == [11]


def test_what_can_never_fit_is_refused_with_the_figures() -> None:
    table = Reservations(Capacity(4, cpu=2.0, memory=1000))
    [refused] = table.offer(ask(cpu=3.0), 0.0)
    assert isinstance(refused, Refuse)
    assert "3 cores" in refused.sentence
    assert "2 here" in refused.sentence
    [refused] = table.offer(ask(memory=2000), 0.0)
    assert isinstance(refused, Refuse)
    assert "it asks for 1.953 KiB of memory, tasks may use 1000 B here" in refused.sentence
    [refused] = Reservations(Capacity(0)).offer(ask(), 0.0)
    assert isinstance(refused, Refuse)
    assert "max_concurrent_tasks" in refused.sentence


def test_disk_is_reserved_and_bounded_for_each_and_for_all() -> None:
    table = Reservations(Capacity(4, disk=100 << 30, scratch=60 << 30))
    [refused] = table.offer(ask(disk=61 << 30), 0.0)
    assert isinstance(refused, Refuse)
    assert refused.sentence.endswith(
        "it asks for 61 GiB of disk, a task may keep 60 GiB here (resources.scratch_mb)."
    )
    assert started(table.offer(ask(0, disk=60 << 30), 0.0)) == [0]
    assert table.offer(ask(1, disk=60 << 30), 0.0) == []
    assert started(table.offer(ask(2, disk=40 << 30), 0.0)) == [2]
    assert started(table.ended(ask(0).instance, 1.0)) == [1]


# GPUs.

GIB = 1 << 30


def with_gpus(*memories: int, places: int = 8) -> Reservations:
    table = Reservations(Capacity(places))
    assert table.gpus_found([(f"g{n}", size * GIB) for n, size in enumerate(memories)], 0.0) == []
    return table


def gpus_of(actions: list) -> list[tuple[str, ...]]:
    assert all(isinstance(action, Start) for action in actions)
    return [action.gpus for action in actions]


def test_each_has_gpus_of_its_own_and_waits_for_them() -> None:
    table = with_gpus(24, 24)
    assert gpus_of(table.offer(ask(0, gpu=1), 0.0)) == [("g0",)]
    assert gpus_of(table.offer(ask(1, gpu=1), 0.0)) == [("g1",)]
    assert table.offer(ask(2, gpu=1), 0.0) == []
    assert table.gpu_room == (-1, -1)
    assert gpus_of(table.offer(ask(3), 0.0)) == [()]
    assert gpus_of(table.ended(ask(1).instance, 1.0)) == [("g1",)]


def test_who_has_had_a_gpu_has_it_again_and_others_have_those_that_were_free_for_longest() -> None:
    table = with_gpus(24, 24, 24)
    for index in range(3):
        table.offer(ask(index, gpu=1), 0.0)
    for index in (2, 0, 1):
        table.ended(ask(index).instance, 1.0)
    assert gpus_of(table.offer(ask(1, gpu=1), 2.0)) == [("g1",)]
    assert gpus_of(table.offer(ask(7, gpu=1), 2.0)) == [("g2",)]


def test_gpus_are_shared_by_memory_among_those_that_say_so() -> None:
    table = with_gpus(24, 24)
    part: dict[str, Any] = {"gpu_memory": 10 * GIB, "gpu_shared": True}
    assert gpus_of(table.offer(ask(0, **part), 0.0)) == [("g0",)]
    assert gpus_of(table.offer(ask(1, **part), 0.0)) == [("g0",)]  # the other stays whole
    assert gpus_of(table.offer(ask(2, gpu=1), 0.0)) == [("g1",)]
    assert table.offer(ask(3, **part), 0.0) == []
    assert table.gpu_room == (4 * GIB, -1)
    assert table.ended(ask(0).instance, 1.0) != []


@pytest.mark.parametrize(
    ("memories", "asked", "sentence"),
    [
        ((), {"gpu": 1}, "this node has no GPU, 1 GPU is asked for."),
        (
            (24, 24),
            {"gpu": 4, "gpu_memory": 24 * GIB},
            "this node has 2 GPUs, of which 1 is free, 4 GPUs of 24 GiB are asked for.",
        ),
        (
            (24, 8),
            {"gpu": 2, "gpu_memory": 16 * GIB},
            "this node has 2 GPUs, 1 with so much memory, of which 0 are free, 2 GPUs of 16 GiB "
            "are asked for.",
        ),
    ],
)
def test_more_gpus_than_there_are_are_refused_with_the_figures(memories, asked, sentence) -> None:
    table = with_gpus(*memories)
    if memories:
        table.offer(ask(9, gpu=1, gpu_memory=24 * GIB), 0.0)
    [refused] = table.offer(ask(0, **asked), 0.0)
    assert isinstance(refused, Refuse)
    assert refused.sentence.endswith(sentence)


def test_a_gpu_that_is_lost_is_refused_to_those_that_wait_for_it() -> None:
    table = with_gpus(24)
    table.offer(ask(0, gpu=1), 0.0)
    assert table.offer(ask(1, gpu=1), 0.0) == []
    [refused] = table.gpus_found([], 1.0)
    assert isinstance(refused, Refuse)
    assert refused.assignment.instance.index == 1
    assert table.ended(ask(1).instance, 1.0) == []
    assert table.ended(ask(0).instance, 2.0) == []


def test_a_node_whose_operator_gives_no_gpus_says_so() -> None:
    [refused] = Reservations(Capacity(1, gpus=False)).offer(ask(gpu=1), 0.0)
    assert isinstance(refused, Refuse)
    assert "tasks may use no GPU here (containers.gpu_enabled), 1 GPU is asked" in refused.sentence


# The queue.


def test_users_have_fair_shares_however_many_swarms_each_has() -> None:
    table = Reservations(Capacity(1))
    for index in range(40):
        table.offer(ask(index, f"a{index % 4}", user="ada"), 0.0)
        table.offer(ask(100 + index, "b", user="ben"), 0.0)
    time = {"ada": 0, "ben": 0}
    running = ask(0, "a0").instance
    for now in range(1, 41):
        [start] = table.ended(running, float(now))
        running = start.assignment.instance
        time[start.assignment.user] += 1
    assert time == {"ada": 20, "ben": 20}


def test_shares_are_of_time_not_of_turns() -> None:
    table = Reservations(Capacity(1))
    table.offer(ask(999, "first", user="x"), 0.0)
    for index in range(200):
        table.offer(ask(index, "long", user="ada"), 0.0)
        table.offer(ask(1000 + index, "short", user="ben"), 0.0)
    took, now = {"ada": 0.0, "ben": 0.0}, 1.0
    [start] = table.ended(ask(999, "first").instance, now)
    while now < 200:
        user = start.assignment.user
        lasts = 10.0 if user == "ada" else 1.0
        took[user] += lasts
        now += lasts
        [start] = table.ended(start.assignment.instance, now)
    assert abs(took["ada"] - took["ben"]) <= 10.0


def test_a_low_priority_has_a_turn_however_many_of_a_higher_one_come() -> None:
    table = Reservations(Capacity(1), turn=60.0)
    table.offer(ask(0, priority=9), 0.0)
    table.offer(ask(1, priority=-9), 0.0)
    running, began = ask(0).instance, []
    for number in range(1, 20):
        table.offer(ask(100 + number, priority=9), 10.0 * number)
        [start] = table.ended(running, 10.0 * number)
        running = start.assignment.instance
        began.append(running.index)
    assert began.index(1) == 5  # after 60 s


def test_what_is_kept_for_one_that_waits_long_is_not_kept_from_those_that_need_none_of_it() -> None:
    table = Reservations(Capacity(4, cpu=2.0), patience=60.0)
    table.offer(ask(0, cpu=1.0), 0.0)
    assert table.offer(ask(1, cpu=2.0), 0.0) == []
    assert table.offer(ask(2, cpu=1.0), 61.0) == []
    assert started(table.offer(ask(3, memory=1), 61.0)) == [3]
    assert started(table.ended(ask(0).instance, 62.0)) == [1]


def test_of_200_on_2_places_the_next_begins_with_the_end_of_one() -> None:
    table = Reservations(Capacity(2))
    running = [start for n in range(200) for start in started(table.offer(ask(n), 0.0))]
    assert running == [0, 1]
    for now in range(1, 199):
        running += started(table.ended(ask(running.pop(0)).instance, float(now)))
        assert len(running) == 2
    assert (table.running, table.queued) == (2, 0)


def test_a_full_queue_refuses() -> None:
    table = Reservations(Capacity(1), queue_bound=1)
    table.offer(ask(0), 0.0)
    table.offer(ask(1), 0.0)
    [refused] = table.offer(ask(2), 0.0)
    assert isinstance(refused, Refuse)
    assert "wait on this node already" in refused.sentence


def test_small_ones_pass_a_large_one_until_it_has_waited_long() -> None:
    table = Reservations(Capacity(4, cpu=2.0), patience=60.0)
    table.offer(ask(0, cpu=1.0), 0.0)
    assert table.offer(ask(1, cpu=2.0), 0.0) == []
    assert started(table.offer(ask(2, cpu=1.0), 10.0)) == [2]
    assert table.ended(ask(2).instance, 59.0) == []
    assert table.offer(ask(3, cpu=1.0), 61.0) == []
    assert started(table.ended(ask(0).instance, 62.0)) == [1]
    assert started(table.ended(ask(1).instance, 63.0)) == [3]


def test_cancelled_while_waiting() -> None:
    table = Reservations(Capacity(1))
    table.offer(ask(0), 0.0)
    table.offer(ask(1), 0.0)
    assert table.is_waiting(ask(1).instance)
    assert table.ended(ask(1).instance, 0.0) == []
    assert not table.is_waiting(ask(1).instance)
    assert table.ended(ask(0).instance, 0.0) == []


OFFER = st.fixed_dictionaries(
    {"index": st.integers(0, 30), "swarm": st.sampled_from("abc"), "user": st.sampled_from("xy")},
    optional={
        "priority": st.integers(0, 2),
        "cpu": st.sampled_from([0.5, 1.0, 2.0]),
        "disk": st.sampled_from([1, 5]),
        "gpu": st.integers(1, 2),
        "gpu_memory": st.sampled_from([5 * GIB, 20 * GIB]),
        "gpu_shared": st.booleans(),
    },
)
STEPS = st.lists(st.one_of(OFFER, st.integers(0, 30)), max_size=80)
MEMORIES = {"g0": 24 * GIB, "g1": 24 * GIB}


def asks(offer: dict) -> Assignment:
    if offer.get("gpu_shared") and "gpu_memory" not in offer:
        offer = {**offer, "gpu_memory": GIB}
    return ask(**offer)


class Checked:
    """Reservations of a node with 3 places, 2 cores, 8 bytes of disk and 2 GPUs."""

    def __init__(self, patience: float) -> None:
        self.table = Reservations(Capacity(3, cpu=2.0, disk=8), patience=patience, turn=30.0)
        self.table.gpus_found(MEMORIES.items(), 0.0)
        self.running: dict[Instance, Start] = {}
        self.waiting: dict[Instance, Assignment] = {}
        self.now = 0.0

    def offer(self, assignment: Assignment) -> None:
        if assignment.instance not in self.running and assignment.instance not in self.waiting:
            self.waiting[assignment.instance] = assignment
            self._perform(self.table.offer(assignment, self.now))

    def end(self, number: int) -> None:
        if self.running:
            ended = sorted(self.running)[number % len(self.running)]
            del self.running[ended]
            self._perform(self.table.ended(ended, self.now))

    def _perform(self, actions: list) -> None:
        for action in actions:
            assert isinstance(action, Start)
            del self.waiting[action.assignment.instance]
            self.running[action.assignment.instance] = action
        wanted = [start.assignment.resources or ResourceSpec() for start in self.running.values()]
        assert len(self.running) <= 3
        assert sum(one.cpu or 0 for one in wanted) <= 2.0
        assert sum(one.disk or 0 for one in wanted) <= 8
        for gpu, memory in MEMORIES.items():
            on = [one for one in self.running.values() if gpu in one.gpus]
            shares = [one.assignment.resources for one in on]
            assert len(on) < 2 or all(one and one.gpu_shared for one in shares)
            assert sum((one and one.gpu_memory) or 0 for one in shares) <= memory
        for start in self.running.values():
            gpus = demand(start.assignment.resources, start.assignment.gpu)
            assert len({*start.gpus}) == gpus.number


@given(STEPS)
def test_never_more_than_there_is_and_nobody_is_forgotten(steps: list) -> None:
    checked = Checked(patience=20.0)
    for step in steps:
        checked.now += 1.0
        checked.offer(asks(step)) if isinstance(step, dict) else checked.end(step)
    while checked.running:
        checked.now += 100.0
        checked.end(0)
    assert not checked.waiting
    assert checked.table.gpu_room == (24 * GIB, 24 * GIB)


@given(STEPS)
def test_no_place_is_idle_while_something_that_waits_fits(steps: list) -> None:
    checked = Checked(patience=1e9)
    for step in steps:
        checked.now += 1.0
        checked.offer(asks(step)) if isinstance(step, dict) else checked.end(step)
        if len(checked.running) < 3:
            for waiting in checked.waiting.values():
                assert checked.table._room.lacking(Asked.of(waiting))


def test_ten_thousand_may_wait_and_are_chosen_in_their_order() -> None:
    table = Reservations(Capacity(1))
    for index in range(10_000):
        table.offer(ask(index), 0.0)
    order = [0]
    while actions := table.ended(ask(order[-1]).instance, 1.0):
        order += started(actions)
    assert order == list(range(10_000))


def test_a_node_that_can_take_nothing_gives_back_what_waits_and_holds_what_comes() -> None:
    reservations = Reservations(Capacity(1))
    first, waits, comes = ask(0), ask(1), ask(2)
    assert started(reservations.offer(first, 0.0)) == [0]
    assert reservations.offer(waits, 0.0) == []
    [refused] = reservations.suspend("cannot write in /state (full)")
    assert isinstance(refused, Refuse)
    assert refused.assignment == waits
    assert refused.sentence.endswith("its node cannot write in /state (full).")
    reservations.ended(waits.instance, 1.0)
    assert reservations.suspend("again") == []
    assert reservations.offer(comes, 2.0) == []
    assert reservations.ended(first.instance, 3.0) == []
    assert reservations.queued == 1
    assert started(reservations.resume(4.0)) == [2]


def test_what_tasks_may_take_changes_while_some_run_and_wait() -> None:
    table = Reservations(Capacity(1))
    assert started(table.offer(ask(0), 0.0)) == [0]
    assert table.offer(ask(1), 0.0) == []
    assert started(table.may_take(Capacity(2), 1.0)) == [1]
    assert table.offer(ask(2), 2.0) == []
    (refused,) = table.may_take(Capacity(0), 3.0)
    assert isinstance(refused, Refuse)
    assert "takes no tasks" in refused.sentence
    assert table.running == 2
