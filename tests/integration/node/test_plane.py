"""Tasks of several nodes that speak to each other through their nodes' planes."""

from __future__ import annotations

import fcntl
import os
import time
from typing import Any

import pytest

from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged
from manta.protocol.peers import Departed, Departure
from tests.integration.node.test_plane_links import wait
from tests.support.planes import SWARM, memory, planes


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 5_000_000])
def test_letters_arrive_in_order_whatever_their_size(size: int) -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one, two = (node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes))
        sent = [os.urandom(size) for _ in range(3)]
        for value in sent:
            one.call("send_letter", to="id-2", tag="x", value=value, timeout=20.0)
        got = [
            two.call("receive_letter", source="id-1", tag="x", number=n, timeout=20.0)
            for n in range(3)
        ]
        assert got == sent
        for end in (one, two):
            end.close()


@pytest.mark.parametrize("size", [5, 3_000_000])
def test_a_letter_stays_on_its_node_if_it_goes_to_it(size: int) -> None:
    value = os.urandom(size)
    with planes(1) as lab:
        lab.introduce()
        lab.enroll(on=[0, 0])
        node = lab.nodes[0]
        one, other = node.attempt(lab.at(0)), node.attempt(lab.at(1))
        other.begin("receive_letter", source="id-1", tag="x", number=0, timeout=20.0)
        one.call("send_letter", to="id-1", tag="x", value=value, timeout=20.0)
        assert other.end() == value
        node.run(node.plane.end, lab.at(1), counts=False)  # it failed: its next attempt is given it
        again = node.attempt(lab.at(1, attempt=1))
        received = again.call("receive_letter", source="id-1", tag="x", number=0, timeout=20.0)
        assert received == value
        for end in (one, other, again):
            end.close()


def test_a_broadcast_reaches_all_and_the_latest_counts() -> None:
    values = [b"early", os.urandom(1_000_000)]
    with planes(3) as lab:
        lab.introduce()
        lab.enroll()
        ends = [node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes)]
        ends[0].call("say_to_all", tag="m", value=values[0])
        assert [end.call("hear_broadcast", tag="m", timeout=20.0) for end in ends] == [b"early"] * 3
        ends[1].call("say_to_all", tag="m", value=values[1])
        deadline = time.monotonic() + 20
        while any(end.call("hear_broadcast", tag="m", timeout=20.0) != values[1] for end in ends):
            assert time.monotonic() < deadline
        for end in ends:
            end.close()


def test_who_waits_for_one_that_has_finished_is_told_so() -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one, two = (node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes))
        two.call("send_letter", to="id-1", tag="x", value=b"last", timeout=20.0)
        one.begin("receive_letter", source="id-2", tag="x", number=0, timeout=60.0)
        lab.nodes[1].run(lab.nodes[1].plane.end, lab.at(1), counts=True)
        lab.enroll(r1="FINISHED")
        assert one.end() == b"last"
        with pytest.raises(LookupError, match="PeerLost"):
            one.call("receive_letter", source="id-2", tag="x", number=1, timeout=60.0)
        for end in (one, two):
            end.close()


def test_nobody_is_heard_who_has_no_part_in_the_swarm() -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one, two = (node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes))
        one.call("send_letter", to="id-2", tag="x", value=b"1", timeout=20.0)
        assert two.call("receive_letter", source="id-1", tag="x", number=0, timeout=20.0) == b"1"
        departed = Departed("id-1", "node-1", lab.nodes[0].peer.key, Departure.REVOKED)
        told = DirectoryChanged("swarm-1", lab.epoch, False, (), (departed,))
        lab.nodes[1].run(lab.nodes[1].plane.told, told)
        one.call("send_letter", to="id-2", tag="x", value=b"2", timeout=20.0)
        with pytest.raises(LookupError, match="Timeout"):
            two.call("receive_letter", source="id-1", tag="x", number=1, timeout=0.5)
        for end in (one, two):
            end.close()


@pytest.mark.parametrize(
    "request_",
    [
        {"k": "send_letter", "n": 1, "to": "id-1", "tag": "x", "timeout": 1.0},
        {"k": "send_letter", "n": 1, "to": "id-1", "tag": "x", "value": [9], "timeout": 1.0},
        {"k": "receive_letter", "n": 1, "source": "", "tag": "x", "number": 0, "timeout": 1.0},
        {"k": "get_global", "n": 1, "tag": "x"},
    ],
)
def test_a_connection_that_breaks_the_protocol_is_ended(request_: dict[str, Any]) -> None:
    with planes(1) as lab:
        lab.introduce()
        lab.enroll()
        one = lab.nodes[0].attempt(lab.at(0))
        one.socket.send(request_)
        assert one.socket.receive() is None
        one.close()


