"""What a task and its node say to each other, over a Unix stream socket.

A frame is a length (4 bytes, little-endian) and a msgpack map whose "k" is the kind of message.
A frame to the node has at most MAX_TO_NODE bytes, one to the task at most MAX_TO_TASK. A message
that brings descriptors (SCM_RIGHTS, sent along with the frame's first byte) says how many under
"fds". Breaking these rules costs the connection.

There are two kinds of connections, told apart by the 128-bit token of their first message.

**The runtime's**, one for each task process::

    to the node     runtime(token, version, pid)
                                             first
                    ready()                  attempts can be run
                    packages(packages)       [[name, version], ...] of what its Python has
                    stacks(number, text, asked)
                                             the stacks of the attempt's processes, empty where it
                                             does not run; asked for, or as it is to be ended
                    exited(number, status, end, lives_on, cut_off, moments, cpu, memory)
                                             status as `subprocess` has it, negative for a signal;
                                             end is empty where the attempt died, else a msgpack
                                             map of loading, computing, moving and output or
                                             error, which is [kind, sentence, traceback]; lives_on
                                             says whether the module's object lives on between
                                             attempts, nothing where that did not become known;
                                             cut_off whether it was over, and had to be killed;
                                             moments when it passed `shared.PHASES`, in nanoseconds
                                             since the epoch; cpu and memory what its process used,
                                             in seconds and bytes, if that has ended
    to the runtime  welcome(fds=3)           first: stdout, stderr and the log socket
                    run(number, token, brief, fds=1)
                                             the attempt with this number in the runtime, from 1,
                                             and its connection; what it prints and logs until it
                                             has exited is its own
                    stacks(number)           asks for the stacks of the attempt's processes
                    stop(number, stacks)     ask the attempt's code to end: SIGTERM; with stacks,
                                             these are told before
                    cancel(number)           kill the attempt's process and all that it started
                    close()                  end
                    refused(sentence)        instead of welcome: the token is not valid (any more)

**An attempt's**, one for each request at a time. The first, channel 0, comes with the order; the
process that runs the attempt opens more, and replaces those that broke::

    to the node     attempt(token, channel)  first, on a connection that the attempt opened
                    a request                one of `manta.node.task_server.requests`, with its n
                    memory(n, size)          asks for a memfd to write a value into
    to the attempt  answer(n, ...)           the outcome of request n, in one of these forms:
                      plain                  anything msgpack has
                      data                   an encoded value
                      size, fds=1            an encoded value in a sealed memfd
                      (none)                 there is no such value
                      count                  that many `entry` messages follow, each with
                                             node_id, alias, index, iteration, attempt (of a
                                             collective: rank) and a value
                      memory, fds=1          a memfd, or a socket, to write the value into
                      fds=1                  a connection to the plane, or to the process by which
                                             the attempt is a peer of a mesh
                    error(n, kind, sentence)
                    refused(sentence)        the token is not valid (any more)

The requests of a channel are numbered from 1 and made one at a time. An attempt has as many
channels as its threads make requests at once, at most MAX_CHANNELS. When the node's service comes
back after a failure, all connections are opened again: the runtime repeats what it last said, the
node orders again what it does not know to have ended, and the attempt sends each unanswered
request again under its number; each side does a thing once. Values of at most INLINE_LIMIT encoded
bytes ride along under "value". A larger one is written into a memfd first, and "value" is the
number that `memory` was answered with. Log records are datagrams of their own on the log socket:
msgpack [seconds since the epoch, level, text], with at most MAX_LOG_TEXT bytes of text.

**To the plane**, where the swarm's tasks exchange directly: `open_exchange` is answered with a
connection, one for each channel that needs it. The attempt says nothing first. It sends requests of
`manta.node.plane.requests` and is answered as above. A value of more than INLINE_LIMIT bytes comes
in a sealed memfd (fds=1), and "value" is a list of its size. A request that a signal cut short
ends the connection; none is sent twice.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 8
PATIENCE = 30.0
"""Seconds that a task waits for its node's service to come back."""
INLINE_LIMIT = 64 * 1024
UNFIT = 78
"""The exit code of a runtime whose Python is not that which its packages are made for (EX_CONFIG of
sysexits.h); it says on stderr which is which."""
MAX_TO_NODE = 1024 * 1024
MAX_TO_TASK = 16 * 1024 * 1024
MAX_END = 256 * 1024
"""What an attempt leaves at its end: a value of INLINE_LIMIT, or a traceback."""
MAX_PACKAGES = 2000
MAX_STACKS = 32 * 1024
"""Characters."""
MAX_FDS = 64
_MOST_FDS = 256
"""That no message has claimed yet."""
MAX_CHANNELS = 64
MAX_LOG_TEXT = 32 * 1024
HEADER = struct.Struct("<I")
_READ = 64 * 1024  # bytes at a time: malloc would map larger buffers again each time

