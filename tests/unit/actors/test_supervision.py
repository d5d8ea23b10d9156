"""The supervision machine: what only shows while starting and stopping take time."""

from __future__ import annotations

import math
import random

import pytest

from manta.actors import events as ev
from manta.actors.exits import NORMAL, SHUTDOWN, ExitKind, ExitReason
from manta.actors.specs import AutoShutdown, ChildSpec, ChildType, Phase, Restart, Strategy
from manta.actors.supervision import Supervision

CRASHED = ExitReason(ExitKind.CRASHED, "boom")


def spec(id: str, restart: Restart = Restart.PERMANENT, **more) -> ChildSpec:
    return ChildSpec(id, object, restart, **more)


def running(*specs: ChildSpec, **flags) -> Supervision:
    machine = Supervision(specs, **flags)
    actions = machine.handle(ev.Boot(), 0)
    for one in specs:
        assert actions == [ev.Start(one)]
        actions = machine.handle(ev.Started(one.id), 0)
    assert actions == [ev.Booted()]
    return machine


def test_children_start_one_after_another():
    a, b = spec("a"), spec("b")
    machine = Supervision([a, b])
    assert machine.handle(ev.Boot(), 0) == [ev.Start(a)]
    assert machine.handle(ev.Started("a"), 0) == [ev.Start(b)]
    assert machine.handle(ev.Started("b"), 0) == [ev.Booted()]


def test_children_stop_one_after_another_in_reverse():
    machine = running(spec("a"), spec("b"))
    assert machine.handle(ev.Shutdown(), 0) == [ev.Halt("b", 5)]
    assert machine.handle(ev.Exited("b", SHUTDOWN), 0) == [ev.Halt("a", 5)]
    assert machine.handle(ev.Exited("a", SHUTDOWN), 0) == [ev.Exit(SHUTDOWN)]
    assert machine.ended


def test_a_child_that_does_not_start_takes_the_boot_down():
    machine = Supervision([spec("a"), spec("b"), spec("c")])
    machine.handle(ev.Boot(), 0)
    machine.handle(ev.Started("a"), 0)
    assert machine.handle(ev.Exited("b", CRASHED), 0) == [ev.Halt("a", 5)]
    (end,) = machine.handle(ev.Exited("a", SHUTDOWN), 0)
    assert isinstance(end, ev.Exit)
    assert end.reason.kind is ExitKind.CRASHED
    assert "'b' failed to start" in end.reason.sentence


def test_overdue_children_are_abandoned_and_the_rest_goes_on():
    machine = running(spec("a"), spec("b", shutdown=0.5))
    assert machine.handle(ev.Shutdown(), 0) == [ev.Halt("b", 0.5)]
    assert machine.handle(ev.Overdue("b"), 1) == [ev.Abandon("b")]
    gone = ExitReason(ExitKind.ABANDONED)
    assert machine.handle(ev.Exited("b", gone), 1) == [ev.Halt("a", 5)]


def test_an_overdue_note_that_comes_too_late_does_nothing():
    machine = running(spec("a"))
    assert machine.handle(ev.Overdue("a"), 0) == []
    assert machine.handle(ev.Overdue("gone"), 0) == []


def test_a_shutdown_interleaves_with_a_restart_under_way():
    a, b = spec("a"), spec("b")
    machine = running(a, b, strategy=Strategy.ONE_FOR_ALL)
    assert machine.handle(ev.Exited("a", CRASHED), 0) == [ev.Halt("b", 5)]
    assert machine.handle(ev.Shutdown(), 0) == []  # b is being stopped already
    assert machine.handle(ev.Exited("b", SHUTDOWN), 0) == [ev.Exit(SHUTDOWN)]


def test_a_shutdown_stops_the_child_that_is_starting():
    a, b = spec("a"), spec("b")
    machine = Supervision([a, b])
    machine.handle(ev.Boot(), 0)
    machine.handle(ev.Started("a"), 0)
    assert machine.handle(ev.Shutdown(), 0) == [ev.Halt("b", 5)]
    assert machine.handle(ev.Started("b"), 0) == []
    assert machine.handle(ev.Exited("b", SHUTDOWN), 0) == [ev.Halt("a", 5)]