def test_memory_that_its_task_could_still_change_is_not_taken() -> None:
    with planes(1) as lab:
        lab.introduce()
        lab.enroll()
        one = lab.nodes[0].attempt(lab.at(0))
        fd = memory(b"x" * 100_000, fcntl.F_SEAL_SHRINK)
        sent = {"k": "send_letter", "n": 1, "to": "id-1", "tag": "x", "timeout": 1.0}
        one.socket.send({**sent, "value": [100_000]}, (fd,))
        os.close(fd)
        assert one.socket.receive() is None
        one.close()


def test_a_value_for_which_the_node_has_no_memory_is_refused_with_the_arithmetic() -> None:
    with planes(1, most=3 << 20, disk=3 << 20) as lab:
        lab.introduce()
        lab.enroll()
        one = lab.nodes[0].attempt(lab.at(0))
        one.call("send_letter", to="id-1", tag="x", value=bytes(2 << 20), timeout=5.0)
        with pytest.raises(LookupError, match=r"keeps 2\.0 MiB .* of at most 3\.0 MiB"):
            one.call("send_letter", to="id-1", tag="x", value=bytes(2 << 20), timeout=5.0)
        one.close()


def test_requests_wait_for_the_directory_and_the_roster_whichever_comes_first() -> None:
    with planes(2) as lab:
        one = lab.nodes[0].attempt(lab.at(0))
        one.begin("send_letter", to="id-2", tag="x", value=b"early", timeout=20.0)
        lab.enroll()
        lab.introduce()
        assert one.end() is None
        two = lab.nodes[1].attempt(lab.at(1))
        assert two.call("receive_letter", source="id-1", tag="x", number=0, timeout=20.0) == (
            b"early"
        )
        assert two.call("find_node", name="node-1") == "id-1"
        assert two.call("find_node", name="node-9") is None
        for end in (one, two):
            end.close()


def test_an_attempt_of_the_next_iteration_may_come_before_its_roster() -> None:
    """It is not told that nobody is left, as in the iteration before, and its letters count."""
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        former = [node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes)]
        former[0].call("send_letter", to="id-2", tag="x", value=b"of before", timeout=20.0)
        for rank, node in enumerate(lab.nodes):
            node.run(node.plane.end, lab.at(rank), counts=True)
        lab.enroll(r0="FINISHED", r1="FINISHED")
        one, two = (node.attempt(lab.at(rank, 0, 1)) for rank, node in enumerate(lab.nodes))
        two.begin("receive_letter", source="id-1", tag="y", number=0, timeout=20.0)
        one.call("send_letter", to="id-2", tag="y", value=b"of now", timeout=20.0)
        assert two.end() == b"of now"
        lab.enroll(iteration=1)
        one.call("send_letter", to="id-2", tag="y", value=b"and then", timeout=20.0)
        got = two.call("receive_letter", source="id-1", tag="y", number=1, timeout=20.0)
        assert got == b"and then"
        left = two.call("receive_letter", source="id-1", tag="x", number=0, timeout=20.0)
        assert left == b"of before"
        for end in (*former, one, two):
            end.close()


def test_on_another_timeline_of_the_manager_nothing_counts_that_was_said_before() -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one, two = (node.attempt(lab.at(rank)) for rank, node in enumerate(lab.nodes))
        one.call("send_letter", to="id-2", tag="x", value=b"1", timeout=20.0)
        two.begin("receive_letter", source="id-1", tag="never", number=0, timeout=20.0)
        lab.epoch = "epoch-2"
        lab.enroll()  # the rosters come first: they wait for the directory
        lab.introduce()
        with pytest.raises(LookupError, match="SwarmStopped"):
            two.end()
        with pytest.raises(LookupError, match="SwarmStopped"):
            one.call("send_letter", to="id-2", tag="x", value=b"2", timeout=20.0)
        again = [node.attempt(lab.at(rank, 1)) for rank, node in enumerate(lab.nodes)]
        again[0].call("send_letter", to="id-2", tag="x", value=b"3", timeout=20.0)
        got = again[1].call("receive_letter", source="id-1", tag="x", number=0, timeout=20.0)
        assert got == b"3"
        for end in (one, two, *again):
            end.close()


