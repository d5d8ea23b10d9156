from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manta.node.scheduling.reservations import Capacity, Refuse, Reservations, Start
from manta.protocol.node import Assignment, Instance
from manta.protocol.spec import ModuleSpec, ResourceSpec

MODULE = ModuleSpec("worker")


def ask(
    index: int = 0,
    swarm: str = "s",
    priority: int = 0,
    cpu: float | None = None,
    memory: int | None = None,
) -> Assignment:
    instance = Instance(swarm, "worker", index, 0)
    wants = None if cpu is None and memory is None else ResourceSpec(cpu, memory)
    return Assignment(instance, MODULE, "S", "n", 1, resources=wants, priority=priority)


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
    order, running = [], ask(0, "a").instance
    while actions := table.ended(running, 1.0):
        order.append(actions[0].assignment.instance.index)
        running = actions[0].assignment.instance
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
    assert "2000 bytes" in refused.sentence
    [refused] = Reservations(Capacity(0)).offer(ask(), 0.0)
    assert isinstance(refused, Refuse)
    assert "max_concurrent_tasks" in refused.sentence


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


OFFER = st.tuples(
    st.integers(0, 30),
    st.sampled_from("abc"),
    st.integers(0, 2),
    st.none() | st.sampled_from([0.5, 1.0, 2.0]),
)


@given(st.lists(st.one_of(OFFER, st.integers(0, 30)), max_size=80))
def test_never_over_capacity_and_nobody_is_forgotten(steps: list) -> None:
    table = Reservations(Capacity(3, cpu=2.0), patience=20.0)
    running: dict[Instance, float] = {}
    waiting: set[Instance] = set()
    now = 0.0

    def perform(actions: list) -> None:
        for action in actions:
            assert isinstance(action, Start)
            instance = action.assignment.instance
            waiting.remove(instance)
            wants = action.assignment.resources
            running[instance] = (wants.cpu or 0.0) if wants else 0.0
        assert len(running) <= 3
        assert sum(running.values()) <= 2.0

    for step in steps:
        now += 1.0
        if isinstance(step, tuple):
            offered = ask(*step)
            if offered.instance not in running and offered.instance not in waiting:
                waiting.add(offered.instance)
                perform(table.offer(offered, now))
        elif running:
            ended = sorted(running)[step % len(running)]
            del running[ended]
            perform(table.ended(ended, now))
    while running:
        now += 100.0
        ended = min(running)
        del running[ended]
        perform(table.ended(ended, now))
    assert not waiting


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
