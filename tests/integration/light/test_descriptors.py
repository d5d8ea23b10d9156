"""A node that runs out of descriptors, or whose service fails again and again, says so."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from manta.node.task_server import messages as light
from manta.node.task_server.sessions import FAILURES
from manta.testing import wait_until

Start = Callable[..., Any]
SIMPLE = "def main():\n    return 5\n"


@contextmanager
def descriptors(left: int) -> Iterator[None]:
    """So many more may be opened."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + left, limit[1]))
    fill: list[int] = []
    try:
        while True:  # holes below
            fill.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for fd in fill[len(fill) - left :]:
        os.close(fd)
    del fill[len(fill) - left :]
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for fd in fill:
            os.close(fd)


@pytest.mark.parametrize("left", [0, 1])
def test_an_attempt_that_finds_no_descriptors_ends_and_its_runtime_goes_on(
    start: Start, node: Any, left: int
) -> None:
    runtime = start(SIMPLE)
    runtime.ready()
    assert runtime.run().output == 5
    service = node.light
    idle = threading.Event()
    wait_until(lambda: not node.sessions.by_id[runtime.id].attempts)
    node.sessions.post(lambda _: idle.set())  # what the attempt held is closed by then
    assert idle.wait(60)
    with descriptors(left):
        ended = runtime.run(1).event
    assert ended.platform
    assert ended.error.sentence == (
        "The node could not serve the task: Too many open files; raise the limit of open files "
        "(ulimit -n)."
    )
    assert runtime.run(2).output == 5
    assert node.light is service
    assert service.is_alive


def test_a_value_that_cannot_be_opened_is_an_error_in_the_task(start: Start, node: Any) -> None:
    node.globals["model"] = node.payload(np.ones(100_000))
    node.hold = True
    runtime = start("""
        from manta.light import World
        def main():
            try:
                World().get("model")
            except Exception as error:
                return str(error)
    """)
    runtime.begin()
    wait_until(lambda: bool(node.held))
    with descriptors(0):
        node.held[0].reply.set(node.globals["model"])
        said = runtime.end().output
    assert "a value could not be opened: Too many open files; raise the limit" in said


def test_a_service_that_fails_again_and_again_ends_what_it_serves(start: Start, node: Any) -> None:
    runtime = start("import time\ndef main():\n    time.sleep(60)\n")
    runtime.begin()
    runtime.ready()

    def fail(_: Any) -> None:
        raise OSError(5, "the card burns")

    for failure in range(FAILURES):
        if failure:
            node.light = node.start_service()
        node.sessions.post(fail)
        node.light.wait(60)
        assert not node.light.is_alive
    node.light = node.start_service()
    lost = runtime.event(light.SessionLost)
    assert lost.sentence == (
        "The node's task service failed 5 times within 60 s (OSError: [Errno 5] the card burns); "
        "see the node's log."
    )
