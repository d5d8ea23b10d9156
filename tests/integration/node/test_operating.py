"""`manta_node` where something is wrong: one sentence, the right exit code, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.node.state import StateFolder, Status
from manta.testing import wait_until
from manta.transports.security.keys import make_private_folder
from tests.integration.node.conftest import HOST, Command, port
from tests.support.children import Child


def init(manta_node: Command, name: str, manager_port: int, *arguments: object) -> None:
    where = ("--manager-host", HOST, "--manager-port", manager_port, "--id", "random")
    done = manta_node("config", "init", name, *where, "--allow-unsandboxed", *arguments)
    assert done.returncode == 0, done.stderr


def fails(done: subprocess.CompletedProcess[str], code: Exit, *words: str) -> None:
    """With one error, which is its last line."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert last.endswith(".")
    assert done.stderr.count("Error: ") == 1
    for word in words:
        assert word in last


def test_a_node_that_cannot_start_says_so_the_same_in_front_and_behind(
    lab, manta_node: Command
) -> None:
    init(manta_node, "edge", port(lab.file.nodes))
    for background in ([], ["--background"]):
        start = ("start", "edge", *background)
        fails(manta_node(*start), Exit.DENIED, "MANTA_NODE_TOKEN is not set")
        half = manta_node(*start, MANTA_NODE_TOKEN="half-a-token")
        fails(half, Exit.DENIED, "not a Manta token", "edge.toml, identity.secured_token")
    token = lab.api().create_node_token("lab")
    assert manta_node("start", "edge", "--background", MANTA_NODE_TOKEN=token).returncode == 0
    for background in ([], ["--background"]):
        again = manta_node("start", "edge", *background)
        fails(again, Exit.LOCAL, "The node edge runs already", "`manta_node stop edge`")


def test_what_the_manager_refused_is_still_known_when_the_daemon_has_ended(
    lab, manta_node: Command
) -> None:
    lab.node(1)
    init(manta_node, "edge", port(lab.file.nodes), "--alias", "node-1")
    token = lab.api().create_node_token("lab")
    for background in ([], ["--background"]):
        taken = manta_node("start", "edge", *background, MANTA_NODE_TOKEN=token)
        fails(taken, Exit.REFUSED, "'node-1' is taken")
        status = manta_node("status", "edge")
        assert status.returncode == Exit.DENIED
        assert "The node edge ended: The alias 'node-1' is taken" in status.stdout


