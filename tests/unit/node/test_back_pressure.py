"""What a task writes while its node's journal has too much to send."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from manta.node.policy.gate import Gate
from manta.node.task_server import requests as light
from manta.node.tasks.back_pressure import PATIENCE
from manta.node.tasks.requests import TaskRequests
from manta.protocol.node import Instance, LogLine
from manta.protocol.values import Inline

INSTANCE = Instance("s", "worker", 0, 0)
VALUE = Inline(b"x")


class Node:
    """Stands for the task's supervisor and all that it uses: its journal is full."""

    def __init__(self) -> None:
        self.now = 100.0
        self.full = "the manager has yet to take 3 entries"
        self.ahead = ""
        self.kept: list[Any] = []
        self.asked: list[Any] = []
        self.lines: list[LogLine] = []
        self.context = SimpleNamespace(journals=self, values=None, is_registered=True)
        self.clock = SimpleNamespace(now=lambda: self.now, wall=lambda: self.now)
        self.requests = TaskRequests(self, self.context, self.ask)  # type: ignore[arg-type]
        self.context.has_rooms = False
        self.context.named = SimpleNamespace()
        self.context.audit = SimpleNamespace(left=lambda entry, at: None)
        self.context.gate = Gate(self.context.audit)

    def crowded(self, swarm_id: str) -> str:
        return self.full

    def reports_wait(self, swarm_id: str) -> str:
        return self.ahead or self.full

    def append(self, entry: Any, depot: Any = None) -> None:
        self.kept.append(entry)

    def append_lines(self, swarm_id: str, lines: list[LogLine]) -> None:
        self.lines += lines

    def ask(self, path: str, message: Any, timeout: float, then: Any, tries: int = 0) -> None:
        self.asked.append(message)

    def take(self, body: Any) -> Asked:
        return Asked(self, body)

    def later(self, seconds: float) -> bool:
        self.now += seconds
        return self.requests.look_at_waiting(INSTANCE)


class Asked:
    def __init__(self, node: Node, body: Any) -> None:
        self.answers: list[Any] = []
        self.reply = light.Reply(lambda value, error: self.answers.append(error or value))
        node.requests.take(light.Request("session", INSTANCE, body, self.reply))


LASTING = [
    light.SetGlobal("g", VALUE, n=1),
    light.AddResult("r", VALUE, n=1),
    light.ScheduleNextIteration((), None, n=1),
    light.Broadcast("b", VALUE, n=1),
    light.Contribute(0, "k", None, VALUE, n=1),
    light.Checkpoint(VALUE, n=1),
]
TOLD = [light.LogMetrics({"loss": 1.0}, None, n=1), light.Progress(0.5, "half", n=1)]
TIMED = {
    "ReceiverFull": light.Send("node-2", "t", VALUE, 1.0, n=1),
    "Timeout": light.Receive("node-2", "t", 0, 1.0, n=1),
    "Timeout ": light.Lock("l", 1.0, n=1),
}


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("kind", TIMED)
def test_a_request_with_a_timeout_fails_after_that_and_with_its_own_error(
    kind: str, registered: bool
) -> None:
    node = Node()
    node.context.is_registered = registered
    asked = node.take(TIMED[kind])
    assert node.later(0.9)
    assert asked.answers == []
    assert not node.later(0.1)
    sentence = "Waited 1 s in vain: the manager has yet to take 3 entries."
    assert asked.answers == [(kind.strip(), sentence)]
    assert node.kept == node.asked == []


def test_what_it_waited_counts_towards_its_timeout() -> None:
    node = Node()
    node.take(light.Lock("l", 1.0, n=1))
    assert node.later(0.75)
    node.full = ""
    assert not node.later(0.0)
    (asked,) = node.asked
    assert asked.request.wait == 0.25


@pytest.mark.parametrize("body", [*LASTING, *TOLD])
def test_what_a_manager_that_is_there_does_not_take_fails_in_the_end(body: Any) -> None:
    node = Node()
    asked = node.take(body)
    assert node.later(PATIENCE - 1)
    assert asked.answers == []
    assert not node.later(1)
    ((kind, sentence),) = asked.answers
    assert kind == "ResourceExhaustionError"
    assert sentence == "Waited 300 s in vain: the manager has yet to take 3 entries."


@pytest.mark.parametrize("body", LASTING)
def test_while_the_manager_is_away_what_counts_waits_without_end(body: Any) -> None:
    node = Node()
    node.context.is_registered = False
    asked = node.take(body)
    for _ in range(10):
        assert node.later(PATIENCE)
    node.context.is_registered = True
    assert node.later(PATIENCE - 1)  # it is heard out once it is there
    node.full = ""
    assert not node.later(0.5)
    assert asked.answers == [None]
    assert len(node.kept) == 1


def test_while_the_manager_is_away_metrics_and_progress_are_left_out_and_that_is_told() -> None:
    node = Node()
    node.context.is_registered = False
    for _ in range(20):
        for body in TOLD:
            assert node.take(body).answers == [None]
    assert node.kept == node.lines == []
    node.context.is_registered, node.full = True, ""
    assert node.take(TOLD[0]).answers == [None]
    assert len(node.kept) == 1
    text = "[calls for metrics or progress left out: 40; the manager was away too long]"
    assert [(line.instance, line.text) for line in node.lines] == [(INSTANCE, text)]
    node.later(1)
    assert len(node.lines) == 1


def test_what_was_left_out_is_told_before_the_attempt_ends() -> None:
    node = Node()
    node.context.is_registered = False
    node.take(TOLD[0])
    node.requests.attempt_ends(INSTANCE)
    (line,) = node.lines
    assert line.text.startswith("[calls for metrics or progress left out: 1;")


@pytest.mark.parametrize("body", [*LASTING, *TIMED.values()])
def test_what_a_signal_ended_is_answered_at_once_and_not_carried_out(body: Any) -> None:
    """Who asks under an alarm asks often, and none of it may add up."""
    node = Node()
    asked: list[Asked] = []
    for _ in range(1000):
        if asked:
            asked[-1].reply.abandoned = True
        asked.append(node.take(body))
        assert sum(not one.answers for one in asked) == 1
    node.full = ""
    node.later(0.1)
    assert len(node.kept) + len(node.asked) <= 2  # a lock is wanted, and then waited for


def test_an_attempt_that_ends_leaves_nothing_waiting() -> None:
    node = Node()
    node.context.is_registered = False
    asked = node.take(LASTING[0])
    node.requests.attempt_ends(INSTANCE)
    assert [kind for kind, _ in asked.answers] == ["SwarmStopped"]
    assert not node.later(1)


def test_what_only_reads_does_not_wait() -> None:
    node = Node()
    node.take(light.GetGlobal("g", n=1))
    assert len(node.asked) == 1


def test_reports_wait_for_a_manager_that_is_slow_and_all_else_passes_them() -> None:
    node = Node()
    node.full, node.ahead = "", "the manager has yet to take 2 entries"
    told = [node.take(body) for body in TOLD]
    result = node.take(light.StopSwarm(n=1))
    kept = [node.take(body) for body in LASTING[:2]]
    assert [asked.answers for asked in told] == [[], []]
    assert len(result.answers) == 1
    assert [len(asked.answers) for asked in kept] == [1, 1]
    node.ahead = ""
    assert not node.later(1.0)
    assert [len(asked.answers) for asked in told] == [1, 1]
    names = [type(entry).__name__ for entry in node.kept]
    assert names == [
        *("StopRequested", "GlobalWritten", "ResultWritten", "MetricsLogged", "Progressed"),
    ]
