"""Who asks for stacks that can't be shown is told why, and only so many may ask at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from manta.actors import Refused
from manta.node.tasks.stacks import ASKERS, StackReads
from manta.protocol.node import Instance

AT = Instance("swarm", "worker", 0, 0, 0)


class Asker:
    def __init__(self) -> None:
        self.told: Any = None

    def set(self, told: Any) -> None:
        self.told = told

    def fail(self, error: Exception) -> None:
        self.told = error


def reads(*redacted: str) -> tuple[StackReads, list[Any]]:
    asked: list[Any] = []
    context = SimpleNamespace(
        config=SimpleNamespace(bundle_redact=redacted), sessions=SimpleNamespace(tell=asked.append)
    )
    return StackReads(context), asked  # type: ignore[arg-type]


def test_an_attempt_that_does_not_run_is_told_as_one() -> None:
    stacks, asked = reads()
    with pytest.raises(Refused) as refused:
        stacks.ask(AT, "session", "does not run now", Asker)  # type: ignore[arg-type]
    assert refused.value.sentence == f"{AT} does not run now: it has no stacks to show."
    assert not asked


def test_an_owner_who_holds_them_back_is_named_first() -> None:
    stacks, _ = reads("stacks")
    with pytest.raises(Refused, match="holds the stacks of tasks back"):
        stacks.ask(AT, "session", "does not run now", Asker)  # type: ignore[arg-type]


def test_all_who_ask_are_answered_and_no_more_may() -> None:
    stacks, asked = reads()
    askers = [Asker() for _ in range(ASKERS)]
    for asker in askers:
        stacks.ask(AT, "session", "", lambda asker=asker: asker)  # type: ignore[misc]
    with pytest.raises(Refused, match="Too many ask"):
        stacks.ask(AT, "session", "", Asker)  # type: ignore[arg-type]
    assert len(asked) == ASKERS
    stacks.answer("File")
    assert {asker.told.text for asker in askers} == {"File"}
    stacks.ask(AT, "session", "", lambda: askers[0])  # type: ignore[arg-type,return-value]
    stacks.answer("")
    assert isinstance(askers[0].told, Refused)
