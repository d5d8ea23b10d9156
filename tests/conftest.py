"""Every test leaves this process as it found it: no thread, process, socket or file remains."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import NamedTuple

import pytest
from hypothesis import settings

from tests.support.engine import docker_host, engine, gvisor_engine, gvisor_host
from tests.support.sandbox import bubblewrap

__all__ = [  # fixtures of all folders
    "bubblewrap",
    "docker_host",
    "engine",
    "gvisor_engine",
    "gvisor_host",
]

settings.register_profile("manta", deadline=None)  # speed is the benchmarks' business
settings.load_profile("manta")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # By a shell that runs this in the background; what tests start would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # by nohup

GRACE = 30.0  # seconds, for what is about to end by itself
TWINS = {"actors", "light", "node", "transports"}
os.environ["PYTEST_RUN"] = str(os.getpid())  # inherited by all that a test starts, orphans too
RUN = f"PYTEST_RUN={os.getpid()}"


class Held(NamedTuple):
    """What a process holds; on a system without /proc, its threads only."""

    threads: set[threading.Thread]
    files: set[tuple[str, str]]
    processes: set[str]


def held() -> Held:
    files, processes = set(), set()
    if sys.platform == "linux":
        for fd in os.listdir("/proc/self/fd"):
            try:
                files.add((fd, os.readlink(f"/proc/self/fd/{fd}")))
            except FileNotFoundError:
                continue  # the listing's own
        processes = {name for name in os.listdir("/proc") if name.isdecimal()}
    return Held(set(threading.enumerate()), files, processes)


def read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:  # ended meanwhile, or another user's
        return ""


def parent(pid: str) -> str:
    return read(f"/proc/{pid}/stat").rpartition(") ")[2].partition(" ")[2].partition(" ")[0]


def is_ours(pid: str, before: set[str]) -> bool:
    """Did this test start the process, and not a longer-lived fixture's process?"""
    ancestor = parent(pid)
    while ancestor and ancestor not in before:
        ancestor = parent(ancestor)
    if ancestor == str(os.getpid()):
        return True
    environment = read(f"/proc/{pid}/environ").split("\0")
    return RUN in environment and RUN not in read(f"/proc/{ancestor}/environ").split("\0")


def leaks(before: Held) -> Held:
    now = held()
    return Held(
        now.threads - before.threads,
        now.files - before.files,
        {pid for pid in now.processes - before.processes if is_ours(pid, before.processes)},
    )


gc.disable()  # while thousands of tests are collected, of which nothing goes


def pytest_collection_finish() -> None:
    """What is there by now stays: the garbage collector, which the search for leaks calls time and
    again, need not look through it."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _helper_process() -> None:
    """Multiprocessing starts one that lives as long as we do: no leak of the test that needs it."""
    resource_tracker.ensure_running()


@pytest.fixture(autouse=True)
def _home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Who runs the tests keeps his profiles and keys."""
    with pytest.MonkeyPatch.context() as patch:  # a test's own is undone before leaks are sought
        patch.setenv("MANTA_HOME", str(tmp_path_factory.getbasetemp() / "home"))
        yield


@pytest.fixture(autouse=True)
def _no_leaks(_helper_process: None) -> Iterator[None]:
    before = held()
    yield
    leaked = leaks(before)
    if any(leaked):
        gc.collect()
    deadline = time.monotonic() + GRACE
    while any(leaked) and time.monotonic() < deadline:
        time.sleep(0.01)
        leaked = leaks(before)
    if not any(leaked):
        return
    lines = [f"thread {thread}" for thread in leaked.threads]
    lines += [f"descriptor {fd} -> {target}" for fd, target in leaked.files]
    for pid in leaked.processes:
        lines.append(f"process {pid} {read(f'/proc/{pid}/cmdline')!r}")
        os.kill(int(pid), signal.SIGKILL)
    pytest.fail("the test leaked\n  " + "\n  ".join(sorted(lines)), pytrace=False)


@pytest.fixture(autouse=True)
def _no_twins() -> Iterator[None]:
    yield
    twins = sorted(TWINS & sys.modules.keys())
    for name in twins:
        del sys.modules[name]
    if twins:
        pytest.fail(f"imported as top-level modules, not of manta: {', '.join(twins)}", False)
