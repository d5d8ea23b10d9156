"""What tasks told each other outlives the planes of their nodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manta.node.peers.book import PeersAnew
from tests.support.planes import SWARM, Planes, TaskEnd, planes

SIZES = [5, 3_000_000]


def send(end: TaskEnd, to: str, value: bytes, tag: str = "x") -> None:
    end.call("send_letter", to=to, tag=tag, value=value, timeout=20.0)


def receive(end: TaskEnd, source: str, number: int, tag: str = "x", timeout: float = 20.0) -> bytes:
    value: bytes = end.call(
        "receive_letter", source=source, tag=tag, number=number, timeout=timeout
    )
    return value


def nothing_more(end: TaskEnd, source: str, number: int) -> None:
    with pytest.raises(LookupError, match=r"Timeout|PeerLost"):
        receive(end, source, number, timeout=0.3)


def begin(lab: Planes, rank: int, attempt: int = 0) -> TaskEnd:
    return lab.nodes[rank].attempt(lab.at(rank, attempt))


@pytest.mark.parametrize("size", SIZES)
def test_letters_of_an_attempt_that_has_ended_outlive_its_plane(size: int) -> None:
    values = [os.urandom(size) for _ in range(3)]
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one = begin(lab, 0)
        for value in values:
            send(one, "id-2", value)
        lab.nodes[0].end(lab.at(0))
        one.close()
        lab.restart(0)
        lab.enroll(r0="FINISHED")
        two = begin(lab, 1)
        assert [receive(two, "id-1", number) for number in range(3)] == values
        two.close()


@pytest.mark.parametrize("size", SIZES)
def test_who_begins_anew_is_given_what_no_finished_attempt_received(size: int) -> None:
    values = [os.urandom(size) for _ in range(4)]
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one, two = begin(lab, 0), begin(lab, 1)
        for value in values:
            send(one, "id-2", value)
        assert [receive(two, "id-1", number) for number in range(2)] == values[:2]
        lab.nodes[1].end(lab.at(1))
        lab.enroll(r1="FINISHED")
        two.close()
        lab.restart(1)
        lab.enroll(r1="FINISHED")
        later = lab.nodes[1].attempt(lab.at(2))
        assert [receive(later, "id-1", number) for number in range(2)] == values[2:]
        nothing_more(later, "id-1", 2)
        for end in (one, later):
            end.close()


def test_an_end_that_nobody_heard_of_takes_nothing_away() -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one, two = begin(lab, 0), begin(lab, 1)
        for value in (b"0", b"1"):
            send(one, "id-2", value)
        assert receive(two, "id-1", 0) == b"0"
        lab.nodes[1].end(lab.at(1))
        two.close()
        lab.restart(1)
        lab.enroll()
        again = begin(lab, 1, attempt=1)
        assert [receive(again, "id-1", number) for number in range(2)] == [b"0", b"1"]
        for end in (one, again):
            end.close()


@pytest.mark.parametrize("size", SIZES)
def test_both_ends_may_begin_anew_at_once(size: int) -> None:
    values = [os.urandom(size) for _ in range(3)]
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one, two = begin(lab, 0), begin(lab, 1)
        for value in values:
            send(one, "id-2", value)
        assert receive(two, "id-1", 0) == values[0]
        lab.nodes[0].end(lab.at(0))
        lab.nodes[1].end(lab.at(1))
        for end in (one, two):
            end.close()
        lab.restart(0, 1)
        lab.enroll(r0="FINISHED", r1="FINISHED")
        later = lab.nodes[1].attempt(lab.at(2))
        assert [receive(later, "id-1", number) for number in range(2)] == values[1:]
        nothing_more(later, "id-1", 2)
        later.close()


@pytest.mark.parametrize("size", SIZES)
def test_letters_and_broadcasts_on_one_node_outlive_it(size: int) -> None:
    letter, said = os.urandom(size), os.urandom(size)
    with planes(1) as lab:
        lab.introduce()
        lab.enroll(on=[0, 0])
        node = lab.nodes[0]
        one = node.attempt(lab.at(0))
        send(one, "id-1", letter)
        one.call("say_to_all", tag="m", value=said)
        node.end(lab.at(0))
        one.close()
        lab.restart(0)
        lab.enroll(on=[0, 0], r0="FINISHED")
        other = lab.nodes[0].attempt(lab.at(1))
        assert receive(other, "id-1", 0) == letter
        assert other.call("hear_broadcast", tag="m", timeout=20.0) == said
        other.close()


def test_an_attempt_that_is_run_again_sends_the_same_letters() -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one, two = begin(lab, 0), begin(lab, 1)
        for value in (b"0", b"1", b"2"):
            send(one, "id-2", value)
        lab.nodes[0].end(lab.at(0))  # the daemon dies before it tells the manager
        assert [receive(two, "id-1", number) for number in range(2)] == [b"0", b"1"]
        one.close()
        lab.restart(0)
        lab.enroll()
        again = begin(lab, 0, attempt=1)
        for value in (b"0", b"1", b"2", b"3"):
            send(again, "id-2", value)
        assert [receive(two, "id-1", number) for number in (2, 3)] == [b"2", b"3"]
        nothing_more(two, "id-1", 4)
        for end in (two, again):
            end.close()


def test_nothing_of_a_swarm_that_is_over_stays_on_disk() -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one = begin(lab, 0)
        send(one, "id-2", bytes(3_000_000))
        send(one, "id-2", b"small")
        lab.nodes[0].end(lab.at(0))
        one.close()
        lab.restart(0)
        folder = lab.nodes[0].folder
        assert [path for path in folder.rglob("*") if path.is_file()]
        lab.epoch = "epoch-2"  # the manager has gone back to a backup
        lab.introduce()
        lab.nodes[0].settled()
        assert not [path for path in folder.rglob("*") if path.is_file()]


def test_of_a_swarm_that_no_directory_names_it_goes_when_that_is_over() -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one = begin(lab, 0)
        send(one, "id-2", bytes(3_000_000))
        lab.nodes[0].end(lab.at(0))
        one.close()
        lab.nodes[0] = node = lab.nodes[0].again()  # the swarm has ended meanwhile

        def files() -> list[Path]:
            node.settled()
            return [path for path in node.folder.rglob("*") if path.is_file()]

        node.run(node.plane.told, PeersAnew((), ()))
        node.run(node.plane.forget, ("another",))
        assert len(files()) == 2
        node.run(node.plane.forget, ("another", SWARM))
        assert not files()


def test_what_a_swarm_uses_is_not_taken_from_it() -> None:
    with planes(2) as lab:
        lab.introduce()
        lab.enroll()
        one = begin(lab, 0)
        send(one, "id-2", b"1")
        lab.nodes[0].end(lab.at(0))
        one.close()
        lab.restart(0)
        lab.nodes[0].run(lab.nodes[0].plane.forget, (SWARM,))  # its directory says otherwise
        lab.enroll(r0="FINISHED")
        two = begin(lab, 1)
        assert receive(two, "id-1", 0) == b"1"
        two.close()