PLANE_REQUESTS = frozenset(
    (
        "find_node",
        "send_letter",
        "receive_letter",
        "return_letters",
        "say_to_all",
        "hear_broadcast",
        "make_room",
        "call_collective",
    )
)
"""Requests that an attempt sends to the plane, by the names of `manta.node.plane.requests`."""

ORDERED_BY_BARRIERS = frozenset(("set_global", "add_result", "checkpoint"))
"""Requests that write what other attempts may read: all of it is with the manager before a barrier
is over."""

_FIRST_LOOK, _LONGEST_LOOK = 20, 1000  # milliseconds

_FD = array.array("i").itemsize
_CTRUNC = int(socket.MSG_CTRUNC)  # the flags' own operators are Python
_CLOEXEC, _WAITALL = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_WAITALL)
_PEEK = int(socket.MSG_PEEK) | _WAITALL
_ANCILLARY = socket.CMSG_SPACE(MAX_FDS * _FD)


def interpreter() -> str:
    """The Python that runs this, and its machine: what compiled packages are made for."""
    import sysconfig  # only where there are any

    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):  # of another C library
        libc = ""
    return f"{sys.implementation.cache_tag} {sysconfig.get_platform()} {libc.split()[:1]}"


class BrokenFrame(Exception):
    """The other side sent what the protocol forbids."""


def whole_characters(text: bytes, limit: int) -> int:
    """How many bytes of a text in UTF-8, at most `limit`, end with a whole character."""
    for at in range(limit, max(0, limit - 4), -1):
        if at >= len(text) or text[at] & 0xC0 != 0x80:
            return min(at, len(text))
    return limit  # it is not UTF-8


NOT_TEXT = "surrogateescape"
"""A node names files by any bytes, which Python's strings hold so; a task sends text alone."""


def frame(message: dict[str, Any], unicode_errors: str = "strict") -> bytes:
    body: bytes = msgpack.packb(message, unicode_errors=unicode_errors)
    return HEADER.pack(len(body)) + body


def send_frame(sock: socket.socket, data: bytes | memoryview, fds: Sequence[int] = ()) -> int:
    """Sends what the socket takes now, descriptors with the first byte; returns how many bytes."""
    if not fds:
        return sock.send(data)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    return sock.sendmsg([data], [rights])


def receive_bytes(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """What has arrived: at most `size` bytes, and descriptors, which the caller must close."""
    data, ancillary, flags, _ = sock.recvmsg(size, _ANCILLARY, _CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % _FD])
    if flags & _CTRUNC:
        for fd in fds:
            os.close(fd)
        raise BrokenFrame("more descriptors in one message than are allowed.")
    return data, fds.tolist()


