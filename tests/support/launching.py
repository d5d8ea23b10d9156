"""Has the thread fail that launches tasks, as if it lacked memory for a moment."""

from __future__ import annotations

import threading

from manta.node.runners.launcher import Launcher


def break_thread(launcher: Launcher) -> threading.Thread:
    """Returns the thread, which fails in its next turn."""

    def job() -> None:
        raise MemoryError("none is left")

    loop = launcher._threads[-1]._loop
    assert loop.post(job)
    return loop._thread
