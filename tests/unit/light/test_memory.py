"""What the kernel killed in a container that took more memory than it may."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manta.light.runtime import memory, processes
from manta.light.runtime.main import Runtime
from manta.light.runtime.orders import Settings
from manta.light.runtime.shared import Shared
from manta.light.runtime.stacks import Stacks


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    path = tmp_path / "memory.events"
    monkeypatch.setattr(memory, "_COUNTERS", (str(path),))

    def count(kills: int) -> None:
        path.write_text(f"low 0\noom {kills}\noom_kill {kills}\n")

    count(0)
    return count


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], Runtime]]:
    made: list[Runtime] = []
    monkeypatch.setattr(processes, "OwnChildren", lambda: None)

    def make(is_limited: bool) -> Runtime:
        runtime = Runtime(
            Settings("", "", "", "", Shared(), Stacks()), "token", is_limited=is_limited
        )
        made.append(runtime)
        return runtime

    yield make
    for one in made:
        os.close(one._wake_up)
        os.close(one._wake_up_end)
        os.close(one._settings.stacks._file)


@pytest.mark.parametrize("status", [0, 3, -signal.SIGKILL, -signal.SIGABRT])
@pytest.mark.parametrize("end", [b"", b"an error"])
def test_the_node_is_told_however_the_attempt_ended(
    make: Callable[[bool], Runtime],
    counter: Callable[[int], None],
    status: int,
    end: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for is_limited in (True, False):
        told: list[dict[str, Any]] = []
        runtime = make(is_limited)
        monkeypatch.setattr(runtime, "_tell", told.append)
        counter(0)
        runtime._ended(1, status, end)
        counter(1)
        runtime._ended(2, status, end)
        assert [one.get("no_memory", False) for one in told] == [False, is_limited]
