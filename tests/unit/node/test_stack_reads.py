"""Who asks for the stacks of an attempt, and how often its runtime is asked for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from manta.actors import Refused, Reply
from manta.node.task_server.messages import TakeStacks
from manta.node.tasks import stacks
from manta.node.tasks.stacks import StackReads
from manta.protocol.bundle import Stacks
from manta.protocol.node import Instance

AT = Instance("s", "worker", 0, 0)


class Told(Reply):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        self.heard.append(value if error is None else error)


class Bench:
    def __init__(self) -> None:
        self.sent: list[Any] = []
        context = SimpleNamespace(
            config=SimpleNamespace(bundle_redact=()),
            sessions=SimpleNamespace(tell=self.sent.append),
            gate=SimpleNamespace(holds_failures=lambda _: False),
        )
        self.reads = StackReads(cast("Any", context))

    def ask(self, now: float, why_not: str = "") -> Told:
        reply = Told()
        self.reads.ask(AT, "session", why_not, lambda: reply, now)
        return reply


def test_all_who_ask_at_a_time_are_answered_with_what_is_taken_once() -> None:
    bench = Bench()
    asked = [bench.ask(float(number) / 10) for number in range(9)]
    assert bench.sent == [TakeStacks("session", AT)]
    bench.reads.answer("where it stands")
    assert [one.heard for one in asked] == [[Stacks("where it stands")]] * 9
    bench.ask(1.0)
    assert len(bench.sent) == 2


def test_a_runtime_that_does_not_answer_is_asked_again_and_askers_have_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stacks, "ASKERS", 2)
    bench = Bench()
    bench.ask(0.0)
    bench.ask(stacks.AGAIN)
    assert len(bench.sent) == 2
    with pytest.raises(Refused, match="Too many ask"):
        bench.ask(stacks.AGAIN)


def test_an_attempt_that_does_not_run_is_told_as_one() -> None:
    bench = Bench()
    with pytest.raises(Refused) as refused:
        bench.ask(0.0, "does not run now")
    assert refused.value.sentence == f"{AT} does not run now: it has no stacks to show."
    assert not bench.sent
