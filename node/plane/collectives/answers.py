"""What a task is told of a collective's outcome.

It has `parts`: of each value [rank, size, block, place, offset]. Those with place -1 lie one after
the other in `data`; the others in the descriptor with that number, from byte `offset` on. `block`
names what the task says it no longer needs (0: nothing). `lost` has the ranks that are not in it,
and why; `warning` what all are to be warned of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from manta.light.wire import MAX_FDS
from manta.node.plane.collectives.meeting import Piece
from manta.node.plane.collectives.memory import Block, Pool
from manta.node.plane.requests import ALIGNED

MOST_INLINE = 192 * 1024
"""Bytes of all small values: what of an answer fits into a socket's buffer."""

Values = list[tuple[int, Piece]]
"""By rank."""
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
        if piece.block is None and piece.parcel is None:
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


def packed(values: Values, pool: Pool, swarm_id: str) -> tuple[Values, Block | None]:
    """With values in a block of their own where an answer can't bring them all: small ones beyond
    MOST_INLINE bytes, large ones beyond MAX_FDS descriptors. Raises NoRoom."""
    small = [p for _, p in values if p.block is None and p.parcel is None]
    large = [p for _, p in values if p.block is not None or p.parcel is not None]
    moved = small if sum(len(piece.view) for piece in small) > MOST_INLINE else []
    moved = moved + large[MAX_FDS - 1 :]
    if not moved:
        return values, None
    block = pool.take(sum(map(_aligned, moved)), swarm_id)
    at = 0
    found: Values = []
    for rank, piece in values:
        if any(piece is one for one in moved):
            view = block.view[at : at + len(piece.view)]
            view[:] = piece.view
            found.append((rank, Piece(view, block, offset=at)))
            at += _aligned(piece)
        else:
            found.append((rank, piece))
    return found, block


def _aligned(piece: Piece) -> int:
    return -(-len(piece.view) // ALIGNED) * ALIGNED