def test_an_attempt_has_so_many_connections_and_is_told_of_one_more() -> None:
    with planes(1) as lab:
        lab.introduce()
        lab.enroll()
        node = lab.nodes[0]
        ends = [node.attempt(lab.at(0)), *(node.connect(lab.at(0)) for _ in range(64))]
        received = ends[-1].socket.receive()
        assert received is not None
        assert received[0]["k"] == "refused"
        assert "more than 64 threads" in received[0]["sentence"]
        assert ends[-1].socket.receive() is None
        ends[0].close()
        spare = node.connect(lab.at(0))
        assert spare.call("find_node", name="node-1") == "id-1"
        for end in (*ends[1:], spare):
            end.close()


def test_who_only_waits_hears_of_a_node_that_has_never_exchanged() -> None:
    """Its plane knows nothing of the swarm: it asks for the roster, and says that all has come."""
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        node, other = lab.nodes
        other.run(other.plane._forget, SWARM)
        one = node.attempt(lab.at(0))
        lab.enroll(told=[node], r1="FINISHED")
        one.begin("receive_letter", source="id-2", tag="x", number=0, timeout=20.0)
        wait(lambda: SWARM in other.wanted)
        lab.enroll(told=[other], r1="FINISHED")
        with pytest.raises(LookupError, match="PeerLost"):
            one.end()
        one.close()


def test_an_attempt_that_came_before_its_directory_goes_on_when_that_comes() -> None:
    with planes(1) as lab:
        node = lab.nodes[0]
        one = node.attempt(lab.at(0))
        one.begin("send_letter", to="id-1", tag="x", value=b"1", timeout=20.0)
        node.run(node.plane.told, PeersAnew((), ()))  # of a node that was told of nothing yet
        lab.introduce()
        lab.enroll()
        one.end()
        assert one.call("receive_letter", source="id-1", tag="x", number=0, timeout=20.0) == b"1"
        one.close()


def test_an_attempt_that_came_before_its_timeline_goes_on_in_it() -> None:
    """One that has exchanged something on the former one cannot."""
    with planes(1) as lab:
        lab.introduce()
        lab.enroll()
        node = lab.nodes[0]
        former = node.attempt(lab.at(0))
        former.call("send_letter", to="id-1", tag="x", value=b"1", timeout=20.0)
        one = node.attempt(lab.at(0, 1))
        lab.epoch = "epoch-2"
        lab.introduce()
        lab.enroll()
        one.call("send_letter", to="id-1", tag="x", value=b"2", timeout=20.0)
        assert one.call("receive_letter", source="id-1", tag="x", number=0, timeout=20.0) == b"2"
        ((at, how),) = node.lost_attempts
        assert at == lab.at(0)
        assert "went back to an earlier state" in how
        for end in (former, one):
            end.close()


@pytest.mark.parametrize(
    "request_",
    [
        {"k": "receive_letter", "source": "id-1", "tag": "x", "number": 0},
        {"k": "hear_broadcast", "tag": "x"},
    ],
)
def test_who_asks_before_anything_is_known_of_the_swarm_waits_no_longer_than_it_may(
    request_: dict[str, Any],
) -> None:
    with planes(1) as lab:
        one = lab.nodes[0].attempt(lab.at(0))
        one.socket.send({"n": 1, "timeout": 0.3, **request_})
        received = one.socket.receive()
        assert received is not None
        assert received[0]["kind"] == "Timeout"
        assert "was not told yet who takes part" in received[0]["sentence"]
        one.close()


def test_a_node_that_is_revoked_is_nobody_in_each_swarm_at_once() -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        node, gone = lab.nodes
        peers = tuple(one.peer for one in lab.nodes)
        node.run(node.plane.told, DirectoryChanged("swarm-2", "e", True, peers))
        one = node.attempt(lab.at(0))
        one.call("send_letter", to="id-2", tag="x", value=b"1", timeout=20.0)

        def kept() -> int:
            group = node.plane._swarms[SWARM]._group
            assert group is not None
            return group.letters.kept.letters

        assert node.run(kept) == 1
        departed = Departed(gone.id, gone.alias, gone.peer.key, Departure.REVOKED)
        node.run(node.plane.told, DirectoryChanged("swarm-2", "e", False, (), (departed,)))
        assert node.run(kept) == 0
        one.close()