def test_a_shutdown_overtakes_a_retry():
    machine = running(spec("a"), intensity=10)
    machine.handle(ev.Exited("a", CRASHED), 0)
    assert machine.handle(ev.Exited("a", CRASHED), 0) == [ev.Retry("a")]
    assert machine.handle(ev.Shutdown(), 0) == [ev.Exit(SHUTDOWN)]
    assert machine.handle(ev.RetryDue("a"), 0) == []


def test_a_retry_is_not_needed_when_another_restart_was_faster():
    a, b = spec("a"), spec("b")
    machine = running(a, b, strategy=Strategy.ONE_FOR_ALL, intensity=10)
    machine.handle(ev.Exited("b", CRASHED), 0)
    machine.handle(ev.Exited("a", SHUTDOWN), 0)
    machine.handle(ev.Started("a"), 0)
    assert machine.handle(ev.Exited("b", CRASHED), 0) == [ev.Retry("b")]
    assert machine.handle(ev.Exited("a", CRASHED), 0) == [ev.Start(a, True)]
    assert machine.handle(ev.Started("a"), 0) == [ev.Start(b, True)]
    assert machine.handle(ev.Started("b"), 0) == []
    assert machine.handle(ev.RetryDue("b"), 0) == []


def test_a_child_that_dies_before_its_turn_to_be_stopped_is_not_restarted_twice():
    a, b, c = spec("a"), spec("b"), spec("c")
    machine = running(a, b, c, strategy=Strategy.ONE_FOR_ALL)
    assert machine.handle(ev.Exited("a", CRASHED), 0) == [ev.Halt("c", 5)]
    assert machine.handle(ev.Exited("b", CRASHED), 0) == []
    assert machine.handle(ev.Exited("c", SHUTDOWN), 0) == [ev.Start(a, True)]
    assert machine.handle(ev.Started("a"), 0) == [ev.Start(b, True)]
    assert machine.handle(ev.Started("b"), 0) == [ev.Start(c, True)]
    assert machine.handle(ev.Started("c"), 0) == []
    assert [child.restarts for child in machine.children.values()] == [1, 1, 1]


def test_a_child_that_dies_while_another_starts_waits_for_its_turn():
    a, b, c = spec("a"), spec("b"), spec("c")
    machine = running(a, b, intensity=5)
    assert machine.handle(ev.Add(c, "me"), 0) == [ev.Start(c)]
    assert machine.handle(ev.Exited("a", CRASHED), 0) == []
    assert machine.handle(ev.Started("c"), 0) == [ev.Answer("me", "c"), ev.Start(a, True)]


def test_requests_wait_for_the_operation_under_way_and_are_refused_by_a_shutdown():
    a, b = spec("a"), spec("b")
    machine = running(a)
    assert machine.handle(ev.Add(b, 1), 0) == [ev.Start(b)]
    assert machine.handle(ev.Remove("a", 2), 0) == []
    answers = machine.handle(ev.Shutdown(), 0)
    refused = [answer for answer in answers if isinstance(answer, ev.Answer)]
    assert [(no.token, no.code) for no in refused] == [(1, "stopping"), (2, "stopping")]
    assert answers[-1] == ev.Halt("b", 5)
    (late,) = machine.handle(ev.Add(spec("c"), 3), 0)
    assert isinstance(late, ev.Answer)
    assert late.code == "stopping"


def test_giving_up_stops_the_others_and_says_why():
    machine = running(spec("a"), spec("b"), intensity=1, period=5)
    machine.handle(ev.Exited("b", CRASHED), 0)
    machine.handle(ev.Started("b"), 0)
    assert machine.handle(ev.Exited("b", CRASHED), 5) == [ev.Halt("a", 5)]
    (end,) = machine.handle(ev.Exited("a", SHUTDOWN), 5)
    assert isinstance(end, ev.Exit)
    assert end.reason.kind is ExitKind.GAVE_UP
    assert end.reason.sentence == (
        "2 restarts within 5 s, the last of 'b', exceed the intensity of 1; "
        "it had exited with crashed: boom"
    )


