from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manta.node.runners.interface import RuntimeExit
from manta.node.scheduling.reservations import Start
from manta.node.task_server.messages import AttemptExited, CancelAttempt, SessionLost
from manta.node.tasks.events import (
    Failed,
    Forbidden,
    KillRuntime,
    Overrun,
    PlaneLost,
    Prepare,
    Prepared,
    Ready,
    Report,
    Revoked,
    RunAttempt,
    StartRuntime,
    Stop,
    TaskAction,
    Ticked,
)
from manta.node.tasks.machine import Limits, State, TaskMachine, interrupted
from manta.protocol.node import Assignment, Instance, TaskEnded, TaskError, TaskStarted, Timings
from manta.protocol.spec import ModuleSpec
from manta.protocol.states import AttemptState as A
from manta.protocol.values import Inline

ERROR = TaskError("ValueError", "worker.0 in iteration 0 raised ValueError: no.")


def order(iteration: int = 0, timeout: float | None = None, attempt: int = 0) -> Assignment:
    instance = Instance("s", "worker", 0, iteration, attempt)
    return Assignment(instance, ModuleSpec("worker"), "S", "n", 1, timeout=timeout)


class Driver:
    """Feeds a machine and checks what holds whatever happens."""

    def __init__(self) -> None:
        self.machine = TaskMachine("t", Limits(prepare=60.0, start=30.0, grace=5.0))
        self.now = 100.0
        self.started: list[Instance] = []
        self.ended: dict[Instance, TaskEnded] = {}
        self.runtimes: set[str] = set()

    def feed(self, event: object, after: float = 0.0) -> list[TaskAction]:
        self.now += after
        actions = self.machine.handle(event, self.now, 1000.0 + self.now)  # type: ignore[arg-type]
        for action in actions:
            match action:
                case Report(TaskStarted(instance)):
                    assert instance not in self.started
                    self.started.append(instance)
                case Report(TaskEnded() as entry):
                    assert entry.instance not in self.ended
                    assert A(entry.state).final
                    self.ended[entry.instance] = entry
                case StartRuntime(session):
                    assert not self.runtimes
                    self.runtimes.add(session)
                case KillRuntime(session):
                    self.runtimes.discard(session)
                case RunAttempt(session):
                    assert session == self.machine.session
        return actions

    @property
    def session(self) -> str:
        return self.machine.session

    def warm(self, assignment: Assignment | None = None) -> Assignment:
        """Up to RUNNING."""
        assignment = assignment or order()
        self.feed(Start(assignment, 0.5))
        self.feed(Prepared(self.session), 1.0)
        self.feed(Ready(self.session), 2.0)
        assert self.machine.state is State.RUNNING
        return assignment


def test_first_attempt_prepares_starts_and_runs() -> None:
    d, first = Driver(), order()
    assert d.feed(Start(first, 0.5)) == [Prepare("t-1", first)]
    assert d.feed(Prepared("t-1"), 1.0) == [StartRuntime("t-1", first)]
    assert not d.machine.current
    assert d.feed(Ready("t-1"), 2.0) == [
        Report(TaskStarted(first.instance, 1103.0)),
        RunAttempt("t-1", first),
    ]
    assert d.machine.current == first.instance
    output = Inline(b"x")
    [ended] = d.feed(AttemptExited("t-1", first.instance, output, None, 3.0, 0.25, 0.125), 4.0)
    timings = Timings(0.5, 1.0, 2.0, 3.0, 0.25, 0.125)
    assert ended == Report(
        TaskEnded(first.instance, A.FINISHED, 1107.0, output, None, timings),
    )
    assert d.machine.state is State.WARM
    assert not d.machine.current
    assert not d.machine.live


def test_second_attempt_is_given_at_once() -> None:
    d = Driver()
    first = d.warm()
    second = order(1)
    assert d.feed(Start(second)) == []
    actions = d.feed(AttemptExited(d.session, first.instance))
    assert actions[1:] == [
        Report(TaskStarted(second.instance, 1103.0)),
        RunAttempt("t-1", second),
    ]
    d.feed(AttemptExited(d.session, second.instance), 1.0)
    assert d.ended[second.instance].timings == Timings()
    third = order(2)
    assert d.feed(Start(third))[-1] == RunAttempt("t-1", third)


def test_an_assignment_twice_is_one() -> None:
    d = Driver()
    first = d.warm()
    assert d.feed(Start(first)) == []
    assert d.machine.live == (first.instance,)
    d.feed(AttemptExited(d.session, first.instance), 1.0)
    assert d.feed(Start(first)) == []  # it has ended
    d.started.clear()
    d.ended.clear()
    assert d.feed(Start(first, at=5.0))[-1] == RunAttempt("t-1", first)  # wanted once more


