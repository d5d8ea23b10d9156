"""What a task is told of a collective's outcome.

It has `parts`: of each value [rank, size, block, place, offset]. Those with place -1 lie one after
the other in `data`; the others in the descriptor with that number, from byte `offset` on. `block`
names what the task says it no longer needs (0: nothing). `lost` has the ranks that are not in it,
and why; `warning` what all are to be warned of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from manta.node.plane.collectives.pieces import Piece

Answer = tuple[dict[str, Any], list[int]]
"""A message, and its descriptors."""


def answer(
    n: int,
    values: Sequence[tuple[int, Piece]],
    lost: dict[int, str],
    warning: str,
    fd_of: Callable[[Piece], int],
) -> Answer:
    """The answer to request `n` with these values, by rank; `fd_of` has what a piece lies in."""
    parts: list[list[int]] = []
    data: list[memoryview] = []
    fds: list[int] = []
    for rank, piece in values:
        size = len(piece.view)
        if piece.is_small:
            parts.append([rank, size, 0, -1, 0])
            data.append(piece.view)
            continue
        fd = fd_of(piece)
        if fd not in fds:
            fds.append(fd)
        block = 0 if piece.block is None else piece.block.number
        parts.append([rank, size, block, fds.index(fd), piece.offset])
    told: dict[str, Any] = {"k": "answer", "n": n, "parts": parts, "data": b"".join(data)}
    if fds:
        told["fds"] = len(fds)
    if lost:
        told["lost"] = lost
    if warning:
        told["warning"] = warning
    return told, fds