def test_restarts_outside_the_period_do_not_count():
    machine = running(spec("a"), intensity=1, period=5)
    for now in (0, 5.1, 10.2, 15.3):
        assert machine.handle(ev.Exited("a", CRASHED), now) == [ev.Start(spec("a"), True)]
        machine.handle(ev.Started("a"), now)


@pytest.mark.parametrize(
    ("restart", "reason", "again"),
    [
        (Restart.PERMANENT, NORMAL, True),
        (Restart.PERMANENT, SHUTDOWN, True),
        (Restart.PERMANENT, CRASHED, True),
        (Restart.TRANSIENT, NORMAL, False),
        (Restart.TRANSIENT, SHUTDOWN, False),
        (Restart.TRANSIENT, ExitReason(ExitKind.GAVE_UP), False),
        (Restart.TRANSIENT, CRASHED, True),
        (Restart.TRANSIENT, ExitReason(ExitKind.ABANDONED), True),
        (Restart.TEMPORARY, NORMAL, False),
        (Restart.TEMPORARY, CRASHED, False),
    ],
)
def test_restart_types(restart: Restart, reason: ExitReason, again: bool):
    one = spec("a", restart)
    machine = running(one)
    assert machine.handle(ev.Exited("a", reason), 0) == ([ev.Start(one, True)] if again else [])
    assert ("a" in machine.children) is (restart is not Restart.TEMPORARY)


@pytest.mark.parametrize(
    ("strategy", "stopped", "started"),
    [
        (Strategy.ONE_FOR_ONE, [], ["b"]),
        (Strategy.REST_FOR_ONE, ["d", "c"], ["b", "c", "d"]),
        (Strategy.ONE_FOR_ALL, ["d", "c", "a"], ["a", "b", "c", "d"]),
    ],
)
def test_strategies(strategy: Strategy, stopped: list[str], started: list[str]):
    machine = running(*map(spec, "abcd"), strategy=strategy)
    actions = machine.handle(ev.Exited("b", CRASHED), 0)
    for id in stopped:
        assert actions == [ev.Halt(id, 5)]
        actions = machine.handle(ev.Exited(id, SHUTDOWN), 0)
    for id in started:
        assert actions == [ev.Start(spec(id), True)]
        actions = machine.handle(ev.Started(id), 0)
    assert actions == []


@pytest.mark.parametrize(
    ("auto", "ends", "exits"),
    [
        (AutoShutdown.ANY_SIGNIFICANT, ["a"], True),
        (AutoShutdown.ANY_SIGNIFICANT, ["c"], False),
        (AutoShutdown.ALL_SIGNIFICANT, ["a"], False),
        (AutoShutdown.ALL_SIGNIFICANT, ["a", "b"], True),
    ],
)
def test_auto_shutdown(auto: AutoShutdown, ends: list[str], exits: bool):
    machine = running(
        spec("a", Restart.TRANSIENT, significant=True),
        spec("b", Restart.TEMPORARY, significant=True),
        spec("c", Restart.TRANSIENT),
        spec("d"),
        auto_shutdown=auto,
    )
    actions: list[ev.Action] = []
    for id in ends:
        assert actions == []
        actions = machine.handle(ev.Exited(id, NORMAL), 0)
    assert bool(actions) is exits


def test_stopping_a_significant_child_on_purpose_is_no_auto_shutdown():
    one = spec("a", Restart.TRANSIENT, significant=True)
    machine = running(one, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT)
    assert machine.handle(ev.Remove("a", 1), 0) == [ev.Halt("a", 5)]
    assert machine.handle(ev.Exited("a", SHUTDOWN), 0) == [ev.Answer(1, "a")]
    assert machine.children == {}


