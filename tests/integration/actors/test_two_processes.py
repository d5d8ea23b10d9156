"""Real processes over CURVE: the documented example, and a process that is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from manta.actors import Actor, ActorDead, ActorSystem, ChildSpec, Down, ExitKind, Unreachable
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport

ROOT = Path(__file__).parents[3]


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "actors.md").read_text()
    (code,) = re.findall(r"```python[^\n]*\n(.*?)```", text, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 40
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.stdout == "4 0.25\n0 ActorCrashed\n2 0.5\n", done.stderr
    assert "ChildExited(home:kitchen/cake" in done.stderr
    assert "ZeroDivisionError" in done.stderr


SERVER = """
import sys
from manta.actors import ActorSystem, ChildSpec
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport
from tests.benchmarks.ask_round_trip import Echo

system = ActorSystem("server", transport=ZmqTransport(KeyPair.from_secret(sys.argv[1])))
system.spawn(ChildSpec("echo", Echo))
listener = system.listen("tcp://127.0.0.1:0", Admission([sys.argv[2]]), published=["echo"])
print(listener.address, flush=True)
sys.stdin.read()
system.stop()
"""


class Watcher(Actor):
    def __init__(self, downs: list[Down]) -> None:
        self.downs = downs

    def receive(self, message: Any) -> Any:
        if isinstance(message, Down):
            self.downs.append(message)
        else:
            self.monitor(message)


@pytest.mark.parametrize("how", ["killed", "stopped in good order"])
def test_a_remote_monitor_and_a_process_that_ends(how: str) -> None:
    from tests.benchmarks.ask_round_trip import Ping, Pong

    here, there = KeyPair.generate(), KeyPair.generate()
    with (
        subprocess.Popen(
            [sys.executable, "-c", SERVER, there.secret, here.public],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process,
        ActorSystem("client", transport=ZmqTransport(here)) as system,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        downs: list[Down] = []
        ref = system.dial(address, there.public).wait_up(timeout=60).ref("echo")
        system.spawn(ChildSpec("watcher", lambda: Watcher(downs))).ask(ref, timeout=60)
        assert ref.ask(Ping(1), timeout=60) == Pong(1)
        began = time.monotonic()
        if how == "killed":
            os.kill(process.pid, signal.SIGKILL)
        else:
            process.stdin.close()
        while not downs:
            assert time.monotonic() - began < 10
            time.sleep(0.001)
        with pytest.raises((Unreachable, ActorDead)):  # the actor goes before its process does
            ref.ask(Ping(2), timeout=5)
        process.wait()
        time.sleep(0.1)
    (down,) = downs
    assert down.ref == ref
    if how == "killed":
        assert down.reason.kind is ExitKind.DISCONNECTED
    else:
        assert down.reason.kind in (ExitKind.SHUTDOWN, ExitKind.DISCONNECTED)
