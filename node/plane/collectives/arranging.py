"""Brings together what of a meeting's outcome an answer can't bring as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from manta.node.plane.collectives.block import Block
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.pieces import Piece, Pieces
from manta.node.plane.parcels import NoRoom
from manta.transports.collectives.plans import Buffer

AT_ONCE = 512 * 1024
"""Bytes that are reduced, or copied, on the plane's thread: 0.1 ms, where to have another do it
costs as much."""

Then = Callable[[Exception | None], None]


class Arranging:
    """All of it on the plane's thread; `work` has a job done on another one."""

    def __init__(
        self, memory: Pieces, pool: Pool, work: Callable[[Callable[[], None], Then], None]
    ) -> None:
        self._memory = memory
        self._pool = pool
        self._work = work
        self._waiting: list[Then] = []
        """Who waits until an outcome is brought together."""

    @property
    def goes_on(self) -> bool:
        return bool(self._waiting)

    def begin(self, buffers: Iterable[Buffer], then: Then) -> bool:
        """Returns whether it goes on: `then` is called once it is done, or has failed. Raises
        NoRoom."""
        if self._waiting:
            self._waiting.append(then)
            return True
        crowded = self._memory.crowded(buffers)
        if not crowded:
            return False
        block, pieces = self._memory.room_for(crowded)
        parts = [(self._memory.reading(one), pieces[one].view) for one in crowded]

        def job() -> None:
            for reading, into in parts:
                reading.read(into)

        def done(error: Exception | None) -> None:
            for reading, _ in parts:
                reading.end()
            self._done(block, pieces, error)

        if sum(one.size for one in crowded) > AT_ONCE:
            self._waiting.append(then)
            self._work(job, done)
            return True
        try:
            job()
        except OSError as error:
            done(error)
            raise NoRoom(f"A value that was moved to disk can't be read: {error}.") from error
        done(None)
        return False

    def _done(self, block: Block, pieces: Mapping[Buffer, Piece], error: Exception | None) -> None:
        if error is None:
            for buffer in pieces:
                if self._memory.has([buffer]):
                    self._pool.hold(block)
                    self._memory.replace(buffer, pieces[buffer])
        self._pool.drop(block)
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(error)
