"""What one collective reduces on this plane: at once if it is little, else on another thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from manta.node.plane.collectives.arranging import AT_ONCE
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.pieces import Pieces
from manta.node.reduction.forms import Source
from manta.transports.collectives.actions import Reduce

if TYPE_CHECKING:
    from manta.node.reduction.kernel import Kernel

Work = Callable[[Callable[[], None], Callable[[Exception | None], None]], None]
"""Does the first on another thread, then the second on this one."""


class Reductions:
    def __init__(self, memory: Pieces, pool: Pool, work: Work) -> None:
        self._memory = memory
        self._pool = pool
        self._work = work

    def begin(
        self, kernel: Kernel, order: Reduce, then: Callable[[bytes, Exception | None], None]
    ) -> bytes | None:
        """The note of what it came to, if that was little; else `then` is to follow, with that or
        with why it failed. Raises NoRoom."""
        _, target, spans, members = order
        into = self._memory.span(target)
        sources = [Source(self._memory.span(span), span.buffer.is_interim) for span in spans]
        job = partial(kernel.reduce, target.start, into, sources, members)
        if len(into) * len(sources) <= AT_ONCE:
            return job()
        pieces = [self._memory.of(span.buffer) for span in (target, *spans)]
        blocks = [piece.block for piece in pieces if piece.block is not None]
        for block in blocks:
            self._pool.hold(block)
        note = [b""]

        def work() -> None:
            note[0] = job()

        def done(error: Exception | None) -> None:
            for block in blocks:
                self._pool.drop(block)
            then(note[0], error)

        self._work(work, done)
        return None
