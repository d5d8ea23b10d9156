"""The thread that starts processes, whatever becomes of one of them."""

from __future__ import annotations

import os
import queue
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.node.errors import LaunchError
from manta.node.runners.launcher import Child, Launcher
from manta.testing import wait_until

PATIENCE = 60.0


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


def fails(_: subprocess.Popen[bytes]) -> None:
    raise ProcessLookupError("no such process")


def sleeping(launcher: Launcher, tmp_path: Path, ended: queue.Queue[int]) -> Child:
    return launcher.launch(
        ["/bin/sleep", "600"],
        env={},
        cwd=tmp_path,
        on_exit=lambda code, _: ended.put(code),
        request_end=fails,
    )


def test_one_that_can_not_be_asked_to_end_is_killed_and_others_go_on(
    launcher: Launcher, tmp_path: Path
) -> None:
    ended = queue.Queue[int]()
    launcher.end(sleeping(launcher, tmp_path, ended))
    assert ended.get(timeout=PATIENCE) == -9
    launcher.end(sleeping(launcher, tmp_path, ended))
    assert ended.get(timeout=PATIENCE) == -9


def test_nobody_waits_for_a_launcher_that_has_failed(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tick() -> float | None:
        raise MemoryError

    monkeypatch.setattr(launcher._loop, "_tick", tick)
    child = sleeping(launcher, tmp_path, queue.Queue())  # accepted before it failed
    wait_until(lambda: not launcher._loop._thread.is_alive())
    with pytest.raises(LaunchError, match="nothing is started any more"):
        sleeping(launcher, tmp_path, queue.Queue())
    launcher.close()
    child.process.kill()
    child.process.wait()
    assert child.process.stderr is not None
    child.process.stderr.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(child.pidfd)
