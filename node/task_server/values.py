"""Turns values that come along with requests into payloads; large ones go into the depot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from manta.light.wire import BrokenFrame
from manta.node.task_server.memory import Incoming, Memory
from manta.node.task_server.requests import Error
from manta.node.task_server.sessions import Attempt, RequestChannel, RuntimeSessions
from manta.protocol.values import BlobRef, Inline, Payload
from manta.transports.errors import BlobRefused, BulkError, remedied

_DIRECTLY = 1024 * 1024  # bytes up to which a value is hashed at once
_MOST = 7  # memories not handed in that an attempt may hold, besides one for each channel

log = logging.getLogger(__name__)

Then = Callable[[Any, Payload | None, Error | None], None]
"""Takes the AttemptDesk that there is by then, and a payload or an error."""


class TaskValues:
    """Hands memory out and takes values in; hashes large ones on a thread of its own."""

    def __init__(self, sessions: RuntimeSessions) -> None:
        self._sessions = sessions
        self._depot = sessions.depot
        self._sealer = ThreadPoolExecutor(1, "manta-light-seal")

    def close(self) -> None:
        self._sealer.shutdown()

    def hand_out(self, attempt: Attempt, size: int) -> tuple[int, int]:
        """Memory for a value: its number, and a descriptor to lend out. Raises OSError."""
        if len(attempt.memories) >= _MOST + len(attempt.channels):
            raise OSError("the task holds too much memory that it has not handed in")
        if not self._depot.has_room(size):
            raise OSError("the node's disk has no room for it; make room there")
        memory = self._memory(size)
        attempt.memory_count += 1
        attempt.memories[attempt.memory_count] = memory
        return attempt.memory_count, memory.fd

    def _memory(self, size: int) -> Memory | Incoming:
        if size <= self._depot.largest:
            try:
                return Memory(size)
            except OSError as error:
                log.info("There is no memory for a value of %d bytes: %s", size, error)
        return Incoming(self._depot, size)

    def take_in(self, channel: RequestChannel, value: Any, then: Then, desk: Any) -> None:
        """Makes a payload of a `requests.Value` as it arrived, and pins its blob for the request.

        `then` is called with it at once or later, on the server's thread. Raises BrokenFrame.
        """
        if not isinstance(value, int):
            then(desk, None if value is None else Inline(value), None)
            return
        memories = channel.attempt.memories
        memory = memories.get(value)
        if memory is None or memory.fd < 0:
            raise BrokenFrame(f"memory {value} was not handed out.")
        size = memory.size

        if isinstance(memory, Memory):
            del memories[value]

        def done(desk: Any, future: Future[str]) -> None:
            error = future.exception()
            if error is None:
                channel.pins.append(future.result())
                then(desk, BlobRef(future.result(), size), None)
                return
            kind = "BulkError"
            if isinstance(error, BlobRefused | OSError):
                kind = "ResourceExhaustionError"
            said = remedied(error) if isinstance(error, OSError) else error
            then(desk, None, (kind, f"{said}."))

        if isinstance(memory, Memory) and size <= _DIRECTLY:
            future: Future[str] = Future()
            try:
                future.set_result(self._adopt(memory))
            except (BulkError, OSError) as error:
                future.set_exception(error)
            done(desk, future)
            return
        if isinstance(memory, Incoming):
            future = memory.finish()
            future.add_done_callback(lambda _: memories.pop(value, None))
        else:
            future = self._sealer.submit(self._adopt, memory)
        future.add_done_callback(
            lambda future: self._sessions.post(lambda server: done(server.attempts, future))
        )

    def _adopt(self, memory: Memory) -> str:
        digest = self._depot.adopt(memory.fd, memory.size)
        self._depot.pin(digest)
        return digest
