"""Users, nodes and managers of different versions, over real sockets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import zmq

from manta import UserAPI
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.errors import VersionMismatch
from manta.cli.local.cluster import HOST, LocalCluster
from manta.console.exit_codes import Exit
from manta.testing.clusters import running
from manta.transports.frames import Bye, Kind
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.security.zap import ZapServer
from manta.transports.zeromq.sockets import SocketFactory
from tests.support.lab import Lab
from tests.unit.test_troubleshooting import quoted

ROOT = Path(__file__).parents[3]


def test_another_major_version_is_refused_by_a_sentence_that_names_both() -> None:
    context, keys = zmq.Context(), KeyPair.generate()
    zap = ZapServer(context)
    zap.start()
    zap.register("home", Admission(guests=True))
    factory = SocketFactory(context, keys, zap=zap)
    router = factory.server(zmq.ROUTER, "home")
    port = int(factory.bind(router, f"tcp://{HOST}:0").rpartition(":")[2])
    target = Target(HOST, port, "test", server_key=keys.public)
    try:
        with UserAPI.over(Session(target, KeyPair.generate())) as api:
            waiting = api.connection.session.up(20.0)
            name = router.recv_multipart()[0]
            router.send_multipart([name, bytes((2, 3, Kind.BYE, Bye.VERSION)) + b"and more"])
            with pytest.raises(VersionMismatch) as refused:
                waiting.result(20)
            assert "(2.3, and this side 1.0): update Manta" in str(refused.value)
            with pytest.raises(VersionMismatch, match=r"2\.3"):
                api.list_clusters()
    finally:
        router.close(0)
        zap.stop()
        context.term()


def test_another_minor_version_interoperates(tmp_path: Path) -> None:
    with running(LocalCluster, 0) as cluster:
        cluster.keys.save(tmp_path / "key")
        code = f"""
            from manta.transports import frames
            frames.MINOR = 7
            from manta import UserAPI
            from manta.apis.connect.profiles import Target
            from manta.apis.connect.session import Session
            from manta.transports.security.keys import KeyPair
            key = {cluster.manager_keys.public!r}
            target = Target({HOST!r}, {cluster.user_port}, "t", server_key=key)
            with UserAPI.over(Session(target, KeyPair.load({str(tmp_path / "key")!r}))) as api:
                print([found.status for found in api.list_clusters()])
            """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("['RUNNING']\n", "")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What makes a process one of Manta's next major version: the same code, and its number."""
    top = tmp_path_factory.mktemp("other")
    for folder in ("manta", "node", "light", "transports", "actors"):
        # Compiled files come and go while others run from this tree.
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, top / folder, symlinks=True, ignore=ignore)
    frames = top / "transports" / "frames.py"
    changed = frames.read_text().replace("\nMAJOR = 1\n", "\nMAJOR = 2\n")
    assert changed != frames.read_text()
    frames.write_text(changed)
    return {"PYTHONPATH": str(top), "PYTHONSAFEPATH": "1"}  # and not the working folder's


@pytest.mark.parametrize("newer", ["manager", "users and nodes"])
def test_processes_of_another_major_version_are_told_so(
    tmp_path: Path, other: dict[str, str], newer: str
) -> None:
    theirs, ours = (other, {}) if newer == "manager" else ({}, other)
    numbers = "(2.0, and this side 1.0)" if newer == "manager" else "(1.0, and this side 2.0)"
    home = tmp_path / "home"
    lab = Lab(home)
    names = ("--node-port", "--user-port", "--bulk-port")
    where = [part for pair in zip(names, lab.ports, strict=True) for part in pair]
    background = ("manager", "start", "--host", "127.0.0.1", *where, "--background")
    started = lab.attempt(*background, **theirs)
    assert started.returncode == 0, started.stderr
    try:
        (password,) = re.findall(r"password\s+(\S+)", started.stdout)
        admin = ("sign-in", "--email", "admin@localhost", "--password-stdin")
        assert lab.attempt(*admin, said=password, **theirs).returncode == 0
        lab("cluster", "create", "lab", **theirs)
        token = lab("node", "token", "lab", **theirs)

        for command in (("ps",), admin):
            done = lab.attempt(*command, said=password, **ours)
            assert done.returncode == Exit.UNREACHABLE
            assert is_quoted("speaks another major version of the protocol", done.stderr)
            assert numbers in done.stderr

        node = tmp_path / "node"
        config = (
            "init",
            "edge",
            "--allow-unsandboxed",
            "--manager-host",
            "127.0.0.1",
            "--manager-port",
            lab.ports[0],
        )
        words = {**ours, "MANTA_HOME": str(node), "MANTA_NODE_TOKEN": token}
        assert manta_node("config", *config, **words).returncode == 0
        manta_node("start", "edge", "--background", **words)
        try:
            status = manta_node("status", "edge", **words)
            assert status.returncode == Exit.UNREACHABLE
            assert "version since" in status.stdout
            assert "speaks another major version of the protocol" in status.stdout
            doctor = manta_node("doctor", "edge", **words)
            assert "speaks another major version of the protocol" in doctor.stdout
        finally:
            manta_node("stop", "edge", **words)
    finally:
        assert lab.attempt("manager", "stop").returncode == 0


def is_quoted(words: str, said: str) -> bool:
    """As a message that the page about troubles has."""
    return any(words in message for message in quoted()) and words in said


def manta_node(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "manta.node.command", *map(str, words)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
