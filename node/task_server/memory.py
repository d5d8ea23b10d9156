"""Large values of tasks: memory that is handed out, filled, and taken in as blobs."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from manta.light.wire import BrokenFrame
from manta.node.task_server import requests
from manta.node.task_server.sessions import Channel, Round, Sessions
from manta.protocol.values import BlobRef, Inline, Payload
from manta.transports.blobs.writer import PIECE
from manta.transports.errors import BlobRefused, BulkError

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot

_DIRECTLY = 1024 * 1024  # bytes up to which a value is hashed at once
_MOST = 7  # memories not handed in that a round may hold, besides one for each channel

Then = Callable[[Any, Payload | None, tuple[str, str] | None], None]
"""Takes the server that there is by then, the payload, or the error's kind and sentence."""


class Memory:
    """A memfd that the task writes its value into."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size

    def close(self) -> None:
        os.close(self.fd)


class Incoming:
    """A value that memory should not hold: the task writes it to a socket, a thread to a file.

    A file of the task's own would have to be copied, as nobody could keep it from changing it.
    """

    def __init__(self, depot: TieredDepot, size: int) -> None:
        self._ours, theirs = socket.socketpair()
        self.fd = theirs.detach()
        self.size = size
        self._depot = depot
        self._digest: Future[str] = Future()
        threading.Thread(target=self._receive, name="manta-light-value", daemon=True).start()

    def finish(self) -> Future[str]:
        """The task has written all: the digest, of a blob that is pinned."""
        os.close(self.fd)
        self.fd = -1
        return self._digest

    def close(self) -> None:
        """The round is over."""
        if self.fd >= 0:  # and nobody wants it
            os.close(self.fd)
            self._digest.add_done_callback(self._let_go)
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)

    def _let_go(self, digest: Future[str]) -> None:
        if digest.exception() is None:
            self._depot.unpin(digest.result())

    def _receive(self) -> None:
        with self._ours:
            try:
                digest = self._depot.put_stream(self._ours.recv, self.size)
                self._depot.pin(digest)
            except BaseException as error:
                while self._drop():
                    continue
                self._digest.set_exception(error)
            else:
                self._digest.set_result(digest)

    def _drop(self) -> bool:
        """What the task still writes of a value that finds no room: it hears when it asks."""
        try:
            return bool(self._ours.recv(PIECE))
        except OSError:
            return False


class TaskMemory:
    """Hashing a large value takes a while: a thread of its own does it."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._depot = sessions.depot
        self._sealer = ThreadPoolExecutor(1, "manta-light-seal")

    def close(self) -> None:
        self._sealer.shutdown()

    def hand_out(self, round_: Round, size: int) -> tuple[int, int]:
        """A number, and a descriptor that stays the round's. Raises OSError."""
        if len(round_.memories) >= _MOST + len(round_.channels):
            raise OSError("the task holds too much memory that it has not handed in")
        if not self._depot.has_room(size):
            raise OSError("the node's disk has no room for it; make room there")
        large = size > self._depot.largest
        memory = Incoming(self._depot, size) if large else Memory(requests.memory(size), size)
        round_.memory_count += 1
        round_.memories[round_.memory_count] = memory
        return round_.memory_count, memory.fd

    def take_in(self, channel: Channel, value: bytes | int | None, then: Then, server: Any) -> None:
        """Make a payload of what came along with a request. Raises BrokenFrame.

        A blob is pinned for the request.
        """
        if not isinstance(value, int):
            then(server, None if value is None else Inline(value), None)
            return
        memories = channel.round.memories
        memory = memories.get(value)
        if memory is None or memory.fd < 0:
            raise BrokenFrame(f"memory {value} was not handed out.")
        size = memory.size

        if isinstance(memory, Memory):
            del memories[value]

        def done(server: Any, future: Future[str]) -> None:
            error = future.exception()
            if error is None:
                channel.pins.append(future.result())
                then(server, BlobRef(future.result(), size), None)
                return
            kind = "ResourceExhaustionError" if isinstance(error, BlobRefused) else "BulkError"
            then(server, None, (kind, f"{error}."))

        if isinstance(memory, Memory) and size <= _DIRECTLY:
            future: Future[str] = Future()
            try:
                future.set_result(self._adopt(memory))
            except BulkError as error:
                future.set_exception(error)
            done(server, future)
            return
        if isinstance(memory, Incoming):
            future = memory.finish()
            future.add_done_callback(lambda _: memories.pop(value, None))
        else:
            future = self._sealer.submit(self._adopt, memory)
        future.add_done_callback(
            lambda future: self._sessions.post(lambda server: done(server, future))
        )

    def _adopt(self, memory: Memory) -> str:
        digest = self._depot.adopt(memory.fd, memory.size)
        self._depot.pin(digest)
        return digest
