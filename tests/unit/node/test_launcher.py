"""The thread that starts processes, whatever becomes of one of them, or of itself."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.node.errors import LaunchError
from manta.node.runners import launcher as launching
from manta.node.runners.launcher import MOST_FAILURES, Child, Ended, Launcher
from manta.testing import wait_until
from tests.support.launching import break_thread

PATIENCE = 60.0


@pytest.fixture
def given_up() -> queue.Queue[str]:
    return queue.Queue()


@pytest.fixture
def launcher(given_up: queue.Queue[str]) -> Iterator[Launcher]:
    launcher = Launcher(given_up.put)
    yield launcher
    launcher.close()


def fails(_: subprocess.Popen[bytes]) -> None:
    raise ProcessLookupError("no such process")


def sleeping(launcher: Launcher, tmp_path: Path, ended: queue.Queue[Ended]) -> Child:
    return launcher.launch(
        ["/bin/sleep", "600"], env={}, cwd=tmp_path, on_exit=ended.put, request_end=fails
    )


def test_one_that_can_not_be_asked_to_end_is_killed_and_others_go_on(
    launcher: Launcher, tmp_path: Path
) -> None:
    ended = queue.Queue[Ended]()
    launcher.end(sleeping(launcher, tmp_path, ended))
    assert ended.get(timeout=PATIENCE).code == -signal.SIGKILL
    launcher.end(sleeping(launcher, tmp_path, ended))
    assert ended.get(timeout=PATIENCE).code == -signal.SIGKILL
    assert launcher.trouble == ""


def test_children_of_a_thread_that_fails_are_ended_and_told_and_others_are_started(
    launcher: Launcher, tmp_path: Path, given_up: queue.Queue[str]
) -> None:
    ended = queue.Queue[Ended]()
    children = [sleeping(launcher, tmp_path, ended) for _ in range(3)]
    thread = break_thread(launcher)
    for _ in children:
        how = ended.get(timeout=PATIENCE)
        assert how.code == -signal.SIGKILL
        assert "thread that starts tasks has failed (none is left)" in how.lost
    thread.join(PATIENCE)
    assert not thread.is_alive()
    for child in children:
        assert child.process.poll() is not None  # reaped
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(child.pidfd)
        launcher.end(child)  # in vain
    later = sleeping(launcher, tmp_path, ended)
    launcher.end(later)
    assert ended.get(timeout=PATIENCE) == Ended(-signal.SIGKILL, "")
    assert "has failed once since the node began (MemoryError('none is left'))" in launcher.trouble
    assert given_up.empty()


def test_what_waits_to_be_started_when_the_thread_fails_is_told(
    launcher: Launcher, tmp_path: Path
) -> None:
    holds, goes_on = threading.Event(), threading.Event()

    def job() -> None:
        holds.set()
        goes_on.wait(PATIENCE)

    assert launcher._threads[-1]._loop.post(job)
    assert holds.wait(PATIENCE)
    break_thread(launcher)
    told = queue.Queue[str]()

    def start() -> None:
        try:
            sleeping(launcher, tmp_path, queue.Queue())
        except LaunchError as error:
            told.put(str(error))

    waiting = threading.Thread(target=start)
    waiting.start()
    wait_until(lambda: len(launcher._threads[-1]._loop._jobs._jobs) == 2)
    goes_on.set()
    assert "thread that starts tasks has failed (none is left)" in told.get(timeout=PATIENCE)
    waiting.join(PATIENCE)


def test_a_thread_that_fails_again_and_again_is_not_begun_for_ever(
    launcher: Launcher, tmp_path: Path, given_up: queue.Queue[str]
) -> None:
    for _ in range(MOST_FAILURES):
        break_thread(launcher).join(PATIENCE)
    assert given_up.empty()
    ended = queue.Queue[Ended]()
    sleeping(launcher, tmp_path, ended)
    break_thread(launcher)
    sentence = given_up.get(timeout=PATIENCE)
    assert f"has failed {MOST_FAILURES + 1} times within 60 s" in sentence
    assert ended.get(timeout=PATIENCE).lost
    with pytest.raises(LaunchError, match="nothing is started any more"):
        sleeping(launcher, tmp_path, ended)
    assert launcher.is_closed


def test_failures_that_lie_apart_are_not_counted_together(
    launcher: Launcher, given_up: queue.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "PERIOD", 0.0)
    for _ in range(2 * MOST_FAILURES):
        break_thread(launcher).join(PATIENCE)
    assert given_up.empty()
    assert not launcher.is_closed


def test_one_who_can_not_be_told_keeps_nobody_else_from_it(
    launcher: Launcher, tmp_path: Path
) -> None:
    def fails_to_hear(_: Ended) -> None:
        raise RuntimeError("no ears")

    launcher.launch(["/bin/sleep", "600"], env={}, cwd=tmp_path, on_exit=fails_to_hear)
    ended = queue.Queue[Ended]()
    sleeping(launcher, tmp_path, ended)
    break_thread(launcher)
    assert ended.get(timeout=PATIENCE).lost


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), MemoryError()])
def test_a_process_that_can_not_be_watched_is_not_left_running(
    launcher: Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    begun: list[int] = []

    def pidfd_open(pid: int, flags: int = 0) -> int:
        begun.append(pid)
        raise error

    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    with pytest.raises(LaunchError, match="A task c"):
        sleeping(launcher, tmp_path, queue.Queue())
    with pytest.raises(ProcessLookupError):
        os.kill(begun[0], 0)


def test_a_launcher_that_is_closed_while_its_thread_fails_begins_no_other(
    launcher: Launcher, tmp_path: Path
) -> None:
    ended = queue.Queue[Ended]()
    sleeping(launcher, tmp_path, ended)
    break_thread(launcher)
    launcher.close()
    assert ended.get(timeout=PATIENCE).code == -signal.SIGKILL
    with pytest.raises(LaunchError, match="The node is stopping"):
        sleeping(launcher, tmp_path, ended)
    assert not any(thread.is_alive for thread in launcher._threads)