class Frames:
    """Cuts a stream into frames, and keeps the descriptors that came until a frame claims them."""

    def __init__(self, limit: int, fds: int = _MOST_FDS) -> None:
        """`limit`: bytes of a frame; `fds`: descriptors that no frame has claimed yet."""
        self._limit = limit
        self._most_fds = fds
        self._buffer = bytearray()
        self._fds: list[int] = []

    def feed(self, data: bytes, fds: list[int]) -> None:
        """Raises BrokenFrame."""
        self._buffer += data
        self._fds += fds
        if len(self._fds) > self._most_fds:
            raise BrokenFrame("descriptors that no message announced.")

    def next(self) -> bytes | None:
        """The next whole frame. Raises BrokenFrame."""
        if len(self._buffer) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._buffer)
        if length > self._limit:
            raise BrokenFrame(f"a frame of {length} bytes, where {self._limit} are allowed.")
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[HEADER.size : end])
        del self._buffer[:end]
        return body

    def take(self, count: int) -> list[int]:
        """Descriptors that a frame announced; the caller must close them. Raises BrokenFrame."""
        if count > len(self._fds):
            raise BrokenFrame("a message without the descriptors that it announces.")
        taken, self._fds = self._fds[:count], self._fds[count:]
        return taken

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def _message(body: bytes | memoryview) -> dict[str, Any]:
    message: dict[str, Any] = msgpack.unpackb(body, strict_map_key=False, unicode_errors=NOT_TEXT)
    return message


class MessageSocket:
    """Messages over a blocking socket, on the task's side."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._frames = Frames(MAX_TO_TASK)

    @classmethod
    def to(cls, path: str) -> MessageSocket:
        """Raises OSError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    @classmethod
    def of(cls, fd: int) -> MessageSocket:
        """Takes over a connected descriptor."""
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd))

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Raises OSError."""
        if fds:
            message = {**message, "fds": len(fds)}
        self.send_data(frame(message, NOT_TEXT), fds)

    def send_data(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Sends a whole frame. Raises OSError."""
        sent = send_frame(self.socket, data, fds)
        if sent < len(data):
            self.socket.sendall(memoryview(data)[sent:])

    def receive(self, *, heeds_signals: bool = False) -> tuple[dict[str, Any], list[int]] | None:
        """Waits for the next message and its descriptors; None when the other side has closed.

        With `heeds_signals` it looks for signals now and then: one that comes between Python's
        look for signals and the beginning of a wait would else be seen at the end of that wait.
        Raises OSError, BrokenFrame.
        """
        while True:
            message = self.next()
            if message is not None:
                return message
            if heeds_signals:
                self._wait()
            if not self.fill():
                return None

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        pause = _FIRST_LOOK
        while not poll.poll(pause):
            pause = min(2 * pause, _LONGEST_LOOK)

    def peek(self) -> int:
        """Waits for the next message without reading it; its size, 0 at the stream's end.

        It and `take` keep nothing of what comes after: the next message may be another process's.
        """
        header = self.socket.recv(HEADER.size, _PEEK)
        return HEADER.size + HEADER.unpack(header)[0] if header else 0

    def take(self, size: int) -> tuple[dict[str, Any], list[int]]:
        """Reads the message of that size. Raises OSError, and BrokenFrame where it is cut short."""
        data, fds = receive_bytes(self.socket, size)
        while len(data) < size:
            more = self.socket.recv(size - len(data), _WAITALL)
            if not more:
                raise BrokenFrame("a message that is cut short.")
            data += more
        return _message(memoryview(data)[HEADER.size :]), fds

    def fill(self) -> bool:
        """Reads once; False at the stream's end."""
        data, fds = receive_bytes(self.socket, _READ)
        self._frames.feed(data, fds)
        return bool(data)

    def next(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message that has arrived in full, if any."""
        body = self._frames.next()
        if body is None:
            return None
        message = _message(body)
        return message, self._frames.take(message.get("fds", 0))

    def shut(self) -> None:
        """Ends a pending `receive`, which finds the stream's end; from any thread."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already

    def close(self) -> None:
        self._frames.close()
        try:
            self.socket.close()
        except OSError:
            return  # user code closed all descriptors that it did not know
