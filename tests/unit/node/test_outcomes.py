"""How an attempt's end is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from manta.node.task_server.outcomes import died, failed

MORE = (
    "more memory than it may, 64 MiB: have its module or task ask for more "
    "(resources={'memory': ...}), or take less."
)
CHILD = f"Before that, a process that it started was killed: together they took {MORE}"


def attempt(*, no_memory: bool) -> Any:
    assignment = SimpleNamespace(resources=SimpleNamespace(memory=64 << 20))
    return SimpleNamespace(
        name="worker.0",
        order=SimpleNamespace(assignment=assignment),
        tail=["the last line"],
        cancelled=None,
        no_memory=no_memory,
    )


@pytest.mark.parametrize(
    ("status", "begin"),
    [
        (0, "worker.0 ended its process with exit code 0"),
        (1, "worker.0 ended its process with exit code 1"),
        (-6, "worker.0 was ended by SIGABRT"),
        (-15, "worker.0 was ended by SIGTERM."),
    ],
)
def test_what_became_of_a_process_that_it_started_is_added(status: int, begin: str) -> None:
    plain, told = (died(attempt(no_memory=known), status) for known in (False, True))
    assert plain.sentence.startswith(begin)
    assert told.sentence == f"{plain.sentence} {CHILD}"
    assert told.kind == plain.kind


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("DataLoader worker (pid 5) is killed", "DataLoader worker (pid 5) is killed."),
        ("RuntimeError: It is gone.", "RuntimeError: It is gone."),
        ("Why?", "Why?"),
    ],
)
def test_so_it_is_to_an_error_of_its_own(said: str, shown: str) -> None:
    error = ("RuntimeError", said, "Traceback")
    assert failed(attempt(no_memory=False), error).sentence == said
    told = failed(attempt(no_memory=True), error)
    assert told.sentence == f"{shown} {CHILD}"
    assert (told.kind, told.traceback, told.last_lines) == (
        "RuntimeError",
        "Traceback",
        ("the last line",),
    )


def test_of_its_own_process_it_is_the_whole_reason() -> None:
    told = died(attempt(no_memory=True), -9)
    assert told.sentence == f"worker.0 was killed (SIGKILL): it took {MORE}"
    assert told.kind == "ResourceExhaustionError"
    assert "if nobody did so on purpose" in died(attempt(no_memory=False), -9).sentence
