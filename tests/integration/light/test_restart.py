"""The node's service fails and comes back, or the node dies, while attempts run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.actors import Actor, ChildSpec
from manta.light.wire import MessageSocket
from manta.node.task_server import messages as light
from manta.node.task_server import requests as ask
from manta.testing import wait_until
from tests.support.children import Child

Start = Callable[..., Any]


def test_a_computing_attempt_notices_nothing(start: Start, node: Any) -> None:
    runtime = start("""
        import time
        from manta.light import World
        def main():
            print("in", flush=True)
            time.sleep(0.5)
            print("out")
            World().set("x", 1)
            return 5
    """)
    runtime.begin()
    runtime.output("stdout", "in")
    node.restart_service(0.1)
    ended = runtime.end()
    assert ended.output == 5
    assert ended.lines("stdout") == ["in", "out"]
    assert runtime.run(1).output == 5


def test_an_unanswered_request_is_carried_out_once(start: Start, node: Any) -> None:
    node.hold = True
    runtime = start("""
        import numpy as np
        from manta.light import World
        def main():
            World().results.add("small", 1)
            World().results.add("large", np.ones(1_000_000))
            return World().get("x")
    """)
    runtime.begin()
    for pause in (0.0, 0.3, 0.0):
        wait_until(lambda: bool(node.held))
        request = node.held.pop()
        node.restart_service(pause)
        if pause:
            time.sleep(0.2)  # it has come back and asked again
        request.reply.set(node.payload(7) if isinstance(request.body, ask.GetGlobal) else None)
    assert runtime.end().output == 7
    assert [type(body).__name__ for body in node.requests] == [
        "AddResult",
        "AddResult",
        "GetGlobal",
    ]
    np.testing.assert_array_equal(node.value(node.requests[1].value), np.ones(1_000_000))


def test_an_answer_given_while_nobody_serves(start: Start, node: Any) -> None:
    node.hold = True
    runtime = start("from manta.light import World\ndef main():\n    return World().get('x')\n")
    runtime.begin()
    wait_until(lambda: bool(node.held))
    node.light.stop()
    node.light.wait(60)
    node.held[0].reply.set(node.payload(7))
    node.held[0].reply.fail("RequestFailed", "too late")
    node.light = node.start_service()
    assert runtime.end().output == 7


def test_orders_given_before_the_runtime_is_back(start: Start, node: Any) -> None:
    runtime = start("import time\ndef main():\n    print('in')\n    time.sleep(30)\n")
    first = runtime.begin(0)
    runtime.output("stdout", "in")
    node.restart_service()
    node.sessions.tell(light.CancelAttempt(runtime.id, first, "enough"))
    assert runtime.end().error.sentence == "enough"
    runtime.begin(1)
    node.sessions.tell(light.CancelAttempt(runtime.id, first, "it has been read"))
    node.restart_service()
    runtime.output("stdout", "in")


def test_an_attempt_that_dies_while_nobody_serves(start: Start, node: Any) -> None:
    runtime = start("""
        import os, time
        def main():
            print("in", flush=True)
            time.sleep(0.3)
            print("dying", flush=True)
            os._exit(3)
    """)
    runtime.begin()
    runtime.output("stdout", "in")
    node.restart_service(0.5)
    ended = runtime.end()
    assert ended.error.kind == "Exited"
    assert ended.lines("stdout") == ["in", "dying"]


def test_many_restarts(start: Start, node: Any) -> None:
    runtime = start("""
        from manta.light import World
        def main():
            for i in range(300):
                World().results.add("n", i)
                print(i)
    """)
    runtime.begin()
    for _ in range(8):
        time.sleep(0.03)
        node.restart_service(0.01)
    ended = runtime.end()
    assert ended.error is None
    written = [node.value(value) for _, _, value in node.results]
    assert written == list(range(300))
    assert ended.lines("stdout") == [str(i) for i in range(300)]


def test_an_owner_that_was_replaced_gets_what_comes(start: Start, node: Any) -> None:
    runtime = start(
        "import time\ndef main():\n    print('in')\n    time.sleep(0.5)\n    return 1\n"
    )
    runtime.begin()
    runtime.output("stdout", "in")
    node.owner.stop()
    node.owner.wait(60)
    events: list[Any] = []

    class Successor(Actor):
        def receive(self, message: Any) -> None:
            events.append(message)

    time.sleep(0.7)  # the attempt ends while it has no owner
    node.system.spawn(ChildSpec("owner", Successor))
    wait_until(lambda: bool(events))
    assert isinstance(events[-1], light.AttemptExited)


def test_a_failure_of_the_thread_is_the_actors(start: Start, node: Any, caplog: Any) -> None:
    runtime = start("import time\ndef main():\n    time.sleep(0.3)\n    return 1\n")
    runtime.ready()
    runtime.begin()

    def fail(server: Any) -> None:
        raise ZeroDivisionError("injected")

    node.sessions.post(fail)
    reason = node.light.wait(60)
    assert "injected" in str(reason)
    node.light = node.start_service()
    assert runtime.end().output == 1


NODE = """
import sys, time
from pathlib import Path
from manta.actors import Actor, ActorSystem, ChildSpec
from manta.light.wire import MessageSocket
from manta.node.task_server import messages as light
from manta.node.task_server.service import LightService
from manta.node.task_server.sessions import RuntimeSessions
from manta.node.runners.interface import RuntimeSpec
from manta.node.runners.process import ProcessRunner
from manta.protocol.node import Assignment, Instance
from manta.protocol.spec import ModuleSpec
from manta.node.blobs.tiered_depot import TieredDepot
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
class Owner(Actor):
    def receive(self, message):
        pass