def test_an_attempt_that_raises_leaves_its_runtime_warm() -> None:
    d = Driver()
    first = d.warm()
    d.feed(AttemptExited(d.session, first.instance, None, ERROR))
    assert d.ended[first.instance].state == A.FAILED
    assert d.ended[first.instance].error == ERROR
    assert d.machine.state is State.WARM


@pytest.mark.parametrize(
    ("event", "state", "word"),
    [
        (lambda s: Failed(s, ERROR), A.FAILED, "raised"),
        (lambda s: Failed(s, ERROR, platform=True), A.INTERRUPTED, "raised"),
        (lambda s: RuntimeExit(s, 3, "boom\nlast"), A.FAILED, "exited with code 3"),
        (lambda s: RuntimeExit(s, -9), A.FAILED, "memory ran out"),
        (lambda s: RuntimeExit(s, 0), A.INTERRUPTED, "by somebody else than the node"),
        (lambda s: RuntimeExit(s, None, "", "It was refused."), A.FAILED, "It was refused."),
        (lambda s: RuntimeExit(s, 137, "", "The engine went.", True), A.INTERRUPTED, "engine went"),
        (lambda s: RuntimeExit(s, -11), A.FAILED, "SIGSEGV"),
        (lambda s: RuntimeExit(s, -64), A.FAILED, "crashed"),
        (lambda s: RuntimeExit(s, -200), A.FAILED, "signal 200"),
    ],
)
def test_a_runtime_that_does_not_start(event, state, word) -> None:
    d = Driver()
    first = order()
    d.feed(Start(first))
    d.feed(Prepared(d.session))
    session = d.session
    actions = d.feed(event(session))
    assert KillRuntime(session) in actions
    ended = d.ended[first.instance]
    assert ended.state == state
    assert ended.error is not None
    assert word in ended.error.sentence
    assert d.machine.state is State.COLD
    assert d.feed(Start(order(attempt=1))) == [Prepare("t-2", order(attempt=1))]


def test_a_module_that_cannot_be_fetched_costs_the_attempt_it_was_for() -> None:
    d = Driver()
    first, second = order(), order(1)
    d.feed(Start(first))
    d.feed(Start(second))
    actions = d.feed(Failed("t-1", ERROR, platform=True))
    assert d.ended[first.instance].state == A.INTERRUPTED
    assert actions[-1] == Prepare("t-2", second)


def test_a_crash_in_the_middle_of_a_round() -> None:
    d = Driver()
    first = d.warm()
    d.feed(RuntimeExit(d.session, 1, "Fatal\nlast line"), 7.0)
    ended = d.ended[first.instance]
    assert ended.state == A.FAILED
    assert ended.error is not None
    assert ended.error.last_lines == ("Fatal", "last line")
    assert ended.timings.computing == 7.0
    assert d.machine.state is State.COLD


def test_what_takes_too_much_fails_and_its_runtime_ends() -> None:
    d = Driver()
    first = d.warm()
    actions = d.feed(Overrun(d.session, ERROR), 2.0)
    assert KillRuntime("t-1") in actions
    ended = d.ended[first.instance]
    assert (ended.state, ended.error, ended.timings.computing) == (A.FAILED, ERROR, 2.0)
    d.feed(Start(order(1)))
    assert not d.feed(Overrun("t-1", ERROR)), "of a runtime that is gone"


def test_an_attempt_whose_plane_has_ended_is_interrupted_and_not_failed() -> None:
    d = Driver()
    first = d.warm()
    assert d.feed(PlaneLost(order(1).instance)) == []
    assert KillRuntime("t-1") in d.feed(PlaneLost(first.instance))
    ended = d.ended[first.instance]
    assert ended.state == A.INTERRUPTED
    assert ended.error is not None
    assert "the node's plane" in ended.error.sentence
    d = Driver()
    first = d.warm()
    d.feed(PlaneLost(first.instance, "what it said was forgotten"))
    error = d.ended[first.instance].error
    assert error is not None
    why = "was ended: what it said was forgotten; see the node's log."
    assert error.sentence == f"{first.instance} {why}"
    assert d.feed(PlaneLost(first.instance)) == []


def test_a_warm_runtime_that_goes_away_costs_nothing() -> None:
    for event in (RuntimeExit("t-1", -9), SessionLost("t-1", "it closed"), Overrun("t-1", ERROR)):
        d = Driver()
        first = d.warm()
        d.feed(AttemptExited(d.session, first.instance))
        d.feed(event)
        assert d.machine.state is State.COLD
        assert list(d.ended) == [first.instance]
        assert d.feed(Start(order(1))) == [Prepare("t-2", order(1))]


