"""A task that breaks the protocol loses its connection; the node goes on."""

from __future__ import annotations

import array
import contextlib
import fcntl
import mmap
import os
import random
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from manta.light.wire import MAX_CHANNELS, MAX_FDS, MAX_TO_NODE, VERSION, MessageSocket
from manta.node.blobs.tiered_depot import TieredDepot
from manta.node.task_server import messages as light
from manta.node.task_server.attempts import MAX_ABANDONED
from manta.node.task_server.sessions import LONGEST_PATH, RuntimeSessions
from manta.protocol.node import Instance
from manta.testing import wait_until
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from tests.support.harness import Output, order

Start = Callable[..., Any]


class Task:
    """A runtime and its attempt, played by the test."""

    def __init__(self, node: Any, id: str = "hostile") -> None:
        self.node = node
        self.id = id
        self.session = node.sessions.open(id, node.system.ref("owner"))
        self.connections: list[MessageSocket] = []
        self.runtime = self.connect(
            {"k": "runtime", "token": self.session.token, "version": VERSION, "pid": 1}
        )
        welcome = self.runtime.receive()
        assert welcome is not None
        self.printed = welcome[1]
        """The writing ends of stdout, stderr and the log."""
        self.runtime.send({"k": "ready"})
        self.instance = Instance("swarm", "worker", 0, 0)
        node.sessions.tell(order(id, self.instance))
        self.order = self.expect(self.runtime, "run")
        self.attempt = self.connect({"k": "attempt", "token": self.order["token"]})

    def connect(self, *messages: dict[str, Any]) -> MessageSocket:
        connection = MessageSocket.to(self.node.sessions.path)
        connection.socket.settimeout(10)
        self.connections.append(connection)
        for message in messages:
            connection.send(message)
        return connection

    def expect(self, connection: MessageSocket, kind: str) -> dict[str, Any]:
        received = connection.receive()
        assert received is not None
        message, fds = received
        for fd in fds:
            os.close(fd)
        assert message["k"] == kind, message
        return message

    def event(self, kind: type[Any]) -> Any:
        while not isinstance(event := self.node.events.get(timeout=10), kind):
            continue
        return event

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        for fd in self.printed:
            os.close(fd)
        self.node.sessions.tell(light.CloseSession(self.id))


@pytest.fixture
def task(node: Any) -> Iterator[Task]:
    task = Task(node)
    yield task
    task.close()
    answers(node)


def is_cut(connection: MessageSocket) -> bool:
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        return connection.receive() is None
    return True


def answers(node: Any) -> None:
    """The node still serves others."""
    other = Task(node, "other")
    other.attempt.send({"k": "list_global_tags", "n": 1})
    other.expect(other.attempt, "answer")
    other.close()


