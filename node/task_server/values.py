"""Values that come along with requests, made payloads: what is large is taken into the depot."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from manta.light.wire import BrokenFrame
from manta.node.task_server.memory import Incoming, Memory
from manta.node.task_server.requests import Error
from manta.node.task_server.sessions import Channel, Round, Sessions
from manta.protocol.values import BlobRef, Inline, Payload
from manta.transports.errors import BlobRefused, BulkError

_DIRECTLY = 1024 * 1024  # bytes up to which a value is hashed at once
_MOST = 7  # memories not handed in that a round may hold, besides one for each channel

Then = Callable[[Any, Payload | None, Error | None], None]
"""Takes the server that there is by then, and the payload or the error."""


class TaskValues:
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
        memory = Incoming(self._depot, size) if large else Memory(size)
        round_.memory_count += 1
        round_.memories[round_.memory_count] = memory
        return round_.memory_count, memory.fd

    def take_in(self, channel: Channel, value: Any, then: Then, server: Any) -> None:
        """Make a payload of a `requests.Value` as it arrived. Raises BrokenFrame.

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
