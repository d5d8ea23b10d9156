"""`manta_node doctor`: what keeps a node from its manager is told apart, within 5 s."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from manta.console.exit_codes import Exit
from manta.manager.auth.tokens import TokenAuthority, new_seed
from manta.node.config import load
from manta.node.doctor.configuration import examine
from manta.node.doctor.report import Finding
from manta.node.isolation import landlock
from manta.node.state import StateFolder
from manta.protocol.tokens import NODE_AUDIENCE
from manta.testing.transports import RecordingHandler
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.strangers import StrangerLimits
from manta.transports.zeromq.transport import ZmqTransport
from tests.integration.node.conftest import HOST, Command, port


@contextmanager
def unreachable(lab) -> Iterator[tuple[int, str]]:
    with socket.socket() as unused:
        unused.bind((HOST, 0))  # and nobody listens
        yield unused.getsockname()[1], lab.file.public_key


@contextmanager
def wrong_key(lab) -> Iterator[tuple[int, str]]:
    yield port(lab.file.nodes), KeyPair.generate().public


@contextmanager
def denied(lab) -> Iterator[tuple[int, str]]:
    keys = KeyPair.generate()
    transport = ZmqTransport(keys)
    try:
        listener = transport.listen(f"tcp://{HOST}:0", RecordingHandler(), Admission())
        yield port(listener.address), keys.public
    finally:
        transport.close()


@contextmanager
def busy(lab) -> Iterator[tuple[int, str]]:
    keys = KeyPair.generate()
    transport = ZmqTransport(keys)
    try:
        crowded = Admission(guests=True, limits=StrangerLimits(rate=0, burst=0))
        listener = transport.listen(f"tcp://{HOST}:0", RecordingHandler(), crowded)
        yield port(listener.address), keys.public
    finally:
        transport.close()


@contextmanager
def silent(lab) -> Iterator[tuple[int, str]]:
    with socket.socket() as mute:
        mute.bind((HOST, 0))
        mute.listen()
        yield mute.getsockname()[1], lab.file.public_key


SITUATIONS = {
    "unreachable": (unreachable, "start the manager there"),
    "wrong-key": (wrong_key, "does not hold the key"),
    "denied": (denied, "denies this node's key"),
    "busy": (busy, "is busy and cannot admit this node now"),
    "silent": (silent, "hangs, or the network is cut"),
}


@pytest.mark.parametrize("word", SITUATIONS)
def test_what_keeps_a_node_from_its_manager_is_told_apart(
    lab, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    situation, words = SITUATIONS[word]
    monkeypatch.setenv("MANTA_HOME", str(lab.folder / "home"))
    state = StateFolder(lab.folder / "home" / "state" / "nodes" / "edge")
    lab.keys[0].save(state.key_file)
    with situation(lab) as (where, manager_key):
        state.identity_file.write_text(json.dumps({"manager_key": manager_key}))
        state.identity_file.chmod(0o600)
        config = lab.config("edge", network={"manager_port": where})
        (lab.folder / "home" / "nodes").mkdir()
        config.path.rename(lab.folder / "home" / "nodes" / "edge.toml")
        before = contents(lab.folder / "home")
        (finding,) = (one for one in report("edge") if one.check == "manager")
        assert (finding.level, finding.sentence.partition(":")[0]) == ("fault", word)
        assert finding.remedy
        assert contents(lab.folder / "home") == before, "the doctor changes nothing"

        began = time.monotonic()
        node = lab.start(config, state)
        status = lab.wait_for(state, word)
        assert time.monotonic() - began < 5.0
        assert words in status.sentence
        (told,) = (one for one in report("edge", offline=True) if one.check == "daemon")
        assert told.level == "fault"
        assert told.sentence.startswith(word)
        node.stop()


def report(name: str, *, offline: bool = False) -> list[Finding]:
    folder = StateFolder(Path(os.environ["MANTA_HOME"]) / "state" / "nodes" / name)
    return list(examine(name, folder, offline=offline))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


class Clinic:
    """A home with one configuration, looked at in this process."""

    def __init__(self, lab) -> None:
        self.lab = lab
        self.home = lab.folder / "home"
        self.state = StateFolder(self.home / "state" / "nodes" / "edge")

    def configure(self, token: str = "", *, manager_port: int = 0, more: str = "") -> None:
        path = self.home / "nodes" / "edge.toml"
        path.parent.mkdir(exist_ok=True, mode=0o700, parents=True)
        path.write_text(
            f"[identity]\nalias = 'edge'\nid = 'random'\nsecured_token = '{token}'\n"
            f"[network]\nmanager_host = '{HOST}'\n"
            f"manager_port = {manager_port or port(self.lab.file.nodes)}\n"
            f"{more or '[containers]'}\nallow_unsandboxed = true\n"
        )
        path.chmod(0o600)

    def levels(self, check: str, *, offline: bool = False) -> list[tuple[str, str]]:
        found = [one for one in report("edge", offline=offline) if one.check == check]
        assert all(one.remedy for one in found if one.level != "ok"), found
        return [(str(one.level), one.sentence) for one in found]


@pytest.fixture
def clinic(lab, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    monkeypatch.setenv("MANTA_HOME", str(lab.folder / "home"))
    return Clinic(lab)


def test_tokens(lab, clinic: Clinic) -> None:
    api = lab.api()
    clinic.configure(api.create_node_token("lab", uses=2))
    ((level, sentence), said) = clinic.levels("token")
    assert (level, said[0]) == ("ok", "ok")
    assert "made for 2 node(s)" in sentence
    assert not clinic.state.path.exists(), "nothing was made, and the token is whole"
    with ExitStack() as stack:
        folder = clinic.state
        config = clinic.home / "nodes" / "edge.toml"
        once = api.create_node_token("lab")
        clinic.configure(once)
        stack.callback(lab.start(load(config), folder).stop)
        lab.wait_for(folder, "connected")
        # It runs: the doctor must not speak with the node's own key beside it.
        assert clinic.levels("daemon")[0][0] == "ok"
        assert clinic.levels("manager")[0][0] == "ok"
        assert clinic.levels("identity") == []
        assert lab.wait_for(folder, "connected")
        assert len([n for n in api.list_nodes("lab") if n.status == "CONNECTED"]) == 1
    assert clinic.levels("identity")[0][0] == "ok"
    assert clinic.levels("token") == [("ok", "The node has enrolled: its own key is enough.")]
    api.remove_node("edge")
    assert clinic.levels("identity") == [("fault", "The manager has removed this node.")]

    other = TokenAuthority(new_seed(), KeyPair.generate().public)
    clinic.configure(other.issue(NODE_AUDIENCE, "c", now=time.time(), ttl=900)[0])
    assert "another manager" in clinic.levels("token", offline=True)[0][1]
    assert clinic.levels("manager")[0][1].startswith("wrong-key")

    (clinic.state.identity_file).unlink()
    clinic.configure(once)
    assert [level for level, _ in clinic.levels("token")] == ["ok", "fault"]
    assert "used up" in clinic.levels("token")[1][1]
    authority = lab.manager.context.authority
    clinic.configure(authority.issue(NODE_AUDIENCE, "c", now=time.time() - 2000, ttl=900)[0])
    assert "expired" in clinic.levels("token", offline=True)[0][1]
    clinic.configure("nonsense")
    assert "not a Manta token" in clinic.levels("token")[0][1]
    clinic.configure("")
    assert "has no token" in clinic.levels("token")[0][1]


def test_the_port_for_users_and_the_clock(lab, clinic: Clinic, monkeypatch) -> None:
    clinic.configure(lab.api().create_node_token("lab"), manager_port=port(lab.file.users))
    level, sentence = clinic.levels("manager")[0]
    assert level == "fault"
    assert "is the manager's port for users" in sentence
    assert clinic.levels("clock")[0][0] == "ok"
    late = SimpleNamespace(time=lambda: time.time() + 100)
    monkeypatch.setattr("manta.node.doctor.manager.time", late)
    level, sentence = clinic.levels("clock")[0]
    assert level == "warning"
    assert "100 s behind" in sentence


def test_what_lies_on_this_machine(lab, clinic: Clinic, monkeypatch) -> None:
    (lab.folder / "here.csv").write_text("1,2\n")
    clinic.configure(
        more=f"[datasets.mappings]\nhere = '{lab.folder}/here.csv'\ngone = '/nowhere/x'\n"
        "[resources]\nreserve_memory_mb = 100000000\n[containers]\nrunner = 'docker'\n"
    )
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    found = {(check.check, str(check.level)) for check in report("edge", offline=True)}
    expected = {"memory", "isolation", "datasets", "token"}
    assert {(check, "fault") for check in expected} <= found
    assert ("datasets", "ok") in found
    lab.keys[0].save(clinic.state.key_file)
    assert clinic.levels("secrets")[0][0] == "ok"
    clinic.state.key_file.chmod(0o644)
    level, sentence = clinic.levels("secrets")[0]
    assert level == "fault"
    assert "open to other users" in sentence
    with answering(lab.folder / "e.sock", b"HTTP/1.0 404 Not Found\r\n\r\n") as where:
        monkeypatch.setenv("DOCKER_HOST", where)
        level, sentence = clinic.levels("isolation")[0]
        assert level == "fault"
        assert f"what answers at {where} is no container engine" in sentence
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    level, sentence = clinic.levels("isolation")[0]
    assert level == "fault"
    assert "a node needs an engine of its own machine" in sentence


def test_what_the_kernel_alone_can_do(lab, clinic: Clinic, monkeypatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setenv("PATH", str(lab.folder))
    monkeypatch.setattr(landlock, "gaps", lambda _: ())
    clinic.configure(more="[containers]\nrunner = 'auto'\n")
    told = (
        'Tasks are isolated by landlock; containers.runner is "auto". They are not by a stronger '
        "level: bubblewrap is not installed (apt-get install bubblewrap)."
    )
    assert clinic.levels("isolation") == [("ok", told)]
    monkeypatch.setattr(landlock, "gaps", lambda _: ("TCP is not refused",))
    level, sentence = clinic.levels("isolation")[0]
    assert level == "warning"
    assert sentence == f"{told} This kernel leaves open: TCP is not refused."
    monkeypatch.setattr(landlock, "available", lambda: 0)
    level, sentence = clinic.levels("isolation")[0]
    assert level == "warning"
    assert "Tasks are isolated by limits" in sentence
    assert "all that this user can: bubblewrap is not installed" in sentence
    assert "and the kernel has no Landlock" in sentence


def test_what_a_task_is_held_to_is_told_with_what_nothing_limits(clinic: Clinic) -> None:
    clinic.configure(more="[resources]\nscratch_mb = 3072\n[containers]")
    told = (
        "A task's scratch folder takes up to 3.0 GiB. Nothing limits what a task reads and writes "
        "of the disk, and sends and receives, in a second."
    )
    assert clinic.levels("limits", offline=True) == [("ok", told)]


def nested(setup: str, manta_node: Command, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, by a user of namespaces of its own that `setup` has prepared."""
    shell = ("sh", "-ec", f'{setup}; exec "$@"', "sh")
    command = (sys.executable, "-m", "manta.node.command", *arguments)
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", *shell, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**manta_node.environment, "DOCKER_HOST": "unix:///nowhere/docker.sock"},
    )


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    assert done.stdout, done.stderr
    return {one["check"]: one for one in json.loads(done.stdout)["findings"]}