BAD = [
    b"",
    b"\0",
    msgpack.packb(None),
    msgpack.packb([]),
    msgpack.packb({}),
    msgpack.packb({"k": "nonesuch", "n": 1}),
    msgpack.packb({"k": "runtime", "token": "x", "version": 1, "pid": 1}),
    msgpack.packb({"k": "get_global", "n": 1}),
    msgpack.packb({"k": "get_global", "n": 1, "tag": 5}),
    msgpack.packb({"k": "get_global", "n": 1, "tag": ""}),
    msgpack.packb({"k": "get_global", "n": 1, "tag": "x" * 5000}),
    msgpack.packb({"k": "get_global", "n": 0, "tag": "x"}),
    msgpack.packb({"k": "get_global", "n": -1, "tag": "x"}),
    msgpack.packb({"k": "get_global", "n": 1, "tag": "x", "more": 1}),
    msgpack.packb({"k": "set_global", "n": 1, "tag": "x", "value": b"x" * 70_000}),
    msgpack.packb({"k": "set_global", "n": 1, "tag": "x", "value": 99}),
    msgpack.packb({"k": "set_global", "n": 1, "tag": "x", "value": "text"}),
    msgpack.packb({"k": "progress", "n": 1, "fraction": 7.0, "message": ""}),
    msgpack.packb({"k": "log_metrics", "n": 1, "metrics": {"a": "b"}, "step": None}),
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\x91" * 100_000,
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_a_bad_message_cuts_the_attempt_off_and_cancels_it(task: Task, body: bytes) -> None:
    task.attempt.socket.sendall(struct.pack("<I", len(body)) + body)
    assert is_cut(task.attempt)
    assert task.expect(task.runtime, "cancel")["number"] == task.order["number"]
    task.runtime.send({"k": "exited", "number": task.order["number"], "status": -9})
    error = task.event(light.AttemptExited).error
    assert error.kind == "Cancelled"
    assert error.sentence.startswith("worker.0 was ended, because it broke the protocol: ")


def test_a_frame_that_is_too_long_is_not_waited_for(task: Task) -> None:
    task.attempt.socket.sendall(struct.pack("<I", MAX_TO_NODE + 1))
    assert is_cut(task.attempt)


def test_a_bad_message_of_the_runtime_ends_its_session(task: Task) -> None:
    task.runtime.send({"k": "exited", "number": 1, "status": 99999})
    assert is_cut(task.runtime)
    assert "broke the protocol" in task.event(light.SessionLost).sentence


def test_an_end_of_an_attempt_that_there_is_not_is_nothing(task: Task) -> None:
    task.runtime.send({"k": "exited", "number": 77, "status": 0})
    task.attempt.send({"k": "stop_swarm", "n": 1})
    task.expect(task.attempt, "answer")


@pytest.mark.parametrize(
    "greeting",
    [
        {"k": "runtime", "token": "0" * 32, "version": VERSION, "pid": 1},
        {"k": "attempt", "token": "0" * 32},
        {"k": "attempt", "token": ""},
        {"k": "stop_swarm", "n": 1},
        {},
    ],
)
def test_a_wrong_greeting(task: Task, greeting: dict[str, Any]) -> None:
    stranger = task.connect(greeting)
    received = stranger.receive()
    if received is not None:
        assert received[0] == {
            "k": "refused",
            "sentence": "The token is not valid, or the task has been ended.",
        }
        assert is_cut(stranger)


def test_a_token_of_the_other_kind(task: Task) -> None:
    task.expect(task.connect({"k": "attempt", "token": task.session.token}), "refused")
    greeting = {"k": "runtime", "token": task.order["token"], "version": VERSION, "pid": 1}
    task.expect(task.connect(greeting), "refused")
    greeting = {"k": "runtime", "token": task.session.token, "version": 99, "pid": 1}
    task.expect(task.connect(greeting), "refused")


def test_tokens_end_with_the_session(task: Task) -> None:
    task.node.sessions.tell(light.CloseSession(task.id))
    task.expect(task.runtime, "close")
    assert is_cut(task.runtime)
    task.expect(task.connect({"k": "attempt", "token": task.order["token"]}), "refused")


def test_strangers_who_say_nothing_make_room(task: Task) -> None:
    silent = [task.connect() for _ in range(100)]
    answers(task.node)
    assert is_cut(silent[0])


def test_random_and_mutated_bytes(task: Task) -> None:
    source = random.Random(1)
    whole = msgpack.packb({"k": "attempt", "token": task.order["token"]})
    for _ in range(300):
        body = bytearray(source.choice([whole, source.randbytes(40)]))
        body[source.randrange(len(body))] = source.randrange(256)
        stranger = task.connect()
        stranger.socket.sendall(struct.pack("<I", len(body)) + body)
        stranger.close()
        nested = source.choice([b"\x81\xa1k", b"\x91", b"\x81\xa1x"]) * 30_000
        with contextlib.suppress(BrokenPipeError):
            task.connect().socket.sendall(struct.pack("<I", len(nested)) + nested)
    answers(task.node)


def test_descriptors_that_nobody_asked_for_are_closed(task: Task, node: Any) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null") as file:
        rights = array.array("i", [file.fileno()] * 4)
        for n in range(1, 20):
            body = msgpack.packb({"k": "stop_swarm", "n": n})
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            task.attempt.socket.sendmsg([struct.pack("<I", len(body)) + body], ancillary)
            task.expect(task.attempt, "answer")
        many = array.array("i", [file.fileno()] * (MAX_FDS + 8))
        task.attempt.socket.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)])
        assert is_cut(task.attempt)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_memory_cannot_be_cut_short(task: Task) -> None:
    task.attempt.send({"k": "memory", "n": 1, "size": 100_000})
    received = task.attempt.receive()
    assert received is not None
    message, (fd,) = received
    assert message["memory"] == 1
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 10)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 200_000)
    # Kept mapped for writing, it is refused, and the attempt goes on.
    with mmap.mmap(fd, 100_000):
        task.attempt.send({"k": "set_global", "n": 2, "tag": "x", "value": 1})
        error = task.expect(task.attempt, "error")
    assert error["kind"] == "ResourceExhaustionError"
    assert "unmap" in error["sentence"]
    # A tampered value is the reader's affair: it is taken in, and sealed.
    task.attempt.send({"k": "memory", "n": 3, "size": 100_000})
    received = task.attempt.receive()
    assert received is not None
    message, (other,) = received
    assert message["memory"] == 2
    task.attempt.send({"k": "set_global", "n": 4, "tag": "x", "value": 2})
    task.expect(task.attempt, "answer")
    with pytest.raises(PermissionError):
        os.pwrite(other, b"x", 0)
    assert fcntl.fcntl(other, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
    os.close(fd)
    os.close(other)


def test_memory_has_limits(task: Task) -> None:
    task.attempt.send({"k": "memory", "n": 1, "size": 1 << 50})
    assert task.expect(task.attempt, "error")["kind"] == "ResourceExhaustionError"
    for n in range(2, 10):
        task.attempt.send({"k": "memory", "n": n, "size": 10})
        task.expect(task.attempt, "answer")
    task.attempt.send({"k": "memory", "n": 10, "size": 10})
    assert "not handed in" in task.expect(task.attempt, "error")["sentence"]


def test_a_task_that_a_signal_took_out_of_its_request_may_ask_again(task: Task) -> None:
    task.node.hold = True
    task.attempt.send({"k": "stop_swarm", "n": 1})
    task.attempt.send({"k": "stop_swarm", "n": 2})
    task.node.hold = False
    task.attempt.send({"k": "stop_swarm", "n": 4})  # the third never left
    while task.expect(task.attempt, "answer")["n"] != 4:
        continue


def test_requests_whose_answers_are_not_waited_for_are_bounded(task: Task) -> None:
    task.node.hold = True
    with contextlib.suppress(OSError):  # cut off in mid-flood
        for n in range(1, MAX_ABANDONED + 3):
            task.attempt.send({"k": "stop_swarm", "n": n})
    assert is_cut(task.attempt)
    task.node.hold = False


def test_channels_of_an_attempt_answer_by_themselves(task: Task) -> None:
    greeting = {"k": "attempt", "token": task.order["token"], "channel": 1}
    task.node.hold = True
    task.attempt.send({"k": "stop_swarm", "n": 1})
    wait_until(lambda: len(task.node.held) == 1)
    task.node.hold = False
    other = task.connect(greeting, {"k": "stop_swarm", "n": 1})
    task.expect(other, "answer")
    again = task.connect(greeting, {"k": "stop_swarm", "n": 1})
    task.expect(again, "answer")  # what it was answered then: it is not asked for again
    assert is_cut(other)
    assert len(task.node.requests) == 2
    task.node.held.pop().reply.set(None)
    task.expect(task.attempt, "answer")


def test_an_attempt_has_so_many_channels_and_no_more(task: Task) -> None:
    greeting = {"k": "attempt", "token": task.order["token"]}
    for number in range(1, MAX_CHANNELS):
        channel = task.connect({**greeting, "channel": number}, {"k": "stop_swarm", "n": 1})
        task.expect(channel, "answer")
    assert is_cut(task.connect({**greeting, "channel": MAX_CHANNELS}))
    assert task.expect(task.runtime, "cancel")["number"] == task.order["number"]


@pytest.mark.parametrize(
    "end",
    [
        {"computing": -1.0, "moving": 0.0},
        {"computing": 1.0},
        {"computing": 1.0, "moving": 0.0, "error": ["a"]},
        {"computing": 1.0, "moving": 0.0, "output": 99},
        {"computing": 1.0, "moving": 0.0, "output": "text"},
        {"computing": 1.0, "moving": 0.0, "more": 1},
        [],
    ],
    ids=str,
)
def test_a_bad_end_fails_its_attempt_and_costs_nobody_else(task: Task, end: Any) -> None:
    number = task.order["number"]
    message = {"k": "exited", "number": number, "status": 0, "end": msgpack.packb(end)}
    task.runtime.send(message)
    task.runtime.send(message)  # told again
    error = task.event(light.AttemptExited).error
    assert error.kind == "DataCorruptionError"
    assert error.sentence.startswith("How worker.0 ended can't be read: ")
    task.node.sessions.tell(order(task.id, task.instance))
    assert task.expect(task.runtime, "run")["number"] == number + 1  # its runtime serves on


def test_an_end_that_is_told_again_while_its_output_is_hashed_counts_once(task: Task) -> None:
    size = 8 * 1024 * 1024
    task.attempt.send({"k": "memory", "n": 1, "size": size})
    received = task.attempt.receive()
    assert received is not None
    message, (fd,) = received
    os.pwrite(fd, b"x" * size, 0)
    os.close(fd)
    end = msgpack.packb({"computing": 1.0, "moving": 0.0, "output": message["memory"]})
    exited = {"k": "exited", "number": task.order["number"], "status": 0, "end": end}
    for _ in range(3):
        task.runtime.send(exited)
    ended = task.event(light.AttemptExited)
    assert ended.error is None
    assert ended.output.size == size


def test_a_reader_that_does_not_read_costs_only_itself(task: Task, node: Any) -> None:
    node.globals["x"] = node.payload(b"x" * 60_000)
    for n in range(1, 50):
        task.attempt.send({"k": "get_global", "n": n, "tag": "x"})
        if n < 49:
            task.expect(task.attempt, "answer")
    answers(node)


def test_a_bad_log_record_costs_that_record_only(task: Task, node: Any) -> None:
    out, _, log = task.printed
    os.write(log, msgpack.packb([1.0, "info", "good"]))
    os.write(log, b"nonsense")
    os.write(log, msgpack.packb([1.0, "info", "good again"]))
    os.write(out, b"still here\n")
    end = msgpack.packb({"computing": 0.0, "moving": 0.0})
    task.runtime.send({"k": "exited", "number": task.order["number"], "status": 0, "end": end})
    lines = []
    while not isinstance(event := node.events.get(timeout=10), light.AttemptExited):
        if isinstance(event, Output):
            lines += [(event.stream, text) for _, text in event.lines]
    assert sorted(lines) == [
        ("error", "A record of the log can't be read."),
        ("info", "good"),
        ("info", "good again"),
        ("stdout", "still here"),
    ]


def test_the_socket_is_open_to_all_but_cannot_be_listed(node: Any) -> None:
    assert stat.S_IMODE(node.sessions.folder.stat().st_mode) == 0o711
    assert stat.S_IMODE(Path(node.sessions.path).stat().st_mode) == 0o666


def test_a_long_path_is_replaced_by_a_short_one(tmp_path: Path) -> None:
    depot = TieredDepot(MemoryDepot(1000), FileDepot(tmp_path / "values"), 1000)
    folder = tmp_path / ("x" * 120)
    sessions = RuntimeSessions(depot, folder, print)
    assert len(sessions.path) <= LONGEST_PATH
    again = RuntimeSessions(depot, folder, print)
    assert again.folder == sessions.folder
    again.close()
    sessions.close()
    assert not sessions.folder.exists()


def test_a_session_without_an_owner_ends(node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manta.node.task_server.server._ABANDONED", 0.2)
    task = Task(node)
    node.owner.stop()
    node.owner.wait(60)
    task.attempt.send({"k": "stop_swarm", "n": 1})
    started = time.monotonic()
    assert is_cut(task.attempt)
    assert 0.2 <= time.monotonic() - started < 5
    wait_until(lambda: not node.sessions.by_id)
    task.close()
