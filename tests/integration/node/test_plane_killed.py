"""Planes that are killed: what was told before an attempt's end was answered is there again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manta.node.plane.orders import End
from manta.protocol.base import Instance
from tests.support.plane_processes import Daemon, daemons
from tests.support.planes import SWARM, TaskEnd

AT = [Instance(SWARM, "w", rank, 0, 0) for rank in range(2)]
VALUES = [b"small", os.urandom(1_000_000), b"last"]
FINISHED = {"r0": "FINISHED", "r1": "FINISHED"}


def send_all(end: TaskEnd) -> None:
    for value in VALUES:
        end.call("send_letter", to="id-2", tag="x", value=value, timeout=20.0)


def receive(end: TaskEnd, number: int) -> bytes:
    value: bytes = end.call("receive_letter", source="id-1", tag="x", number=number, timeout=20.0)
    return value


def nothing_more(end: TaskEnd, number: int) -> None:
    with pytest.raises(LookupError, match=r"Timeout|PeerLost"):
        end.call("receive_letter", source="id-1", tag="x", number=number, timeout=0.5)


def restart(nodes: list[Daemon], *killed: int, **states: str) -> None:
    for at in killed:
        nodes[at].kill()
    for at in killed:
        nodes[at].begin()
    for at in killed:
        nodes[at].introduced(nodes, **states)
    for node in nodes:
        if nodes.index(node) not in killed:
            node.meet(nodes, **states)


@pytest.mark.parametrize("killed", [(0,), (1,), (0, 1)], ids=["sender", "receiver", "both"])
def test_planes_that_are_killed_after_ends_lose_and_double_nothing(
    tmp_path: Path, killed: tuple[int, ...]
) -> None:
    with daemons(2, tmp_path) as nodes:
        for node in nodes:
            node.introduced(nodes)
        one, two = (node.attach(AT[rank]) for rank, node in enumerate(nodes))
        send_all(one)
        assert receive(two, 0) == VALUES[0]
        for rank, node in enumerate(nodes):
            node.end(AT[rank])
        for end in (one, two):
            end.close()
        restart(nodes, *killed, **FINISHED)
        later = nodes[1].attach(Instance(SWARM, "w", 2, 0, 0))
        assert [receive(later, number) for number in range(2)] == VALUES[1:]
        nothing_more(later, 2)
        later.close()


def test_a_plane_that_is_killed_before_it_answers_an_end_has_its_attempt_run_again(
    tmp_path: Path,
) -> None:
    with daemons(2, tmp_path) as nodes:
        for node in nodes:
            node.introduced(nodes)
        one, two = (node.attach(AT[rank]) for rank, node in enumerate(nodes))
        send_all(one)
        assert receive(two, 0) == VALUES[0]
        nodes[0].orders.send(End(AT[0], counts=True))
        one.close()
        restart(nodes, 0)
        again = nodes[0].attach(Instance(SWARM, "w", 0, 0, 1))
        send_all(again)
        assert [receive(two, number) for number in range(1, 3)] == VALUES[1:]
        nothing_more(two, 3)
        for end in (again, two):
            end.close()