def test_timeout_asks_then_kills() -> None:
    d = Driver()
    first = d.warm(order(timeout=10.0))
    assert d.machine.deadline == d.now + 10.0
    assert d.feed(Ticked(), 9.0) == []
    [cancel] = d.feed(Ticked(), 1.0)
    assert cancel == CancelAttempt("t-1", first.instance, "it ran out of time", stacks=True)
    assert d.feed(Ticked(), 4.9) == []
    d.feed(Ticked(), 0.1)
    ended = d.ended[first.instance]
    assert ended.state == A.TIMEOUT
    assert ended.error is not None
    assert "timeout of 10 s" in ended.error.sentence
    assert d.machine.state is State.COLD


def test_timeout_obeyed_keeps_the_runtime() -> None:
    d = Driver()
    first = d.warm(order(timeout=10.0))
    d.feed(Ticked(), 10.0)
    d.feed(AttemptExited(d.session, first.instance, Inline(b"late"), None))
    assert d.ended[first.instance].state == A.TIMEOUT
    assert d.ended[first.instance].output is None
    assert d.machine.state is State.WARM


def test_revoked_while_it_runs() -> None:
    d = Driver()
    first = d.warm()
    assert d.feed(Revoked(first.instance)) == [
        CancelAttempt("t-1", first.instance, "the manager cancelled it")
    ]
    assert d.feed(Revoked(first.instance)) == []
    d.feed(AttemptExited(d.session, first.instance, None, ERROR))
    assert d.ended[first.instance].state == A.CANCELLED


def test_revoked_while_it_waits_or_starts() -> None:
    d = Driver()
    first, second, third = order(), order(1), order(2)
    for assignment in (first, second, third):
        d.feed(Start(assignment))
    d.feed(Revoked(second.instance))
    d.feed(Revoked(first.instance))
    assert [entry.state for entry in d.ended.values()] == [A.CANCELLED, A.CANCELLED]
    assert d.feed(Prepared("t-1")) == [StartRuntime("t-1", third)]
    d.feed(Revoked(third.instance))
    assert d.feed(Ready("t-1")) == []
    assert d.machine.state is State.WARM
    assert d.machine.deadline is None


def test_revoked_before_it_was_prepared_starts_nothing() -> None:
    d = Driver()
    d.feed(Start(order()))
    d.feed(Revoked(order().instance))
    assert d.feed(Prepared("t-1")) == []
    assert d.machine.state is State.COLD
    assert d.machine.deadline is None


def test_preparing_and_starting_have_limits() -> None:
    d = Driver()
    first, second = order(), order(1)
    d.feed(Start(first))
    d.feed(Ticked(), 60.0)
    assert d.ended[first.instance].state == A.INTERRUPTED
    d.feed(Start(second))
    d.feed(Prepared(d.session))
    d.feed(Ticked(), 30.0)
    ended = d.ended[second.instance]
    assert ended.state == A.FAILED
    assert ended.error is not None
    assert "was not ready within 30 s" in ended.error.sentence


def test_a_closed_connection_waits_for_the_exit() -> None:
    d = Driver()
    first = d.warm()
    d.feed(SessionLost(d.session, "its process closed the connection."))
    d.feed(RuntimeExit(d.session, 2), 1.0)
    assert d.ended[first.instance].state == A.FAILED


def test_a_closed_connection_without_an_exit_is_the_platforms() -> None:
    d = Driver()
    first = d.warm(order(timeout=100.0))
    d.feed(SessionLost(d.session, "its process closed the connection."))
    assert d.feed(Ticked(), 5.0)[0] == KillRuntime("t-1")
    assert d.ended[first.instance].state == A.INTERRUPTED


def test_last_words_after_a_closed_connection_count() -> None:
    d = Driver()
    first = d.warm()
    d.feed(SessionLost(d.session, "gone"))
    d.feed(AttemptExited(d.session, first.instance))
    assert d.ended[first.instance].state == A.FINISHED
    assert d.machine.state is State.COLD


def test_stop_ends_all() -> None:
    d = Driver()
    first = d.warm()
    d.feed(Start(order(1)))
    actions = d.feed(Stop(A.INTERRUPTED, "the node stops"))
    assert actions[-1] == KillRuntime("t-1")
    assert [entry.state for entry in d.ended.values()] == [A.INTERRUPTED] * 2
    assert d.feed(AttemptExited("t-1", first.instance)) == []
    assert d.feed(Ticked(), 1000.0) == []
    d.feed(Start(order(2)))
    assert d.ended[order(2).instance].state == A.INTERRUPTED


