"""What a round leaves in shared memory is removed with it, however it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manta.node.task_server import messages as light
from manta.testing import wait_until

Start = Callable[..., Any]

LEAVES = """
    import os, time
    from multiprocessing import get_context, shared_memory
    from pathlib import Path
    def leave():
        memory = shared_memory.SharedMemory(create=True, size=100_000)
        semaphore = get_context("spawn").Semaphore()
        memory.buf[:4] = b"mine"
        names = [memory.name, "sem" + semaphore._semlock.name.replace("/", ".")]
        assert set(names) <= set(os.listdir("/dev/shm"))
        Path("names").write_text("\\n".join(names))
        return memory, semaphore
"""
HOW = {
    "returns": "",
    "raises": "raise ValueError",
    "exits": "os._exit(3)",
    "is killed": "os.kill(os.getpid(), 9)",
    "leaves a process": "if os.fork() == 0:\n            time.sleep(600)",
    "waits": "print('in')\n        time.sleep(600)",
}


def left(runtime: Any) -> set[str]:
    names = (runtime.scratch / "names").read_text().split()
    assert len(names) == 2
    return set(names) & set(os.listdir("/dev/shm"))


def started(start: Start, how: str, form: str = "main") -> Any:
    body = f"        held = leave()\n        {HOW[how]}\n"
    if form == "main":
        return start(LEAVES + "    def main():\n" + body)
    body = body.replace("\n        ", "\n            ").replace(
        "        held", "            held", 1
    )
    return start(LEAVES + "    class Worker:\n        def execute(self):\n" + body)


@pytest.mark.parametrize("how", [how for how in HOW if how != "waits"])
def test_what_an_attempt_leaves_is_gone_before_it_is_over(start: Start, how: str) -> None:
    runtime = started(start, how)
    for iteration in range(2):
        runtime.run(iteration)
        assert left(runtime) == set()


def test_what_a_cancelled_attempt_leaves_is_removed(start: Start, node: Any) -> None:
    runtime = started(start, "waits")
    instance = runtime.begin()
    runtime.output("stdout", "in")
    node.sessions.tell(light.CancelAttempt(runtime.id, instance, "enough"))
    runtime.end()
    assert left(runtime) == set()


@pytest.mark.parametrize("form", ["main", "execute"])
@pytest.mark.parametrize("way", ["close", "handle", "sigkill"])
def test_what_a_runtime_leaves_is_removed(start: Start, node: Any, form: str, way: str) -> None:
    runtime = started(start, "waits", form)
    runtime.begin()
    runtime.output("stdout", "in")
    assert len(left(runtime)) == 2
    if way == "close":
        node.sessions.tell(light.CloseSession(runtime.id))
    elif way == "handle":
        runtime.handle.kill()
    else:
        os.kill(runtime.handle.pid, signal.SIGKILL)
    runtime.exits.get(timeout=60)
    wait_until(lambda: left(runtime) == set())


def test_a_round_has_a_tracker_of_its_own(start: Start, node: Any, tmp_path: Path) -> None:
    """Though the one of the process that it is forked from has started."""
    runtime = start("""
        from multiprocessing import resource_tracker
        def main():
            resource_tracker.ensure_running()
            return resource_tracker._resource_tracker._pid
    """)
    pids = [runtime.run(iteration).output for iteration in range(3)]
    assert len(set(pids)) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_folders_of_joblib_are_removed(start: Start) -> None:
    pytest.importorskip("joblib")
    pytest.importorskip("numpy")
    runtime = start("""
        import os
        import joblib, numpy
        def main():
            x = numpy.zeros(500_000)
            joblib.Parallel(2)(joblib.delayed(numpy.sum)(x) for _ in range(2))
            pid = str(os.getpid())
            there = [name for name in os.listdir("/dev/shm") if pid in name]
            if len(there) > 1:
                os.kill(os.getpid(), 9)
            return there
    """)
    before = set(os.listdir("/dev/shm"))
    assert runtime.run().error.kind == "Killed"
    assert {name for name in os.listdir("/dev/shm") if "loky" in name or "joblib" in name} <= before
