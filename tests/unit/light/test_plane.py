"""A connection to the plane, at the task's end."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from manta.light import wire
from manta.light.errors import NodeLost, ResourceExhaustionError
from manta.light.runtime import plane
from manta.light.runtime.plane import PlaneConnection


class Opened:
    """Connections as they are asked for, each with its other end."""

    def __init__(self) -> None:
        self.ends: list[wire.MessageSocket] = []

    def __call__(self) -> int:
        ours, theirs = socket.socketpair()
        theirs.settimeout(10)
        self.ends.append(wire.MessageSocket.of(theirs.detach()))
        return ours.detach()

    def answer(self, **fields: Any) -> None:
        """To the first request of the latest connection, which has not been made yet."""
        self.ends[-1].send({"k": "answer", "n": 1, **fields})


@pytest.fixture
def opened() -> Iterator[Opened]:
    opened = Opened()
    yield opened
    for end in opened.ends:
        end.close()


def plain(message: dict[str, Any], fds: list[int]) -> Any:
    return message["plain"]


def test_a_large_value_is_handed_over_sealed(opened: Opened) -> None:
    with closing(PlaneConnection(opened)) as connection:
        connection._open()
        opened.answer(plain=None)
        value = b"x" * (wire.INLINE_LIMIT + 1)
        connection.call("say_to_all", {"tag": "t", "value": value}, plain)
        received = opened.ends[0].receive()
        assert received is not None
        message, (fd,) = received
        with open(fd, "rb") as file:
            (size,) = message["value"]
            assert os.fstat(fd).st_size == size
            file.seek(0)
            assert value in file.read()
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & plane._SEALS == plane._SEALS


def test_where_no_memory_can_be_made_the_task_is_told_so(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "memfd_create", forbidden)
    with (
        closing(PlaneConnection(opened)) as connection,
        pytest.raises(ResourceExhaustionError, match=r"memfd_create: .*not permitted"),
    ):
        connection.call("say_to_all", {"tag": "t", "value": b"x" * 100_000}, plain)


def test_a_plane_that_is_gone_is_no_silent_wait(opened: Opened) -> None:
    with closing(PlaneConnection(opened)) as connection:
        connection._open()
        opened.ends[0].close()
        with pytest.raises(NodeLost, match="has closed the connection"):
            connection.call("find_node", {"name": "n"}, plain)
        connection._open()
        opened.ends[1].send({"k": "refused", "sentence": "More than 64 threads."})
        with pytest.raises(NodeLost, match="More than 64 threads"):
            connection.call("find_node", {"name": "n"}, plain)


def test_a_request_that_a_signal_cuts_short_ends_its_connection_alone(opened: Opened) -> None:
    class Alarm(Exception):
        pass

    def ring(*_: object) -> None:
        raise Alarm

    former = signal.signal(signal.SIGALRM, ring)
    try:
        with closing(PlaneConnection(opened)) as connection:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Alarm):
                connection.call("find_node", {"name": "n"}, plain)
            first = opened.ends[0]
            assert first.receive() is not None
            assert first.receive() is None  # the plane sees that it was left
            connection._open()
            opened.ends[1].send({"k": "answer", "n": 2, "plain": "id"})
            assert connection.call("find_node", {"name": "n"}, plain) == "id"
    finally:
        signal.signal(signal.SIGALRM, former)


def test_a_kernel_that_hands_on_no_memory_is_told_of(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gVisor's refuses so to send a descriptor out of it."""

    def send_frame(_: socket.socket, data: bytes, fds: tuple[int, ...]) -> int:
        assert fds
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(wire, "send_frame", send_frame)
    with closing(PlaneConnection(opened)) as connection:
        value = b"x" * (wire.INLINE_LIMIT + 1)
        with pytest.raises(ResourceExhaustionError, match="at another level of isolation"):
            connection.call("say_to_all", {"tag": "t", "value": value}, plain)