folder = Path(sys.argv[1])
system = ActorSystem("node")
owner = system.spawn(ChildSpec("owner", Owner))
depot = TieredDepot(MemoryDepot(1000), FileDepot(folder / "v"), 1000)
def keep_output(instance, lines):
    print(*[text for _, _, text in lines], flush=True)
sessions = RuntimeSessions(depot, folder / "l", keep_output)
service = system.spawn(ChildSpec("light", lambda: LightService(sessions)))
opened = sessions.open("s", system.ref("owner"))
(folder / "scratch").mkdir()
spec = RuntimeSpec("s", folder, Path(sessions.path), opened.token, folder / "scratch", "worker.py")
handle = ProcessRunner().start(spec, print)
instance, module = Instance("swarm", "worker", 0, 0), ModuleSpec("worker")
sessions.tell(light.RunAttempt("s", Assignment(instance, module, "", "", 1), {}))
print(handle.pid, flush=True)
time.sleep(60)
"""

WORKER = """
import os, subprocess, time
def main():
    pids = [os.getpid(), os.getppid()]
    pids.append(subprocess.Popen(["setsid", "sleep", "600"]).pid)
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            os.write(write, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0)
    pids.append(int(os.read(read, 100)))
    print(*pids)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_nothing_outlives_the_nodes_process(tmp_path: Path, number: int) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "node.py").write_text(NODE)
    command = [sys.executable, str(tmp_path / "node.py"), str(tmp_path)]
    with Child(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline())]
        pids += map(int, process.stdout.readline().split())
        assert len(pids) == 5
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        os.kill(process.pid, number)
        process.wait(60)
    wait_until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_an_attempt_that_is_ordered_twice_runs_once(start: Start, node: Any) -> None:
    """Who ordered it cannot know whether the service that failed had heard it."""
    runtime = start("""
        import time
        from manta.light import World
        def main():
            print("in")
            time.sleep(0.3)
            return World().iteration
    """)
    runtime.begin(0)
    runtime.output("stdout", "in")
    runtime.begin(0)
    runtime.begin(1)
    assert [runtime.end().output, runtime.end().output] == [0, 1]


@pytest.mark.parametrize("answered", [True, False])
def test_a_connection_to_the_plane_that_is_asked_for_meanwhile(
    start: Start, node: Any, answered: bool
) -> None:
    node.hold = True
    runtime = start("""
        from manta.light import World
        def main():
            World().broadcast("tag", 7)
    """)
    runtime.begin(direct=True)
    wait_until(lambda: bool(node.held))
    theirs, ours = socket.socketpair()
    with ours:
        ours.settimeout(10)
        if answered:
            node.light.stop()
            node.light.wait(60)
            node.held[0].reply.set(light.Descriptor(theirs.detach()))
            node.light = node.start_service()
        else:
            node.restart_service(0.1)
            node.held[0].reply.set(light.Descriptor(theirs.detach()))
        plane = MessageSocket(ours)
        received = plane.receive()
        assert received is not None
        message, _ = received
        assert (message["k"], message["tag"], message["n"]) == ("say_to_all", "tag", 1)
        plane.send({"k": "answer", "n": 1, "plain": None})
        runtime.end()
    assert [type(body) for body in node.requests] == [ask.OpenExchange]


def test_a_connection_to_the_plane_that_was_lost_on_its_way_is_asked_for_again(
    start: Start, node: Any
) -> None:
    node.hold = True
    runtime = start("""
        import os
        from manta.light.context import usage
        def main():
            channel = usage.context._take()
            channel.exchange({"k": "open_exchange"})
            channel._close()
            channel._number -= 1  # as if the answer had not come
            return os.fstat(channel.exchange({"k": "open_exchange"})).st_ino
    """)
    runtime.begin(direct=True)
    pairs = [socket.socketpair() for _ in range(2)]
    inode = os.fstat(pairs[1][0].fileno()).st_ino
    for theirs, _ in pairs:
        wait_until(lambda: bool(node.held))
        node.held.pop().reply.set(light.Descriptor(theirs.detach()))
    assert runtime.end().output == inode
    assert [type(body) for body in node.requests] == [ask.OpenExchange] * 2
    for _, ours in pairs:
        ours.close()
