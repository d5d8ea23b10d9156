"""The quickstart's way: manager, nodes and user apart, with passwords and tokens."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.apis.connect import profiles
from manta.console.exit_codes import Exit
from manta.testing import wait_until
from tests.support.children import Child
from tests.support.ports import free_ports

ROOT = Path(__file__).parents[3]
HELLO = ROOT / "examples" / "hello" / "swarm.py"


class Terminal:
    """Commands in one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.nodes, self.users, self.bulk = free_ports()
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MANTA_")},
            "MANTA_HOME": str(home),
            "MANTA_PORT": str(self.users),
        }

    def __call__(
        self,
        line: str,
        expected: int = 0,
        stdin: str = "",
        program: str = "manta",
        **environment: str,
    ) -> str:
        done = subprocess.run(
            [sys.executable, "-m", program, *shlex.split(line)],
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == expected, f"{line}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def node(self, line: str, expected: int = 0, **environment: str) -> str:
        return self(line, expected, program="manta.node.command", **environment)

    def start_manager(self) -> str:
        ports = f"--node-port {self.nodes} --user-port {self.users} --bulk-port {self.bulk}"
        return self(f"manager start --background --host 127.0.0.1 {ports}")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "home")
    yield terminal
    for name in ("a", "b"):
        subprocess.run(
            [sys.executable, "-m", "manta.node.command", "stop", name],
            env=terminal.environment,
            capture_output=True,
            check=False,
        )
    subprocess.run(
        [sys.executable, "-m", "manta", "manager", "stop"],
        env=terminal.environment,
        capture_output=True,
        check=False,
    )


def signed_in(terminal: Terminal) -> None:
    said = terminal.start_manager()
    (password,) = re.findall(r"password\s+(\S+)", said)
    terminal("sign-in --email admin@localhost --password-stdin", stdin=f"{password}\n")


def test_the_way_by_hand(terminal: Terminal) -> None:
    signed_in(terminal)
    assert "is RUNNING" in terminal("cluster create lab")
    token = terminal("node token lab --uses 2").strip()
    for name in ("a", "b"):
        terminal.node(
            f"config init {name} --manager-host 127.0.0.1 --manager-port {terminal.nodes} "
            f"--allow-unsandboxed --label room=lab-{name}",
            MANTA_NODE_TOKEN=token,
        )
        terminal.node(f"start {name} --background", MANTA_NODE_TOKEN=token)
    wait_until(lambda: terminal("node list lab").count(" CONNECTED ") >= 2)

    said = terminal(f"deploy --cluster lab --follow {HELLO}")
    assert "Hello from node 1 of 2" in said
    assert "COMPLETED: ran 1 iteration" in said
    (swarm,) = json.loads(terminal("ps --json"))
    assert (swarm["name"], swarm["status"]) == ("hello", "COMPLETED")
    short = swarm["swarm_id"][:6]
    assert "Hello from node 2 of 2" in terminal(f"logs {short}")
    assert "has no results" in terminal(f"results {short}", Exit.NOT_FOUND)
    explained = terminal(f"explain {short}")
    assert "greeter.1" in explained
    assert re.search(r"TASK +NODE +ISOLATION +LABELS\n", explained)
    assert re.search(r" a +\w+ +room=lab-a\n", explained)
    assert json.loads(terminal(f"explain {short} --json"))["placements"]

    # An ordinary stop and start: all is there, and the nodes come back unaided.
    terminal("manager stop")
    assert "No manager answers" in terminal("ps", Exit.UNREACHABLE)
    assert "password" not in terminal.start_manager()
    wait_until(lambda: terminal("node list lab").count(" CONNECTED ") >= 2)
    assert json.loads(terminal("ps --json")) == [swarm]
    assert "COMPLETED" in terminal(f"deploy --cluster lab --follow {HELLO}")
    assert "hello" in terminal("ps")
    assert "cores" in terminal("node list lab").lower()
    assert "isolation" in terminal("node show a")


def test_refusals_at_the_terminal(terminal: Terminal, tmp_path: Path) -> None:
    signed_in(terminal)
    terminal("cluster create lab")
    assert "lab" in terminal("cluster create lab", Exit.REFUSED)
    assert "gone" in terminal("node list gone", Exit.NOT_FOUND)
    assert "gone" in terminal("logs gone", Exit.NOT_FOUND)
    assert "gone" in terminal("stop gone", Exit.NOT_FOUND)
    said = terminal(f"deploy --cluster lab {HELLO}", Exit.UNPLACEABLE)
    assert said.startswith("Error: ")
    assert "greeter" in said
    assert "No swarms yet" in terminal("ps")
    wrong = terminal("sign-in --email admin@localhost --password-stdin", Exit.DENIED, "wrong\n")
    assert "Error: " in wrong
    node_token = terminal("node token lab").strip()
    assert "for nodes" in terminal("ps", Exit.DENIED, MANTA_TOKEN=node_token)
    assert "already" in terminal("manager start", Exit.LOCAL)
    assert "admin@localhost" in terminal("token use", stdin=token_of(terminal))
    stranger = {"MANTA_HOME": str(tmp_path / "stranger"), "MANTA_TOKEN": token_of(terminal)}
    assert "key" in terminal("ps", Exit.DENIED, **stranger)
    terminal("cluster rm lab --yes")
    assert "No clusters yet" in terminal("cluster list")


def token_of(terminal: Terminal) -> str:
    token = profiles.load_token(terminal.home, "default", {})
    assert token is not None
    return token


def test_a_following_that_is_interrupted_leaves_the_swarm(
    terminal: Terminal, tmp_path: Path
) -> None:
    signed_in(terminal)
    terminal("cluster create lab")
    path = tmp_path / "swarm.py"
    path.write_text(HELLO.read_text())
    command = [sys.executable, "-m", "manta", "deploy", "--wait", "--follow"]
    with Child(
        [*command, "--cluster", "lab", str(path)],
        env=terminal.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        swarm = process.stdout.readline().strip()
        time.sleep(0.3)
        process.send_signal(2)
        _, said = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED
    assert "Traceback" not in said
    (found,) = json.loads(terminal("ps --json"))
    assert (found["swarm_id"], found["status"]) == (swarm, "ACTIVE")
    assert "STOPPED" in terminal(f"stop {swarm}")
    assert terminal("deploy --cluster lab --follow gone.py", Exit.INVALID_SWARM)
