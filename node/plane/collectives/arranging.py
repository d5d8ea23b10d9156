"""Brings together what of a meeting's outcome an answer can't bring as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from manta.node.plane.collectives.block import Block
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.pieces import Piece, Pieces
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
        before = [self._memory.of(buffer) for buffer in crowded]
        block, pieces = self._memory.room_for(crowded)

        def job() -> None:
            for one, piece in zip(before, pieces.values(), strict=True):
                piece.view[:] = one.view

        if sum(one.size for one in crowded) <= AT_ONCE:
            job()
            self._done(block, pieces, None)
            return False
        blocks = [one.block for one in before if one.block is not None]
        for held in blocks:
            self._pool.hold(held)
        self._waiting.append(then)

        def done(error: Exception | None) -> None:
            for held in blocks:
                self._pool.drop(held)
            self._done(block, pieces, error)

        self._work(job, done)
        return True

    def _done(self, block: Block, pieces: Mapping[Buffer, Piece], error: Exception | None) -> None:
        if error is None:
            for buffer in self._memory.there(pieces):
                self._pool.hold(block)
                self._memory.replace(buffer, pieces[buffer])
        self._pool.drop(block)
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(error)