def test_what_an_old_runtime_says_is_ignored() -> None:
    d = Driver()
    first = d.warm()
    d.feed(RuntimeExit("t-1", 1))
    second = d.warm(order(1))
    for event in (
        AttemptExited("t-1", second.instance),
        RuntimeExit("t-1", 1),
        Failed("t-1", ERROR),
        Ready("t-1"),
        Prepared("t-1"),
        SessionLost("t-1", "x"),
        Overrun("t-1", ERROR),
        AttemptExited("t-2", first.instance),
    ):
        assert d.feed(event) == []
    assert d.machine.current == second.instance


def test_interrupted_names_the_cause() -> None:
    [entry] = interrupted([order().instance], 5.0, "The node's daemon was restarted.")
    assert entry.state == A.INTERRUPTED
    assert entry.error is not None
    assert entry.error.sentence == "The node's daemon was restarted."


STEP = st.one_of(
    st.tuples(st.just("assign"), st.sampled_from([None, 3.0])),
    st.tuples(st.just("prepared")),
    st.tuples(st.just("prepare failed")),
    st.tuples(st.just("ready")),
    st.tuples(st.just("failed")),
    st.tuples(st.just("returned"), st.booleans()),
    st.tuples(st.just("exited")),
    st.tuples(st.just("disconnected")),
    st.tuples(st.just("revoke"), st.integers(0, 5)),
    st.tuples(st.just("tick"), st.floats(0.0, 70.0)),
    st.tuples(st.just("old")),
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=50))
def test_every_assignment_ends_exactly_once(steps: list[tuple]) -> None:
    d = Driver()
    assigned: list[Instance] = []
    for step in steps:
        session, current = d.session, d.machine.current
        match step:
            case ("assign", timeout):
                assignment = order(len(assigned), timeout)
                assigned.append(assignment.instance)
                d.feed(Start(assignment))
            case ("prepared",):
                d.feed(Prepared(session))
            case ("prepare failed",):
                d.feed(Failed(session, ERROR))
            case ("ready",):
                d.feed(Ready(session))
            case ("failed",) if d.machine.state is State.STARTING:
                d.feed(Failed(session, ERROR))
            case ("returned", raised) if current:
                d.feed(AttemptExited(session, current, None, ERROR if raised else None))
            case ("exited",) if d.runtimes:
                d.feed(RuntimeExit(session, 1))
            case ("disconnected",) if d.runtimes:
                d.feed(SessionLost(session, "gone"))
            case ("revoke", index) if assigned:
                d.feed(Revoked(assigned[index % len(assigned)]))
            case ("tick", after):
                d.feed(Ticked(), after)
            case ("old",):
                d.feed(Ready("t-0"))
        assert set(d.machine.live) | d.ended.keys() == set(assigned)
        assert (d.machine.state is State.COLD) <= (not d.runtimes and not d.machine.live)
        busy = d.machine.state in (State.PREPARING, State.STARTING)
        assert not busy or d.machine.deadline is not None  # no wait without an end
    d.feed(Stop(A.INTERRUPTED, "the node stops"))
    assert d.ended.keys() == set(assigned)
    assert not d.runtimes


def test_an_attempt_that_the_node_could_not_serve_is_interrupted_and_not_failed() -> None:
    d = Driver()
    first = order()
    d.feed(Start(first))
    d.feed(Prepared(d.session))
    d.feed(Ready(d.session))
    d.feed(AttemptExited(d.session, first.instance, error=ERROR, platform=True))
    assert d.ended[first.instance].state == A.INTERRUPTED
    assert d.ended[first.instance].error == ERROR


def test_what_the_owner_forbids_ends_at_once() -> None:
    """No five seconds to end by itself: it is killed, and what waits behind it goes on."""
    driver = Driver()
    first = driver.warm()
    driver.feed(Start(order(1), 0.0))
    error = TaskError("Denied", "The owner says no.")
    session = driver.session
    actions = driver.feed(Forbidden(first.instance, error))
    assert KillRuntime(session) in actions
    ended = driver.ended[first.instance]
    assert (ended.state, ended.error) == (A.REFUSED, error)
    assert driver.machine.state is State.PREPARING  # for the second
    driver.feed(Forbidden(order(1).instance, error))
    assert driver.ended[order(1).instance].state == A.REFUSED
    assert driver.feed(Forbidden(order(1).instance, error)) == []


def test_one_that_waits_in_its_lane_is_forbidden_alone() -> None:
    driver = Driver()
    first = driver.warm()
    driver.feed(Start(order(1), 0.0))
    driver.feed(Forbidden(order(1).instance, TaskError("Denied", "no")))
    assert driver.ended[order(1).instance].state == A.REFUSED
    assert driver.machine.current == first.instance
