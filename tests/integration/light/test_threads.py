"""Threads of an attempt ask the node at the same time, and none waits for another's answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from manta.node.task_server import requests as ask
from manta.testing import wait_until

Start = Callable[..., Any]

WAITING = """
    import threading, time
    import numpy as np
    from manta.light import World
    from manta.light.errors import LightError, ResourceExhaustionError

    waits = []

    def wait(tag):
        try:
            waits.append(World().get(tag))
        except LightError as error:
            waits.append(f"{type(error).__name__}: {error}")

    def threads(tags):
        made = [threading.Thread(target=wait, args=(tag,), daemon=True) for tag in tags]
        for thread in made:
            thread.start()
        return made
"""


def test_one_waits_while_others_read_write_and_log(start: Start, node: Any) -> None:
    node.hold = True
    runtime = start(
        WAITING
        + """
    def main():
        (thread,) = threads(["awaited"])
        print("waiting", flush=True)
        for step in range(3):
            World().log_metrics({"loss": 1.0 / (step + 1)}, step=step)
        World().results.add("large", np.ones(100_000))
        print("logged", flush=True)
        thread.join()
        return waits
    """
    )
    runtime.begin()
    wait_until(lambda: any(isinstance(held.body, ask.GetGlobal) for held in node.held))
    node.hold = False
    (awaited,) = (held for held in node.held if isinstance(held.body, ask.GetGlobal))
    for other in node.held:
        if other is not awaited:
            other.reply.set(None)
    runtime.output("stdout", "logged")
    assert node.value(node.results[0][2]).sum() == 100_000
    awaited.reply.set(node.payload("came"))
    ended = runtime.end()
    assert ended.output == ["came"]


def test_each_thread_gets_its_own_answer_also_when_the_service_comes_back(
    start: Start, node: Any
) -> None:
    node.hold = True
    runtime = start(
        WAITING
        + """
    def main():
        for thread in threads([f"tag-{number}" for number in range(20)]):
            thread.join()
        return sorted(waits)
    """
    )
    runtime.begin()
    wait_until(lambda: len(node.held) == 20)
    node.restart_service(0.1)
    time.sleep(0.2)  # they have come back, and asked again
    for held in reversed(node.held):
        held.reply.set(node.payload(held.body.tag))
    assert runtime.end().output == sorted(f"tag-{number}" for number in range(20))
    assert len(node.requests) == 20


def test_too_many_threads_that_wait_are_told_so(start: Start, node: Any) -> None:
    node.hold = True
    runtime = start(
        WAITING
        + """
    def main():
        made = threads(["x"] * 70)
        while len(waits) < 6:
            time.sleep(0.01)
        print("six came back", flush=True)
        for thread in made:
            thread.join()
        return sorted(set(map(str, waits)))
    """
    )
    runtime.begin()
    runtime.output("stdout", "six came back")
    wait_until(lambda: len(node.held) == 64)
    for held in node.held:
        held.reply.set(node.payload(7))
    node.hold = False
    first, *others = runtime.end().output
    assert first == "7"
    assert others == [
        "ResourceExhaustionError: 64 threads of worker.0 wait for the node, and no more may at a "
        "time: use fewer threads."
    ]


@pytest.mark.parametrize("form", ["script", "object"])
def test_a_thread_that_still_waits_when_its_attempt_ends_is_let_go(
    start: Start, node: Any, form: str
) -> None:
    node.hold = True
    body = {
        "script": """
    def main():
        threads(["never"])
        World().get("now")
    """,
        "object": """
    class Worker:
        def setup(self):
            pass
        def execute(self):
            threads(["never"])
            World().get("now")
            while World().iteration and not any("over" in str(one) for one in waits):
                threading.Event().wait(0.01)
            return list(waits)
    """,
    }[form]
    runtime = start(WAITING + body)
    runtime.begin()
    wait_until(lambda: len(node.held) == 2)
    next(held for held in node.held if held.body.tag == "now").reply.set(node.payload(1))
    runtime.end()
    node.hold = False
    node.globals["never"] = node.globals["now"] = node.payload(2)
    ended = runtime.run(1)
    if form == "object":  # the thread of the attempt before has heard
        assert any("attempt is over" in str(said) for said in ended.output), ended.output


def test_a_lock_is_held_by_one_thread_at_a_time(start: Start) -> None:
    runtime = start("""
        import threading, time
        from manta.light import World
        from manta.light.errors import RequestFailed, Timeout

        def main():
            world, inside, seen, told = World(), [], [], []
            def use():
                with world.lock("file", timeout=20):
                    inside.append(1)
                    seen.append(len(inside))
                    time.sleep(0.02)
                    inside.pop()
            threads = [threading.Thread(target=use) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            def impatient():
                try:
                    with world.lock("file", timeout=0.05):
                        told.append("too soon")
                except Timeout as error:
                    told.append(str(error))
            with world.lock("file"), world.lock("other"):
                thread = threading.Thread(target=impatient)
                thread.start()
                thread.join()
                try:
                    with world.lock("file"):
                        told.append("for ever")
                except RequestFailed as error:
                    told.append(str(error))
            with world.lock("file"):
                return [seen, told]
    """)
    seen, told = runtime.run().output
    assert seen == [1] * 5
    assert told == [
        "Waited 0.05 s in vain: the lock 'file' is held by another thread of worker.0.",
        "This attempt holds the lock 'file' already: it would wait for itself forever.",
    ]


def test_a_signal_handler_may_ask_while_its_thread_waits(start: Start, node: Any) -> None:
    node.hold = True
    runtime = start("""
        import os, signal
        from manta.light import World
        def main():
            heard = []
            signal.signal(signal.SIGUSR1, lambda *_: heard.append(World().get("second")))
            print(os.getpid(), flush=True)
            return [World().get("first"), heard]
    """)
    runtime.begin()
    wait_until(lambda: len(node.held) == 1)
    event = runtime.output("stdout", "")
    import os
    import signal

    os.kill(int(event.lines[0][1]), signal.SIGUSR1)
    wait_until(lambda: len(node.held) == 2)
    for held in reversed(node.held):
        held.reply.set(node.payload(held.body.tag))
    assert runtime.end().output == ["first", ["second"]]


def test_a_signal_that_came_just_before_a_wait_ends_it(start: Start, node: Any) -> None:
    """As here: it is noted, and interrupts nothing."""
    node.hold = True
    runtime = start("""
        import _thread, signal, threading, time
        from manta.light import Local, World

        class Alarm(Exception):
            pass

        def ring(*_):
            raise Alarm

        def note():
            while not (scratch / "now").exists():
                time.sleep(0.001)
            _thread.interrupt_main(signal.SIGALRM)

        scratch = Local().scratch
        signal.signal(signal.SIGALRM, ring)

        def main():
            threading.Thread(target=note, daemon=True).start()
            try:
                World().get("awaited")
            except Alarm:
                return "rung"
    """)
    runtime.begin()
    wait_until(lambda: node.held)
    (runtime.scratch / "now").touch()
    assert runtime.end(20).output == "rung"
