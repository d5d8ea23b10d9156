"""How planes come to be linked: which addresses are dialled, and by whom."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from tests.support.planes import Planes, TaskEnd, planes

SILENT = "tcp://127.0.0.1:{}"


def wait(condition: Callable[[], object], timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"did not come about in {timeout:g} s"
        time.sleep(0.01)


def letters_pass(lab: Planes, iteration: int = 0) -> None:
    lab.enroll(iteration=iteration)
    at = [lab.at(rank, iteration=iteration) for rank in range(len(lab.nodes))]
    one, two = ends = [node.attempt(at[rank]) for rank, node in enumerate(lab.nodes)]
    for size in (10, 1_000_000):
        exchange(one, two, "id-1", "id-2", os.urandom(size), f"{iteration} {size}")
        exchange(two, one, "id-2", "id-1", os.urandom(size), f"{iteration} {size}")
    for end in ends:
        end.close()


def exchange(one: TaskEnd, two: TaskEnd, its: str, to: str, value: bytes, tag: str) -> None:
    one.call("send_letter", to=to, tag=tag, value=value, timeout=20.0)
    got = two.call("receive_letter", source=its, tag=tag, number=0, timeout=20.0)
    assert got == value


def is_linked(lab: Planes, at: int, other: int) -> bool:
    node, key = lab.nodes[at], lab.nodes[other].peer.key
    return bool(node.run(node.plane.links.is_up, key))


@pytest.mark.parametrize("dialled", [0, 1])
def test_all_addresses_are_tried_and_either_side_dials(dialled: int) -> None:
    """One node only dials; of the addresses of the other, most lead nowhere."""
    with planes(2) as lab, closing(socket.create_server(("127.0.0.1", 0))) as mute:
        silent = SILENT.format(mute.getsockname()[1])
        good = lab.nodes[dialled].peer.addresses[0]
        told = (silent, "tcp://127.0.0.1:1", "tcp://no.such.host.invalid:9", good)
        addresses = {f"n{dialled + 1}": told, f"n{2 - dialled}": ()}
        lab.introduce(**addresses)
        letters_pass(lab)


def test_nodes_speak_over_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with planes(2, host="::1") as lab:
        lab.introduce()
        letters_pass(lab)


def test_a_peer_that_moved_is_found_where_it_is_now() -> None:
    with planes(2) as lab:
        lab.introduce(n1=(), n2=("tcp://127.0.0.1:1",))
        one = lab.nodes[0]
        key = lab.nodes[1].peer.key
        wait(lambda: "tcp://127.0.0.1:1" in one.run(states, one)[0].error)
        lab.introduce(n1=())
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0))
        good = lab.nodes[1].peer.addresses[0]
        assert one.run(one.plane.links.dialled_address, key) == good
        letters_pass(lab)


def test_who_comes_to_know_the_other_late_is_linked_soon() -> None:
    with planes(2) as lab:
        one, two = lab.nodes
        lab.introduce_to(one)
        wait(lambda: "denied" in one.run(states, one)[0].error)
        lab.introduce_to(two)
        wait(lambda: is_linked(lab, 0, 1) and is_linked(lab, 1, 0), 5.0)


def states(node) -> list:
    return list(node.plane.links.states())
