"""What a user does wrong, from the command line: one sentence, its exit code, nothing left behind.

What nodes are refused is in `node/test_joining.py` and `node/test_daemon.py`, lost nodes in
`faults/`, what tasks do wrong in `tasks/test_bad_tasks.py` and `cli/test_run.py`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.errors import ManagerUnreachable
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.console.exit_codes import Exit
from manta.manager.auth.tokens import TokenAuthority
from manta.protocol.tokens import peek
from manta.testing.clusters import client, running
from manta.transports.security.keys import KeyPair
from tests.support.children import Child
from tests.support.lab import Lab, manta
from tests.support.ports import free_ports

HELLO = Path(__file__).parents[3] / "examples" / "hello" / "swarm.py"
SWARM = """
from manta import Module, Swarm, Task

class Tested(Swarm):
    def execute(self):
        return Task(Module({code!r}, name="task", datasets={datasets!r}))()
"""


def sentence(done: subprocess.CompletedProcess[str], code: Exit) -> str:
    """The one line of a refusal."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Lab]]:
    """Two managers that know nothing of each other; the first has a cluster without nodes."""
    both = Lab(tmp_path_factory.mktemp("one")), Lab(tmp_path_factory.mktemp("two"))
    try:
        for lab in both:
            started = lab.start()
            assert started.returncode == 0, started.stderr
            lab.sign_in(started.stdout)
        both[0]("cluster", "create", "lab")
        yield both
    finally:
        for lab in both:
            lab.attempt("manager", "stop")


def expired(lab: Lab) -> str:
    seed = bytes.fromhex((lab.home / "manager" / "signing.key").read_text())
    claims = peek(lab.token)
    authority = TokenAuthority(seed, claims.manager_key)
    then = time.time() - 7200
    return authority.issue(
        claims.audience, claims.subject, now=then, ttl=3600, bound_to=claims.bound_to or ""
    )[0]


def test_tokens_of_users(labs: tuple[Lab, Lab], tmp_path: Path) -> None:
    lab, other = labs
    stranger = {"MANTA_HOME": tmp_path / "stranger"}
    for token, environment, code, words in [
        ("", stranger, Exit.DENIED, "Not signed in to localhost:"),
        ("nonsense", {}, Exit.DENIED, "not a Manta token"),
        (expired(lab), {}, Exit.DENIED, "expired 1 h ago"),
        (lab.token[:-6] + "AAAAAA", {}, Exit.DENIED, "not signed by this manager"),
        (lab("node", "token", "lab"), {}, Exit.DENIED, "for nodes, not for users"),
        (lab.token, stranger, Exit.DENIED, "bound to another key"),
        (other.token, {}, Exit.UNREACHABLE, "does not hold the manager's key"),
    ]:
        refused = lab.attempt("ps", MANTA_TOKEN=token, **environment)
        assert words in sentence(refused, code)
    assert lab("ps").startswith("No swarms yet")


def test_ways_to_the_wrong_manager(labs: tuple[Lab, Lab], tmp_path: Path) -> None:
    lab, other = labs
    environment = {"MANTA_HOME": tmp_path / "new"}
    sign_in = ("sign-in", "--email", "a@b.c", "--password-stdin", "--port", lab.users)
    wrong = lab.attempt(*sign_in, f"--server-key={other.key()}", said="x", **environment)
    assert "does not hold the manager's key" in sentence(wrong, Exit.UNREACHABLE)
    none = lab.attempt(*sign_in, said="x", **environment)
    assert "with the manager's server key" in sentence(none, Exit.DENIED)
    nobody = lab.attempt("ps", MANTA_PORT=free_ports()[0])
    assert "`manta manager start`" in sentence(nobody, Exit.UNREACHABLE)


def test_what_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another service, a manager's other port, a manager that hangs: the wait has an end."""
    monkeypatch.setattr("manta.apis.connect.session.FIRST_CONTACT", 5.0)
    keys = KeyPair.generate()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        target = Target("127.0.0.1", mute.getsockname()[1], "test", server_key=keys.public)
        with (
            UserAPI.over(Session(target, keys)) as api,
            pytest.raises(ManagerUnreachable, match=r"says nothing.*check that this is its port"),
        ):
            api.list_clusters()


@pytest.mark.parametrize("background", [False, True])
def test_a_port_that_is_taken_at_the_first_start(tmp_path: Path, background: bool) -> None:
    lab = Lab(tmp_path / "home")
    with socket.create_server(("127.0.0.1", lab.ports[2])):
        failed = lab.start(background=background)
    assert failed.returncode == Exit.LOCAL
    assert f":{lab.ports[2]}: Address already in use; stop what listens there" in failed.stderr
    assert "Traceback" not in failed.stderr
    # Who tries again is told the first user's password all the same.
    try:
        lab.sign_in(lab.start().stdout)
    finally:
        lab.attempt("manager", "stop")


