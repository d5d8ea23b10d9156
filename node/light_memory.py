"""Large values of tasks: memory that is handed out, filled, and taken in as blobs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from manta.light.wire import BrokenFrame
from manta.node import light_requests as requests
from manta.node.light_sessions import Channel, Round, Sessions
from manta.protocol.values import BlobRef, Inline, Payload
from manta.transports.errors import BlobRefused, BulkError

_DIRECTLY = 1024 * 1024  # bytes up to which a value is hashed at once
_MOST = 7  # memories not handed in that a round may hold, besides one for each channel

Then = Callable[[Any, Payload | None, tuple[str, str] | None], None]
"""Takes the server that there is by then, the payload, or the error's kind and sentence."""


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
        fd = requests.memory(size)
        round_.memory_count += 1
        round_.memories[round_.memory_count] = (fd, size)
        return round_.memory_count, fd

    def take_in(self, channel: Channel, value: bytes | int | None, then: Then, server: Any) -> None:
        """Make a payload of what came along with a request. Raises BrokenFrame.

        A blob is pinned for the request.
        """
        if not isinstance(value, int):
            then(server, None if value is None else Inline(value), None)
            return
        memory = channel.round.memories.pop(value, None)
        if memory is None:
            raise BrokenFrame(f"memory {value} was not handed out.")
        fd, size = memory

        def adopt() -> str:
            digest = self._depot.adopt(fd, size)
            self._depot.pin(digest)
            return digest

        def done(server: Any, future: Future[str]) -> None:
            error = future.exception()
            if error is None:
                channel.pins.append(future.result())
                then(server, BlobRef(future.result(), size), None)
                return
            kind = "ResourceExhaustionError" if isinstance(error, BlobRefused) else "BulkError"
            then(server, None, (kind, f"{error}."))

        if size > _DIRECTLY:
            self._sealer.submit(adopt).add_done_callback(
                lambda future: self._sessions.post(lambda server: done(server, future))
            )
            return
        future: Future[str] = Future()
        try:
            future.set_result(adopt())
        except BulkError as error:
            future.set_exception(error)
        done(server, future)