def test_specs_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="needs an id"):
        spec("")
    with pytest.raises(ValueError, match="permanent"):
        spec("a", significant=True)
    with pytest.raises(ValueError, match="auto_shutdown is never"):
        Supervision([spec("a", Restart.TRANSIENT, significant=True)])
    with pytest.raises(ValueError, match="known though it is not running"):
        Supervision([spec("a"), spec("a")])


def test_time_to_stop():
    assert spec("a").seconds_to_stop == 5
    assert spec("a", type=ChildType.SUPERVISOR).seconds_to_stop == math.inf
    assert spec("a", type=ChildType.SUPERVISOR, shutdown=3).seconds_to_stop == 3


class World:
    """Answers in its own time, in any order that real threads could produce."""

    def __init__(self, rng: random.Random, machine: Supervision) -> None:
        self.rng = rng
        self.machine = machine
        self.alive: dict[str, str] = {}  # id: starting, running, stopping
        self.notes: list[ev.Event] = []
        self.exits = 0
        self.now = 0.0

    def feed(self, event: ev.Event) -> None:
        for action in self.machine.handle(event, self.now):
            assert not self.exits, f"{action} after the end"
            match action:
                case ev.Start(spec):
                    assert spec.id not in self.alive, f"{spec.id} lives already"
                    assert "starting" not in self.alive.values()
                    assert "stopping" not in self.alive.values()
                    self.alive[spec.id] = "starting"
                case ev.Halt(id):
                    assert "stopping" not in self.alive.values()
                    if id in self.alive:
                        self.alive[id] = "stopping"
                case ev.Abandon(id):
                    self.notes.append(ev.Exited(id, ExitReason(ExitKind.ABANDONED)))
                    self.alive.pop(id, None)
                case ev.Retry(id):
                    self.notes.append(ev.RetryDue(id))
                case ev.Exit():
                    self.exits += 1
                    assert not self.alive
                case ev.Answer() | ev.Booted():
                    pass

    def step(self) -> None:
        rng = self.rng
        self.now += rng.choice([0, 0, 0.1, 3])
        moves = len(self.notes) + len(self.alive)
        if not moves:
            return
        pick = rng.randrange(moves)
        if pick < len(self.notes):
            self.feed(self.notes.pop(pick))
            return
        id = list(self.alive)[pick - len(self.notes)]
        was = self.alive[id]
        if was == "starting" and rng.random() < 0.7:
            self.alive[id] = "running"
            self.feed(ev.Started(id))
        elif was == "stopping" and rng.random() < 0.2:
            self.feed(ev.Overdue(id))
        elif was == "stopping" or rng.random() < 0.4:
            del self.alive[id]
            reason = SHUTDOWN if was == "stopping" else rng.choice([NORMAL, CRASHED])
            self.feed(ev.Exited(id, reason))


@pytest.mark.parametrize("seed", range(300))
def test_any_interleaving_ends_in_one_exit_with_nobody_left(seed: int):
    rng = random.Random(seed)
    specs = [spec(f"c{index}", rng.choice(list(Restart))) for index in range(rng.randrange(1, 6))]
    machine = Supervision(
        specs, strategy=rng.choice(list(Strategy)), intensity=rng.choice([1, 3, 50]), period=5
    )
    world = World(rng, machine)
    world.feed(ev.Boot())
    for _ in range(rng.randrange(60)):
        if world.exits:
            return
        command = rng.random()
        if command < 0.1:
            world.feed(ev.Add(spec(f"d{rng.randrange(9)}", rng.choice(list(Restart)))))
        elif command < 0.2:
            world.feed(ev.Remove(rng.choice([*machine.children, "nobody"])))
        else:
            world.step()
    world.feed(ev.Shutdown())
    for _ in range(1_000):
        if world.exits:
            break
        world.step()
    assert world.exits == 1


def test_phases_are_words_for_people():
    assert [str(phase) for phase in Phase] == [
        "down",
        "starting",
        "running",
        "stopping",
        "retrying",
    ]