def test_a_node_at_the_port_for_users_says_so(lab, manta_node: Command) -> None:
    init(manta_node, "edge", port(lab.file.users))
    token = lab.api().create_node_token("lab")
    started = manta_node("start", "edge", "--background", MANTA_NODE_TOKEN=token)
    assert started.returncode == 0, started.stderr
    remedy = f"set network.manager_port = {port(lab.file.nodes)} in {manta_node.home}/nodes/edge"
    for said in (started.stdout, manta_node("status", "edge").stdout):
        assert "is the manager's port for users: " in said
        assert remedy in said
    assert " WARNING " in manta_node("logs", "edge").stdout


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """A disk of 1 MiB."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_home_that_is_full_or_read_only(lab, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with mounted(home):
        manta_node = Command(home)
        init(manta_node, "edge", port(lab.file.nodes))
        kept = (home / "nodes" / "edge.toml").read_text()
        token = {"MANTA_NODE_TOKEN": lab.api().create_node_token("lab", uses=2)}
        commands = [
            ("start", "edge"),
            ("start", "edge", "--background"),
            ("config", "init", "other"),
            ("config", "edit", "edge"),
        ]
        edit = {"VISUAL": f"{sys.executable} -c pass"}
        subprocess.run(
            ["dd", "if=/dev/zero", f"of={home}/filling", "bs=4k"], capture_output=True, check=False
        )
        for command in commands:
            done = manta_node(*command, **token, **edit)
            fails(done, Exit.LOCAL, str(home), "No space left on device; make room on that disk")
        together = manta_node("cluster", "start", 2, "--config", "edge", **token)
        assert together.returncode == Exit.LOCAL
        assert together.stdout.count("make room on that disk.") == 2

        subprocess.run(["mount", "-o", "remount,ro", home], check=True)
        for command in [*commands, ("config", "delete", "edge", "--yes")]:
            done = manta_node(*command, **token, **edit)
            fails(done, Exit.LOCAL, str(home), "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", home], check=True)

        (home / "filling").unlink()
        assert [path.name for path in (home / "nodes").iterdir()] == ["edge.toml"]
        assert (home / "nodes" / "edge.toml").read_text() == kept
        assert manta_node("start", "edge", "--background", **token).returncode == 0
        assert manta_node("stop", "edge").returncode == 0


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, Exit.INTERRUPTED, "Interrupted."),
        (signal.SIGTERM, Exit.TERMINATED, "Terminated."),
    ],
)
@pytest.mark.parametrize("what", [("start", "edge", "--background"), ("cluster", "start", "2")])
def test_a_signal_ends_the_daemons_that_are_waited_for(
    tmp_path: Path, what: tuple[str, ...], number: int, code: Exit, word: str
) -> None:
    manta_node = Command(tmp_path)
    init(manta_node, "edge", 1)  # where nobody answers: it is waited for
    config = tmp_path / "nodes" / "edge.toml"
    (tmp_path / "nodes" / "default.toml").write_text(config.read_text())
    names = ["edge"] if what[0] == "start" else ["default-1", "default-2"]
    folders = [StateFolder(tmp_path / "state" / "nodes" / name) for name in names]
    with Child(
        [sys.executable, "-m", "manta.node.command", *what],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**manta_node.environment, "MANTA_NODE_TOKEN": some_token()},
    ) as process:
        wait_until(lambda: all(folder.running_pid() for folder in folders))
        process.send_signal(number)
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(60) == code, said
    assert said.split() == [word]
    assert [folder.running_pid() for folder in folders] == [None] * len(folders)


def some_token() -> str:
    """Of a manager that is nowhere."""
    from manta.manager.auth.tokens import TokenAuthority, new_seed
    from manta.protocol.tokens import NODE_AUDIENCE
    from manta.transports.security.keys import KeyPair

    authority = TokenAuthority(new_seed(), KeyPair.generate().public)
    return authority.issue(NODE_AUDIENCE, "cluster", now=time.time(), ttl=900, uses=2)[0]


def test_a_lock_that_a_killed_daemon_left_holds_nobody_up(lab, manta_node: Command) -> None:
    init(manta_node, "edge", port(lab.file.nodes))
    token = lab.api().create_node_token("lab")
    assert manta_node("start", "edge", "--background", MANTA_NODE_TOKEN=token).returncode == 0
    folder = StateFolder(manta_node.home / "state" / "nodes" / "edge")
    pid = folder.running_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    lab.wait_until(lambda: folder.running_pid() is None)
    killed = manta_node("status", "edge", "--json")
    assert json.loads(killed.stdout)["state"] == "killed"
    assert f"(process {pid}) ended without being stopped" in manta_node("status", "edge").stdout
    (folder.path / "lock").write_text("1\n")  # another's process by now
    assert "does not run" in manta_node("stop", "edge").stdout
    assert manta_node("start", "edge", "--background").returncode == 0


def test_a_daemon_that_could_not_start_is_told_from_a_killed_one(manta_node: Command) -> None:
    assert manta_node("config", "init", "edge").returncode == 0
    assert manta_node("start", "edge", "--background").returncode != 0
    found = json.loads(manta_node("status", "edge", "--json").stdout)
    assert found["state"] == "failed"
    assert found["sentence"].startswith("The node edge ended: This node has no token")


def test_a_daemon_that_is_ending_is_said_to_be_stopping_and_waited_for_by_the_next(
    lab, manta_node: Command
) -> None:
    """It says goodbye to its manager first, and holds its folder until all else has ended."""
    init(manta_node, "edge", port(lab.file.nodes))
    token = lab.api().create_node_token("lab")
    folder = StateFolder(manta_node.home / "state" / "nodes" / "edge")
    make_private_folder(folder.path)
    ending = Status(os.getpid(), "edge", "stopped", "The daemon was stopped.", "", "edge", 1.0)
    with ExitStack() as held:
        held.callback(folder.open().release)
        folder.write_status(ending)
        [shown] = json.loads(manta_node("status", "--all", "--json").stdout)
        assert (shown["state"], shown["pid"]) == ("stopping", os.getpid())
        assert "is stopping" in manta_node("doctor", "edge", "--offline").stdout
        with Child(
            [sys.executable, "-m", "manta.node.command", "start", "edge", "--background"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**manta_node.environment, "MANTA_NODE_TOKEN": token},
        ) as starting:
            assert starting.stderr is not None
            assert "is ending; waiting for that" in starting.stderr.readline()
            held.close()
            said = starting.communicate(timeout=60)
    assert starting.returncode == 0, said
    lab.wait_until(lambda: lab.api().get_node("edge").status == "CONNECTED")
