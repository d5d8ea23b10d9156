"""An attempt's client against a node that the test plays."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from manta.light.context import Brief
from manta.light.errors import NodeLost
from manta.light.runtime.client import AttemptClient
from manta.light.wire import MAX_TO_NODE, MessageSocket, frame
from manta.transports.codec.values import encode

BRIEF = Brief(
    swarm_id="s",
    alias="worker",
    index=0,
    iteration=0,
    attempt=0,
    task_id="t",
    node_id="n",
    size=1,
    seed=0,
    class_name=None,
    datasets={},
    timeout=None,
    scratch="",
)


class CutOff(Exception):
    """What a signal's handler raises."""


class PlayedNode:
    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._listener.settimeout(10)
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        self.first = MessageSocket(ours)
        self.connections = [self.first]
        self.handed_in = theirs.detach()

    def accept(self) -> MessageSocket:
        sock, _ = self._listener.accept()
        sock.settimeout(10)
        self.connections.append(MessageSocket(sock))
        greeting = self.expect(self.connections[-1], "attempt")
        assert (greeting["token"], greeting["channel"]) == ("token", 0)
        return self.connections[-1]

    @staticmethod
    def expect(connection: MessageSocket, kind: str) -> dict[str, Any]:
        received = connection.receive()
        assert received is not None
        assert received[0]["k"] == kind
        return received[0]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self._listener.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PlayedNode]:
    node = PlayedNode(tmp_path / "light")
    yield node
    node.close()


@pytest.fixture
def client(node: PlayedNode, tmp_path: Path) -> Iterator[AttemptClient]:
    client = AttemptClient(str(tmp_path / "light"), "token", BRIEF, node.handed_in)
    client.open(os.getpid())
    yield client
    client.close()


@contextlib.contextmanager
def cut_off_soon(connection: MessageSocket) -> Iterator[None]:
    """Once some of the request has come."""

    def handler(number: int, at: FrameType | None) -> None:
        raise CutOff

    def wait() -> None:
        select.select([connection.socket], [], [], 10)
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    before = signal.signal(signal.SIGALRM, handler)
    waiter = threading.Thread(target=wait)
    waiter.start()
    try:
        with pytest.raises(CutOff):
            yield
    finally:
        waiter.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def is_closed(connection: MessageSocket) -> bool:
    while data := connection.socket.recv(65536):
        assert data
    return True


def answers(node: PlayedNode, client: AttemptClient, number: int) -> None:
    """The next request goes over a connection of its own, and is understood."""
    value = {"k": "answer", "n": number, "data": encode("whole").to_bytes()}

    def serve() -> None:
        again = node.accept()
        assert node.expect(again, "get_global")["n"] == number
        again.send(value)

    server = threading.Thread(target=serve)
    server.start()
    try:
        assert client.call("get_global", tag="x") == "whole"
    finally:
        server.join()


def test_a_request_that_a_signal_cut_in_its_answer_has_its_connection_closed(
    node: PlayedNode, client: AttemptClient
) -> None:
    first = node.first
    half = frame({"k": "answer", "n": 1, "data": b"x" * 1000})[:500]
    first.socket.sendall(half)
    with cut_off_soon(node.first):
        client.call("get_global", tag="x")
    node.expect(first, "get_global")
    assert is_closed(first)
    answers(node, client, 2)


def test_a_request_that_a_signal_cut_on_its_way_has_its_connection_closed(
    node: PlayedNode, client: AttemptClient
) -> None:
    first = node.first
    with cut_off_soon(node.first):  # more than the socket takes, and nobody reads it
        client.call("log_metrics", metrics={"x" * (MAX_TO_NODE - 1000): 1.0}, step=None)
    assert is_closed(first)
    answers(node, client, 2)


def test_an_attempt_that_is_over_asks_no_more(node: PlayedNode, client: AttemptClient) -> None:
    first = node.first
    client.close()
    assert is_closed(first)
    with pytest.raises(NodeLost, match="The attempt is over"):
        client.call("get_global", tag="x")


def test_an_answer_to_a_request_that_was_given_up_is_passed_over(
    node: PlayedNode, client: AttemptClient
) -> None:
    """It may come over the new connection, before the node has read what is asked there."""
    with cut_off_soon(node.first):
        client.call("get_global", tag="x")

    def serve() -> None:
        again = node.accept()
        with tempfile.TemporaryFile() as file:
            again.send({"k": "answer", "n": 1, "size": 8}, (file.fileno(),))
        assert node.expect(again, "get_global")["n"] == 2
        again.send({"k": "answer", "n": 2, "data": encode("whole").to_bytes()})

    server = threading.Thread(target=serve)
    server.start()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    try:
        assert client.call("get_global", tag="x") == "whole"
    finally:
        server.join()
    assert len(os.listdir("/proc/self/fd")) == before + 2  # the new connection's two ends
