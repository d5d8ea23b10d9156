"""Stacks of processes, as their runtime takes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from manta.light.runtime.installed import installed
from manta.light.runtime.stacks import SIGNAL, Stacks
from manta.light.wire import MAX_PACKAGES, MAX_STACKS


@pytest.fixture
def stacks() -> Iterator[Stacks]:
    found = Stacks()
    yield found
    os.close(found._file)


def child(code: Callable[[], object]) -> int:
    """A forked process, which has said that it is there."""
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reads)
        os.write(writes, b".")
        os.close(writes)
        code()
        os._exit(0)
    os.close(writes)
    assert os.read(reads, 1) == b"."
    os.close(reads)
    return pid


def end(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def waits_for_ever() -> None:
    signal.pause()


def test_a_forked_process_shows_where_it_stands(stacks: Stacks) -> None:
    def code() -> None:
        stacks.register()
        waits_for_ever()

    pid = child(code)
    try:
        found = ""
        while "in waits_for_ever" not in found:  # it may not have registered yet
            found = stacks.take(os.getpid(), 0, pid, "/nowhere")
        assert found.startswith(f"Process {pid} (the attempt's own), sleeping:\n")
    finally:
        end(pid)


def test_what_is_no_python_of_ours_is_named_with_its_state(stacks: Stacks) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        found = ""
        while "(sleep 60)" not in found:  # the kernel may yet have to name it so
            found = stacks.take(os.getpid(), 0, 0, "/nowhere")
        head, _, rest = found.partition(f"Process {other.pid} (sleep 60), ")[2].partition(": ")
        assert head in ("sleeping", "running")
        assert rest.startswith("it is no Python that was forked here")
    finally:
        other.kill()
        other.wait()


def test_one_that_is_stopped_is_not_waited_for(stacks: Stacks) -> None:
    pid = child(waits_for_ever)
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    try:
        assert "stopped" in stacks.take(os.getpid(), 0, pid, "/nowhere")
    finally:
        end(pid)


def test_one_that_blocks_the_signal_is_told_of(stacks: Stacks) -> None:
    def code() -> None:
        stacks.register()
        waits_for_ever()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL])
    pid = child(code)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        found = ""
        while "did not show its stacks in time" not in found:
            found = stacks.take(os.getpid(), 0, pid, "/nowhere")
    finally:
        end(pid)


def test_what_is_told_has_a_bound(stacks: Stacks) -> None:
    def deep(left: int) -> None:
        deep(left - 1) if left else waits_for_ever()

    def code() -> None:
        stacks.register()
        for _ in range(40):
            threading.Thread(target=deep, args=(80,), daemon=True).start()
        deep(80)

    pid = child(code)
    try:
        found = ""
        while found.count("\n") < 100:
            found = stacks.take(os.getpid(), 0, pid, "/nowhere")
        assert len(found) <= MAX_STACKS
    finally:
        end(pid)


def test_packages_are_those_that_this_python_has() -> None:
    found = dict(installed(sys.path))
    assert {"msgpack", "pytest"} <= found.keys()
    assert len(found) <= MAX_PACKAGES
    assert installed(["/nowhere", ""]) == installed(["", "/nowhere"])
