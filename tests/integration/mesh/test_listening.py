"""Where peers listen: at ports that are said, that are taken, and several of a command."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from pathlib import Path

import pytest

from manta import Mesh
from manta.mesh.errors import JoinFailed
from manta.mesh.run import _free_port
from manta.mesh.settings import LOOPBACK, PORTS
from tests.integration.mesh.conftest import PATIENCE, SECRET, Peers
from tests.integration.mesh.test_run import manta

pytestmark = pytest.mark.timeout(300)


def test_a_peer_takes_the_port_that_it_is_told_and_the_two_after_it(peers: Peers) -> None:
    port = _free_port(LOOPBACK)
    (one,) = peers.add(listen=f"{LOOPBACK}:{port}")
    assert one.address == f"{LOOPBACK}:{port}"
    (own,) = one.status()["peers"]
    assert own["addresses"] == [f"tcp://{LOOPBACK}:{port + 1}"]
    for number in range(PORTS):
        with pytest.raises(OSError, match="in use"):
            socket.create_server((LOOPBACK, port + number)).close()
    peers.add()
    peers.meet(2)


def test_who_listens_everywhere_tells_others_an_address_of_its_machine(peers: Peers) -> None:
    port = _free_port("0.0.0.0")
    (one,) = peers.add(listen=f"0.0.0.0:{port}")
    host, _, at = one.address.rpartition(":")
    assert at == str(port)
    if one.status()["peers"][0]["addresses"]:  # else this machine has no network
        assert host not in ("0.0.0.0", LOOPBACK)
    for place, peers_ in enumerate((one.address, f"{LOOPBACK}:{port}"), 1):
        (new,) = peers.add(peers=[peers_])
        assert new.name == f"peer-{place}"
    peers.meet(3)


@pytest.mark.parametrize("number", range(PORTS))
def test_a_port_that_is_taken_is_named_with_those_that_are_needed(number: int) -> None:
    port = _free_port(LOOPBACK)
    said = (
        f"This peer can't listen at {LOOPBACK}:{port + number}: Address already in use; a peer "
        f"takes 3 ports in a row, here {port} to {port + 2}: choose others"
    )
    with (
        closing(socket.create_server((LOOPBACK, port + number))),
        pytest.raises(JoinFailed, match=re.escape(said)),
    ):
        Mesh.join(listen=f"{LOOPBACK}:{port}", secret=SECRET, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("127.0.0.1:65534", "a peer takes 3 ports in a row, and ports end at 65535"),
        ("127.0.0.1:70000", "'127.0.0.1:70000': it must have a port from 1 to 65535"),
        ("tcp://127.0.0.1:7000", "'tcp://127.0.0.1:7000': it must be a host's name or address"),
        ("[::1", "it must have an IPv6 address in the brackets"),
        ("203.0.113.9", "can't listen at 203.0.113.9:0: .*; choose another host"),
    ],
)
def test_a_place_that_cannot_be_is_refused_with_what_is_wrong(listen: str, words: str) -> None:
    with pytest.raises(JoinFailed, match=words):
        Mesh.join(listen=listen, secret=SECRET, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("peers", "words"),
    [
        ("http://127.0.0.1:1", "peers: 'http://127.0.0.1:1': it must be a host's name or address"),
        ("127.0.0.1:99999", "peers: '127.0.0.1:99999': it must have a port"),
        ("127.0.0.1", "peers: '127.0.0.1' has no port"),
    ],
)
def test_a_door_that_cannot_be_is_refused_with_what_is_wrong(peers: str, words: str) -> None:
    with pytest.raises(JoinFailed, match=re.escape(words)):
        Mesh.join(peers=peers, secret=SECRET, timeout=PATIENCE)


SCRIPT = """
from manta import Mesh
with Mesh.join(timeout=100) as mesh:
    print(mesh.address)
    mesh.wait(3, 100)
    print(mesh.all_reduce(1))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_peers_of_a_command_have_ports_in_a_row_where_another_joins_them(script: Path) -> None:
    port = _free_port(LOOPBACK)
    listen = ("--listen", f"{LOOPBACK}:{port}")
    running = manta("mesh", "run", script, "--peers", 2, *listen, MANTA_MESH_SECRET=SECRET)
    door = f"{LOOPBACK}:{port}"
    with Mesh.join(peers=door, secret=SECRET, timeout=PATIENCE) as mesh:
        mesh.wait(3, PATIENCE)
        assert mesh.all_reduce(1, timeout=PATIENCE) == 3
    out, err = running.communicate()
    assert running.returncode == 0, out + err
    said = {tuple(line.split(" | ")) for line in out.splitlines()}
    doors = {("peer-0", door), ("peer-1", f"{LOOPBACK}:{port + PORTS}")}
    assert said == doors | {("peer-0", "3"), ("peer-1", "3")}


def test_a_port_of_a_command_that_is_taken_is_one_sentence(script: Path) -> None:
    port = _free_port(LOOPBACK)
    words = ("mesh", "run", script, "--peers", 2, "--listen", f"{LOOPBACK}:{port - PORTS}")
    with closing(socket.create_server((LOOPBACK, port))):
        running = manta(*words)
        out, err = running.communicate()
    assert running.returncode == 11
    assert out == ""
    (line,) = err.splitlines()
    assert f"no peer can listen at {LOOPBACK}:{port}: Address already in use" in line
    assert f"2 peers take 3 ports each, {port - PORTS} to {port + 2}" in line


@pytest.mark.parametrize(
    ("listen", "code", "words"),
    [
        ("127.0.0.1:65530", 2, "4 peers take 3 ports each, and ports end at 65535"),
        ("somewhere:else", 2, "it must have a port from 1 to 65535"),
        ("203.0.113.9", 11, "no peer can listen at 203.0.113.9: "),
    ],
)
def test_a_place_that_a_command_cannot_have_is_refused(
    script: Path, listen: str, code: int, words: str
) -> None:
    running = manta("mesh", "run", script, "--listen", listen)
    out, err = running.communicate()
    assert (running.returncode, out) == (code, "")
    assert words in err