@pytest.mark.parametrize(
    ("change", "code"), [("MAJOR += 1", Exit.UNREACHABLE), ("MINOR += 1", Exit.OK)]
)
def test_a_manager_of_another_version(tmp_path: Path, change: str, code: Exit) -> None:
    lab = Lab(tmp_path / "home")
    program = f"""
import sys
from manta.transports import frames
frames.{change}
from manta.manager.daemon import main
sys.exit(main())
"""
    addresses = zip(("--nodes", "--users", "--bulk"), lab.ports, strict=True)
    where = [word for name, port in addresses for word in (name, f"tcp://127.0.0.1:{port}")]
    with Child(
        [sys.executable, "-c", program, "--home", str(lab.home / "manager"), *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as manager:
        assert manager.stdout is not None
        (password,) = re.findall(r"password\s+(\S+)", manager.stdout.read())
        sign_in = ("sign-in", "--email", "admin@localhost", "--password-stdin")
        done = lab.attempt(*sign_in, said=password)
        manager.terminate()
    assert done.returncode == code, done.stderr
    if code is not Exit.OK:
        said = sentence(done, code)
        assert "speaks another major version of the protocol" in said
        assert "update Manta here or there" in said


def swarm_file(folder: Path, code: str, datasets: list[str] | None = None) -> Path:
    path = folder / "swarm.py"
    path.write_text(SWARM.format(code=code + "\n", datasets=datasets))
    return path


def test_no_node_is_connected(labs: tuple[Lab, Lab]) -> None:
    lab, _ = labs
    refused = lab.attempt("deploy", "--cluster", "lab", HELLO)
    assert "no node is connected; start a node" in sentence(refused, Exit.UNPLACEABLE)
    assert lab("ps").startswith("No swarms yet")


def test_a_module_with_a_syntax_error(labs: tuple[Lab, Lab], tmp_path: Path) -> None:
    path = swarm_file(tmp_path, "def broken(:")
    for refused in (
        labs[0].attempt("deploy", "--cluster", "lab", path),
        manta("run", path, TMPDIR=tmp_path),
    ):
        said = sentence(refused, Exit.INVALID_SWARM)
        assert "Module 'task' has a syntax error" in said
        assert "line 1" in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["swarm.py"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys\ndef main():\n    sys.exit(3)", "task.0 called sys.exit(3)."),
        ("import sys\nsys.exit('no')\ndef main(): ...", "Importing task.py called sys.exit('no')."),
        (
            "from manta.light import World\ndef main():\n"
            "    World().results.add('r', {'model': {'layer3': World}})",
            """value["model"]["layer3"] is of type""",
        ),
    ],
)
def test_a_task_that_fails(tmp_path_factory: pytest.TempPathFactory, code: str, words: str) -> None:
    folder = tmp_path_factory.mktemp("t")  # short: sockets end at 107 characters
    done = manta("run", swarm_file(folder, code), "--nodes", 1, TMPDIR=folder)
    assert done.returncode == Exit.SWARM_FAILED, done.stderr
    (line,) = re.findall(r"^task failed on .*$", done.stdout, re.MULTILINE)
    assert words in line
    assert "node-1" in line
    assert "/manta/" not in done.stdout
    assert [entry.name for entry in folder.iterdir()] == ["swarm.py"]


HANDSHAKE = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "random": os.urandom(1 << 16),
    "zeros": bytes(1 << 20),
    "half a greeting": HANDSHAKE[:20],
    "a command without end": HANDSHAKE + b"\x06" + (1 << 62).to_bytes(8) + os.urandom(1 << 20),
    "a message without end": HANDSHAKE + b"\x02" + (1 << 40).to_bytes(8) + bytes(1 << 20),
    "no encryption": HANDSHAKE.replace(b"CURVE", b"NULL\0") + b"\x04\x05hello\x00\x05hello",
}


@contextmanager
def thrown(ports: list[int]) -> Iterator[None]:
    """All the garbage at all the ports, again and again."""
    stop = threading.Event()

    def throw(port: int) -> None:
        while not stop.is_set():
            for data in GARBAGE.values():
                with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
                    peer.settimeout(0.1)
                    try:
                        peer.sendall(data)
                        while peer.recv(1 << 16):
                            pass
                    except OSError:
                        continue  # hung up, or waits for more

    threads = [threading.Thread(target=throw, args=(port,)) for port in ports]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


ROUNDS = """
import numpy
from manta.light import World

def main():
    world = World()
    world.results.add("large", numpy.full(200_000, world.iteration))
    if world.iteration < 9:
        world.schedule_next_iter()
"""


class Rounds(Swarm):
    def execute(self) -> Task:
        return Task(Module(ROUNDS, name="task"), method="any")()


def test_garbage_at_all_three_ports_of_a_cluster_at_work() -> None:
    with running(LocalCluster, 1) as cluster, client(cluster) as api:
        file = json.loads((cluster.folder / "manager" / "manager.json").read_text())
        ports = [int(file[name].rpartition(":")[2]) for name in ("nodes", "users", "bulk")]
        before = memory(file["pid"])
        with thrown(ports):
            deployed = api.deploy_swarm(CLUSTER, Rounds())
            ended = api.wait_swarm(deployed, timeout=60)
            assert ended.status == "COMPLETED", ended.reason
            found = api.get_swarm_results(deployed, "large")
            assert [int(result.value[-1]) for result in found] == list(range(10))
        assert memory(file["pid"]) - before < 64 << 20
        assert "Traceback" not in (cluster.log_folder / "manager.log").read_text()


def memory(pid: int) -> int:
    """What a process holds, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
