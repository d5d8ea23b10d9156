"""The process of a plane, as a daemon starts and ends it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.rosters import RosterChanged, RosterDiffers
from manta.node.plane.orders import (
    Anew,
    End,
    Ended,
    Rostered,
    Serve,
    Serving,
    Want,
    pair,
)
from manta.node.plane.process import PlaneProcess
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask, RosterTold
from tests.support.plane_processes import daemons
from tests.support.planes import SWARM

MIB = 1 << 20


def test_planes_of_two_nodes_carry_letters_and_end_with_their_daemons(tmp_path: Path) -> None:
    with daemons(2, tmp_path) as (one, two):
        peers = (one.peer, two.peer)
        instances = tuple(
            RosterInstance(rank, node.id, node.alias, 0, "RUNNING")
            for rank, node in enumerate((one, two))
        )
        roster = Roster("e", 0, {"w": RosterTask("w", "RUNNING", 2, instances=instances)}, {})
        for node in (one, two):
            assert isinstance(node.expect(), Serving)
            node.orders.send(Anew((DirectoryChanged(SWARM, "e", True, peers),), ()))
        at = [Instance(SWARM, "w", rank, 0, 0) for rank in range(2)]
        ends = [node.attach(at[rank]) for rank, node in enumerate((one, two))]
        for node in (one, two):
            assert node.expect() == Want(SWARM, True)
            node.orders.send(Rostered(RosterChanged(SWARM, roster)))
        for value in (b"small", bytes(1_000_000)):
            ends[0].call("send_letter", to="id-2", tag=str(len(value)), value=value, timeout=20.0)
            tag = str(len(value))
            got = ends[1].call("receive_letter", source="id-1", tag=tag, number=0, timeout=20.0)
            assert got == value
        one.orders.send(End(at[0], counts=True))
        assert one.expect() == Ended(at[0])
        assert ends[0].socket.receive() is None
        for end in ends:
            end.close()


def most_memory(pid: int) -> int:
    """Bytes that were a process's own at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nVmHWM:")[2].split()[0]) * 1024


def test_a_large_value_takes_no_memory_of_the_processes_that_carry_it(tmp_path: Path) -> None:
    value = os.urandom(MIB) * 192
    with daemons(2, tmp_path, is_local=False) as nodes:
        for node in nodes:
            node.introduced(nodes)
        ends = [node.attach(Instance(SWARM, "w", rank, 0, 0)) for rank, node in enumerate(nodes)]
        before = [most_memory(node.process.pid) for node in nodes]
        ends[0].call("send_letter", to="id-2", tag="t", value=value, timeout=20.0)
        got = ends[1].call("receive_letter", source="id-1", tag="t", number=0, timeout=20.0)
        assert got == value
        for node, former in zip(nodes, before, strict=True):
            assert most_memory(node.process.pid) - former < 64 * MIB
        for end in ends:
            end.close()


def test_an_order_that_fails_leaves_those_behind_it(tmp_path: Path) -> None:
    with daemons(1, tmp_path) as (one,):
        one.introduced((one,))
        nobody = RosterInstance(5, "id-1", "node-1", 0, "RUNNING")
        torn = RosterTask("w", "RUNNING", 9, instances=(nobody,))
        part = RosterTold(SWARM, "e", 0, 2, 1, (torn,))
        at = Instance(SWARM, "w", 0, 0, 0)
        early = one.attach(at)
        early.call("send_letter", to="id-1", tag="x", value=b"1", timeout=20.0)
        one.orders.send(Rostered(RosterDiffers(SWARM, (part,))))
        late = one.attach(at)
        assert late.call("find_node", name="node-1") == "id-1"
        for end in (early, late):
            end.close()


def test_a_plane_whose_daemon_is_gone_before_it_begins_ends() -> None:
    ours, theirs = pair()
    ours.close()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "manta.node.plane", str(theirs)], pass_fds=[theirs]
    )
    socket.close(theirs)
    assert process.wait(20) == 0


@pytest.mark.parametrize("what", ["its socket", "its second thread"])
def test_of_a_plane_that_cannot_be_begun_nothing_is_left(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[subprocess.Popen[bytes]] = []
    popen, start = subprocess.Popen, threading.Thread.start

    def noted(*args: object, **named: object) -> subprocess.Popen[bytes]:
        begun.append(popen(*args, **named))  # type: ignore[call-overload]
        return begun[-1]

    def not_duplicated(fd: int) -> int:
        raise OSError(24, "Too many open files")

    def not_started(thread: threading.Thread) -> None:
        if thread.name == "manta-plane-answers":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(subprocess, "Popen", noted)
    if what == "its socket":
        monkeypatch.setattr(os, "dup", not_duplicated)
    else:
        monkeypatch.setattr(threading.Thread, "start", not_started)
    serve = Serve("id-1", "", "", 1 << 20, str(tmp_path), listens=True)
    with socket.socket() as listening:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises((OSError, RuntimeError)):
            PlaneProcess(serve, [listening.fileno()], lambda order: None, lambda how: None)
        assert len(os.listdir("/proc/self/fd")) == before
    assert all(process.poll() is not None for process in begun)
    assert not [one for one in threading.enumerate() if one.name.startswith("manta-plane-")]
