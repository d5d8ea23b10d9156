"""Your process or the peer's stands still: others hear of it, and it comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from manta import Mesh
from manta.mesh import client
from manta.mesh.errors import MeshStuck
from tests.integration.mesh.conftest import PATIENCE, SECRET, Peers
from tests.support.children import freeze

pytestmark = pytest.mark.timeout(300)

CHILD = """
import sys
from manta import Mesh
from manta.light.errors import PeerLost
with Mesh.join(peers=[sys.argv[1]], secret=sys.argv[2], name="stopped", timeout=100) as mesh:
    mesh.wait(3, 100)
    print("met", flush=True)
    sys.stdin.readline()
    total = 0
    # Others went on without it, once or more often. Of the first call it may have all that they
    # had given before it was dead to them, which makes 3.
    while total != 21:
        try:
            total = mesh.all_reduce(1, on_peer_lost="continue", timeout=100)
        except PeerLost:
            pass
    print(total, flush=True)
    sys.stdin.readline()
"""


def total(mesh: Mesh, given: int = 1) -> int:
    found: int = mesh.all_reduce(given, on_peer_lost="continue", timeout=PATIENCE)
    return found


def test_a_process_that_is_stopped_is_dead_to_others_until_it_goes_on(peers: Peers) -> None:
    one, two = peers.add(2)
    command = [sys.executable, "-c", CHILD, one.address, SECRET]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, bufsize=1) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            peers.meet(3)
            assert child.stdout.readline() == "met\n"
            freeze(child.pid)
            died = next(event for event in one.events(PATIENCE) if event["event"] == "died")
            assert died["name"] == "stopped"
            assert "stands still" in died["why"]
            while two.size == 3:
                assert peers.each(total) == [2, 2]
            os.kill(child.pid, signal.SIGCONT)
            back = next(event for event in one.events(PATIENCE) if event["event"] == "back")
            assert back["name"] == "stopped"
            child.stdin.write("\n")
            peers.meet(3)
            assert peers.each(lambda mesh: total(mesh, 10)) == [21, 21]
            assert child.stdout.readline() == "21\n"
            child.stdin.write("\n")
        finally:
            os.kill(child.pid, signal.SIGCONT)
            child.stdin.close()
        assert child.wait(PATIENCE) == 0


def test_a_process_that_computes_for_long_is_not_taken_for_stopped(peers: Peers) -> None:
    (one,) = peers.add()
    code = (
        "import sys, time\nfrom manta import Mesh\n"
        "with Mesh.join(peers=[sys.argv[1]], secret=sys.argv[2], timeout=100) as mesh:\n"
        "    mesh.wait(2, 100)\n"
        "    print('met', flush=True)\n"
        "    sys.setswitchinterval(1000)\n"  # so that no other thread gets Python's lock
        "    until = time.monotonic() + 4\n"
        "    while time.monotonic() < until: pass\n"
        "    mesh.barrier(timeout=100)\n"
    )
    command = [sys.executable, "-c", code, one.address, SECRET]
    with subprocess.Popen(command, stdout=-1, text=True) as child:
        one.wait(2, PATIENCE)
        one.barrier(PATIENCE)
        assert child.wait(PATIENCE) == 0
    assert not {event["event"] for event in one.events(0.1)} & {"died", "back"}


def test_a_peers_process_that_is_stopped_is_an_error_that_says_what_to_do(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 1.0)
    (one,) = peers.add()
    freeze(one._client.pid)
    try:
        with pytest.raises(MeshStuck, match=rf"process {one._client.pid}.*kill -CONT"):
            one.status()
        with pytest.raises(MeshStuck, match=r"within 1\.5 s"):
            one.wait(2, timeout=0.5)
    finally:
        os.kill(one._client.pid, signal.SIGCONT)
    assert one.status()["id"] == one.id
