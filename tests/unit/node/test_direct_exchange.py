"""When the end of an attempt that exchanged is told, and as what."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from manta.actors import AskTimeout
from manta.node.shared.messages import Connect, EndExchange
from manta.node.task_server import requests as light
from manta.node.tasks.direct import DirectExchange
from manta.protocol.base import Instance
from manta.protocol.node import Assignment, TaskEnded
from manta.protocol.spec import ModuleSpec
from manta.protocol.states import AttemptState
from manta.protocol.values import Inline

AT = Instance("s", "w", 0, 0)
FINISHED, FAILED, CANCELLED = AttemptState.FINISHED, AttemptState.FAILED, AttemptState.CANCELLED


class Path:
    path = "node/tasks/s.w.0"


class Ref:
    address = Path()


class Actor:
    ref = Ref()
    log = logging.getLogger("test")

    def __init__(self) -> None:
        self.told: list[Any] = []

    def notify(self, _: str, message: Any) -> bool:
        self.told.append(message)
        return True


class Bench:
    def __init__(self, direct: bool = True) -> None:
        self.actor = Actor()
        self.asked: list[tuple[Any, Callable[[Any, BaseException | None], None]]] = []
        self.exchange = DirectExchange(
            self.actor,  # type: ignore[arg-type]
            lambda path, message, timeout, then: self.asked.append((message, then)),
        )
        assignment = Assignment(AT, ModuleSpec("m"), "s", "id-1", 1, direct=direct)
        self.exchange.begins(assignment)
        self.answers: list[Any] = []

    def open(self, end: object | None) -> None:
        """The attempt asks for a connection; it gets that, or the asking fails."""
        reply = light.Reply(lambda value, error: self.answers.append(error or value))
        request = light.Request("session", AT, light.OpenExchange(n=1), reply)

        def relay(question: Any, then: Callable[[Any], None]) -> None:
            assert question == Connect(AT, Path.path)
            if end is None:
                reply.fail("RequestFailed", "no descriptors")
            else:
                then(end)

        self.exchange.connect(request, relay)

    def end(
        self, state: AttemptState, answer: Any, error: BaseException | None = None
    ) -> TaskEnded:
        told: list[TaskEnded] = []
        self.exchange.end(TaskEnded(AT, state, 1.0, output=Inline(b"x")), told.append)
        ((message, then),) = self.asked
        assert message == EndExchange(AT, counts=state is FINISHED)
        assert told == []
        then(answer, error)
        return told[0]


def test_an_end_is_told_when_the_plane_has_kept_what_was_said() -> None:
    bench = Bench()
    assert not bench.exchange.is_used_by(AT)
    bench.open("end")
    assert bench.answers == ["end"]
    assert bench.exchange.is_used_by(AT)
    assert bench.end(FINISHED, True).state is FINISHED


@pytest.mark.parametrize("lives_on", [True, False])
@pytest.mark.parametrize("state", [FINISHED, FAILED])
def test_the_plane_is_told_whether_the_process_is_gone(state: AttemptState, lives_on: bool) -> None:
    bench = Bench()
    bench.open("end")
    bench.exchange.lives_on = lives_on
    bench.exchange.end(TaskEnded(AT, state, 1.0), lambda _: None)
    ((message, _),) = bench.asked
    counts = state is FINISHED
    assert message == EndExchange(AT, counts, is_gone=counts and not lives_on)


@pytest.mark.parametrize(
    ("state", "becomes"),
    [(FINISHED, "INTERRUPTED"), (FAILED, "INTERRUPTED"), (CANCELLED, "CANCELLED")],
)
def test_without_the_plane_it_neither_counts_nor_costs_a_retry(
    state: AttemptState, becomes: str
) -> None:
    bench = Bench()
    bench.open("end")
    ended = bench.end(state, False)
    assert ended.state == becomes
    if becomes == "INTERRUPTED":
        assert ended.output is None
        assert ended.error is not None
        assert ended.error.kind == "PlaneLost"


def test_an_attempt_whose_words_the_disk_does_not_take_in_time_is_told_that() -> None:
    bench = Bench()
    bench.open("end")
    ended = bench.end(FINISHED, None, AskTimeout("no answer"))
    assert ended.state == "INTERRUPTED"
    assert ended.error is not None
    assert "was not on the node's disk within 60 s" in ended.error.sentence


def test_an_attempt_that_got_no_connection_has_said_nothing() -> None:
    bench = Bench()
    bench.open(None)
    assert bench.answers == [("RequestFailed", "no descriptors")]
    assert bench.end(FINISHED, False).state is FINISHED


def test_a_node_that_stops_waits_for_no_plane() -> None:
    bench = Bench()
    bench.open("end")
    assert bench.exchange.end_now(TaskEnded(AT, FINISHED, 1.0)).state == "INTERRUPTED"
    assert bench.actor.told == [EndExchange(AT, counts=False)]


def test_the_next_attempt_begins_without_a_connection() -> None:
    bench = Bench()
    bench.open("end")
    after = Instance("s", "w", 0, 1)
    bench.exchange.begins(Assignment(after, ModuleSpec("m"), "s", "id-1", 1, direct=True))
    assert not bench.exchange.is_used_by(AT)
    assert not bench.exchange.is_used_by(after)


def test_a_swarm_of_an_earlier_version_has_no_connections() -> None:
    bench = Bench(direct=False)
    bench.open("end")
    assert bench.answers == [("RequestFailed", "This swarm's tasks exchange through the manager.")]
