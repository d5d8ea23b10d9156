"""Values for which there is no memory go to the disk, and from there to whoever asks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from manta.node.plane import parcels, value_files
from tests.support.planes import Planes, TaskEnd, planes

SIZE = 2 << 20


def send(end: TaskEnd, to: str, value: bytes, timeout: float = 20.0) -> None:
    end.call("send_letter", to=to, tag="x", value=value, timeout=timeout)


def receive(end: TaskEnd, source: str, number: int) -> bytes:
    value: bytes = end.call("receive_letter", source=source, tag="x", number=number, timeout=20.0)
    return value


def begin(lab: Planes, *ranks: int) -> list[TaskEnd]:
    lab.introduce()
    lab.enroll()
    return [lab.nodes[rank].attempt(lab.at(rank)) for rank in ranks]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_beyond_the_memory_values_are_files_until_they_are_consumed() -> None:
    values = [os.urandom(SIZE) for _ in range(3)]
    with planes(2, most=3 << 20, disk=20 << 20) as lab:
        one, two = begin(lab, 0, 1)
        for value in values:
            send(one, "id-2", value)
        assert len(files(lab.nodes[0].folder / "values")) == 2
        assert [receive(two, "id-1", number) for number in range(3)] == values
        lab.nodes[1].end(lab.at(1))
        lab.enroll(r1="FINISHED")
        deadline = time.monotonic() + 20
        while files(lab.nodes[0].folder):  # until the other node has said so
            lab.nodes[0].settled()
            assert time.monotonic() < deadline
        for end in (one, two):
            end.close()


@pytest.mark.parametrize("memory", ["none is left", "it cannot be had"])
def test_a_node_without_memory_receives_into_a_file(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = os.memfd_create

    def refused(name: str, flags: int = 0) -> int:
        if name == "manta-parcel" and memory == "it cannot be had":
            raise OSError(12, "Cannot allocate memory")
        return create(name, flags)

    monkeypatch.setattr(os, "memfd_create", refused)
    value = os.urandom(SIZE)
    with planes(2, most=0 if memory == "none is left" else 100 << 20) as lab:
        one, two = begin(lab, 0, 1)
        send(one, "id-2", value)
        two.begin("receive_letter", source="id-1", tag="x", number=0, timeout=20.0)
        received: Any = two.socket.receive()
        message, fds = received
        assert message["size"] == SIZE
        assert os.pread(fds[0], SIZE, 0) == value
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(fds[0], b"x", 0)
        os.close(fds[0])
        for end in (one, two):
            end.close()


def test_a_value_of_a_file_is_handed_to_tasks_of_the_same_node() -> None:
    value = os.urandom(SIZE)
    with planes(1, most=0) as lab:
        lab.introduce()
        lab.enroll(on=[0, 0])
        one, other = (lab.nodes[0].attempt(lab.at(rank)) for rank in range(2))
        send(one, "id-1", value)
        assert receive(other, "id-1", 0) == value
        for end in (one, other):
            end.close()


def test_what_the_disk_does_not_take_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, size: int, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(value_files, "copy", full)
    with planes(1, most=0) as lab:
        (one,) = begin(lab, 0)
        for _ in range(2):
            with pytest.raises(LookupError, match=r"ResourceExhaustionError.*No space left"):
                send(one, "id-1", bytes(SIZE))
        one.close()


def test_what_is_not_sent_leaves_nothing_behind() -> None:
    with planes(1, most=100 << 20, disk=3 << 20) as lab:
        lab.introduce()
        lab.enroll()
        one = lab.nodes[0].connect(lab.at(0))  # of an attempt that is over
        for _ in range(3):  # if one of them stayed, the next would find no room
            with pytest.raises(LookupError, match="SwarmStopped"):
                send(one, "id-1", bytes(SIZE))
        one.close()


def test_more_values_than_may_be_open_pass_and_outlive_their_plane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parcels, "MOST_OPEN", 16)
    values = [os.urandom(100_000) for _ in range(60)]
    with planes(2) as lab:
        one, two = begin(lab, 0, 1)
        for value in values:
            send(one, "id-2", value)
        assert [receive(two, "id-1", number) for number in range(30)] == values[:30]
        lab.nodes[0].end(lab.at(0))
        lab.nodes[1].end(lab.at(1), counts=False)
        for end in (one, two):
            end.close()
        lab.restart(0)
        lab.enroll(r0="FINISHED")
        again = lab.nodes[1].attempt(lab.at(1, attempt=1))
        assert [receive(again, "id-1", number) for number in range(60)] == values
        again.close()