def test_where_the_kernel_has_switched_user_namespaces_off_a_weaker_level_is_taken(
    manta_node: Command,
) -> None:
    assert manta_node("config", "init", "edge").returncode == 0
    doctor = ("doctor", "edge", "--offline", "--json")
    off = "echo 0 > /proc/sys/user/max_user_namespaces"
    allowed = findings(nested("true", manta_node, *doctor))["isolation"]
    assert "Tasks are isolated by bwrap" in allowed["sentence"]
    refused = findings(nested(off, manta_node, *doctor))["isolation"]
    assert "Tasks are isolated by landlock" in refused["sentence"]
    assert "not by a stronger level: bubblewrap cannot make a sandbox" in refused["sentence"]
    config = manta_node.home / "nodes" / "edge.toml"
    config.write_text(config.read_text() + '\n[containers]\nrunner = "bwrap"\n')
    wanted = findings(nested(off, manta_node, *doctor))["isolation"]
    assert wanted["level"] == "fault"
    assert "user namespaces have to be allowed for this user" in wanted["sentence"]
    assert "user.max_user_namespaces" in wanted["sentence"]


def test_a_state_folder_that_is_mounted_noexec_or_read_only_is_told(manta_node: Command) -> None:
    assert manta_node("config", "init", "edge").returncode == 0
    (state := manta_node.home / "state").mkdir(mode=0o700)
    doctor = ("doctor", "edge", "--offline", "--json")

    def disk(options: str) -> dict[str, str]:
        mount = f"mount -t tmpfs -o mode=700,size=2G,{options} none {state}"
        return findings(nested(mount, manta_node, *doctor))["disk"]

    assert disk("exec")["level"] == "ok"
    noexec = disk("noexec")
    assert noexec["level"] == "warning"
    assert f"{state} is mounted noexec" in noexec["sentence"]
    read_only = disk("ro")
    assert read_only["level"] == "fault"
    assert f"{state} is mounted read-only" in read_only["sentence"]


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[str]:
    """A socket that says the same to everybody."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with suppress(OSError):  # closed
                while True:
                    with listener.accept()[0] as guest:
                        guest.recv(1024)
                        guest.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_command(manta_node: Command) -> None:
    done = manta_node("doctor", "edge")
    assert done.returncode == Exit.LOCAL
    assert "-> Make one with `manta_node config init edge`." in done.stdout
    assert not (manta_node.home / "state").exists()
    assert manta_node("config", "init", "edge", "--allow-unsandboxed").returncode == 0
    shown = json.loads(manta_node("doctor", "edge", "--offline", "--json").stdout)
    assert shown["ok"] is False
    (token,) = (one for one in shown["findings"] if one["check"] == "token")
    assert "MANTA_NODE_TOKEN is not set" in token["sentence"]
    deep = manta_node("doctor", "edge", MANTA_HOME=str(manta_node.home / ("x" * 80)))
    assert "of the node's socket has" in deep.stdout
