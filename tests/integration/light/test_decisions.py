"""What is kept warm between attempts, and what each of them does anew."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

Start = Callable[..., Any]

THREAD = """
    import os, threading, time
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    def main():
        return os.getpid(), threading.active_count()
"""
USES_WORLD = """
    from manta.light import Local, World
    world = World()
    iteration = world.iteration
    size = world.globals.get("size")
    print("imported in", iteration)
    def main():
        world.set_global("size", iteration + 10)
        return iteration, size
"""
RESIDENT_USES_WORLD = """
    from manta.light import Task, World
    first = World().iteration
    class Worker(Task):
        def execute(self):
            return first, self.world.iteration
"""


def test_a_thread_that_the_module_starts_is_each_attempts_own(start: Start) -> None:
    runtime = start(THREAD)
    first, second = runtime.run(0), runtime.run(1)
    assert first.output[0] != second.output[0]
    assert first.output[1] == second.output[1] == 2
    assert first.lines("info") == second.lines("info") == []


@pytest.mark.parametrize("extra", ["", "import numpy\n"])
def test_reads_of_world_at_module_level_see_each_attempts_values(start: Start, extra: str) -> None:
    runtime = start("    " + extra + USES_WORLD)
    first, second = runtime.run(0), runtime.run(1)
    assert first.output == (0, None)
    assert second.output == (1, 10)
    assert first.lines("stdout") == ["imported in 0"]
    assert second.lines("stdout") == ["imported in 1"]


def test_a_resident_object_whose_module_uses_world(start: Start) -> None:
    runtime = start(RESIDENT_USES_WORLD)
    assert [runtime.run(i).output for i in range(3)] == [(0, 0), (0, 1), (0, 2)]


def test_threads_do_not_matter_to_a_resident_object(start: Start) -> None:
    runtime = start("""
        import threading, time
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        class Worker:
            def execute(self):
                return threading.active_count()
    """)
    assert runtime.run(0).output == 2
    assert runtime.lives_on


def test_numpy_with_its_pool_is_forked(start: Start) -> None:
    pytest.importorskip("numpy")
    runtime = start(
        """
        import os
        import numpy as np
        x = np.ones((600, 600))
        (x @ x).sum()
        def main():
            return float((x @ x)[0, 0]), len(os.listdir("/proc/self/task"))
        """,
        cpu=2.0,
    )
    for i in range(3):
        assert runtime.run(i).output[0] == 600.0


def test_torch(start: Start) -> None:
    pytest.importorskip("torch")
    runtime = start("""
        import torch
        def main():
            return torch.rand(3)
    """)
    assert runtime.run(0).output.tolist() != runtime.run(1).output.tolist()


DRAW = """
    import random
    def main():
        import numpy
        import numpy as np
        return random.random(), float(np.random.rand())
"""


@pytest.mark.parametrize("module_level", [False, True])
def test_random_numbers_differ_per_attempt_and_are_repeatable(
    start: Start, module_level: bool
) -> None:
    source = DRAW
    if module_level:
        source = "    import numpy\n" + DRAW

    def draw(runtime: Any) -> list[Any]:
        return [
            runtime.run(0).output,
            runtime.run(1).output,
            runtime.run(0, node_id="another").output,
            runtime.run(0, index=1).output,
            runtime.run(0, seed=8).output,
        ]

    first, second = draw(start(source)), draw(start(source))
    assert first == second
    for column in zip(*first, strict=True):
        assert len(set(column)) == len(column)


def test_thread_counts_follow_the_share(start: Start) -> None:
    runtime = start("import os\ndef main():\n    return os.environ['OMP_NUM_THREADS']\n", cpu=3.0)
    assert runtime.run().output == "3"


def test_the_environment_holds_no_secret_and_no_twins(start: Start) -> None:
    runtime = start("""
        import os, sys
        def main():
            return sorted(os.environ), sys.path
    """)
    names, path = runtime.run().output
    assert {name for name in names if name.startswith(("MANTA", "PYTHON"))} == {"MANTA_SESSION"}
    assert path.count(str(runtime.module)) == 1
    assert sys.executable
    assert not any(folder in ("", ".", str(runtime.scratch)) for folder in path)
