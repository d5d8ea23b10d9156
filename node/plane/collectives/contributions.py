"""What a member's call comes with, as its machine is told."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from manta.node.plane.collectives.given import Given
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.pieces import Piece, bytes_of
from manta.node.plane.parcels import NoRoom
from manta.node.plane.requests import ALIGNED, CallCollective
from manta.node.reduction.forms import Leaf
from manta.protocol.base import Instance
from manta.transports.collectives.calls import Call, Entry, Kind, Placement, checked
from manta.transports.collectives.coverage import Coverage
from manta.transports.collectives.planner import ridden
from manta.transports.collectives.plans import VALUE, Buffer
from manta.transports.collectives.spreading import share_of
from manta.transports.exchange.letters import Value
from manta.transports.exchange.messages import Parcel

if TYPE_CHECKING:
    from manta.node.reduction.kernel import Kernel

_MOST_KERNELS = 64


class Unfit(Exception):
    """The request contradicts itself."""


class Ask(Protocol):
    at: Instance
    body: Any
    value: Value | None
    refusal: str
    """Why there is no room for its value, if so."""
    nodes: int
    """How many nodes a call that brings a value must have, at least."""


class Parcels(Protocol):
    """Of values that were handed in."""

    def own(self, parcel: bytes) -> int | None:
        """Its descriptor."""

    def release(self, value: Parcel) -> None: ...


class Contributions:
    def __init__(self, pool: Pool, parcels: Parcels) -> None:
        self._pool = pool
        self._parcels = parcels
        self._kernels: dict[tuple[Any, ...], Kernel] = {}

    def of(
        self, ask: Ask, rank: int, placement: Placement, before: str
    ) -> tuple[Given, dict[int, bytes]]:
        """With the bytes of its small values, by the rank that they are for; `before` is what
        `Entry` has of it. What the request brought is the meeting's from now on.

        Raises Unfit, TypeError and ValueError; then nothing of it is kept, nor where there is no
        room for it (`Given.refusal`).
        """
        try:
            found = self._of(ask, rank, placement, before)
        except BaseException:
            self.drop(ask)
            raise
        ask.value = None
        return found

    def entry(self, body: CallCollective, rank: int, placement: Placement, before: str) -> Entry:
        """What a member brings, without its values. Raises as `of`."""
        return self._entry(body, rank, placement, before)[0]

    def drop(self, ask: Ask) -> None:
        """What the request brought is of no use."""
        body: CallCollective = ask.body
        value, ask.value = ask.value, None
        if isinstance(value, Parcel):
            self._parcels.release(value)
        if body.room is not None and (block := self._pool.enter(ask.at, body.room)) is not None:
            self._pool.drop(block)

    def _of(
        self, ask: Ask, rank: int, placement: Placement, before: str
    ) -> tuple[Given, dict[int, bytes]]:
        body: CallCollective = ask.body
        entry, kernel = self._entry(body, rank, placement, before)
        buffers = list(_buffers(body, rank))
        stop = max((start + buffer.size for start, buffer in buffers), default=0)
        try:
            whole = self._memory(ask, stop)
        except NoRoom as error:
            self.drop(ask)
            return Given(entry, {}, kernel, refusal=str(error)), {}
        pieces = {
            buffer: whole._replace(view=whole.view[start : start + buffer.size], offset=start)
            for start, buffer in buffers
        }
        if not pieces:
            self.drop(ask)
        data = {
            to: bytes_of(pieces[buffer].view)
            for to, buffer in ridden(entry, rank, placement).items()
        }
        return Given(entry, pieces, kernel, nodes=ask.nodes if pieces else 0), data

    def _entry(
        self, body: CallCollective, rank: int, placement: Placement, before: str
    ) -> tuple[Entry, Kernel | None]:
        if bool(body.op) != body.kind.reduces or (body.room is not None and not body.op):
            raise Unfit(f"{body.words} does not say what it reduces, or reduces nothing.")
        kernel = self._kernel(body, placement.size) if body.op else None
        entry = Entry(_call(body, kernel), body.sizes, body.forms, body.digest, before)
        checked(entry, rank, placement)
        return entry, kernel

    def _memory(self, ask: Ask, size: int) -> Piece:
        """Raises Unfit, NoRoom."""
        body: CallCollective = ask.body
        if body.room is not None:
            block = self._pool.enter(ask.at, body.room)
            if block is None or block.size < size:
                if block is not None:
                    self._pool.drop(block)
                raise Unfit(f"{body.words} comes with a room that was not made for it.")
            return Piece(block.view, block)
        value = ask.value
        if ask.refusal:
            raise NoRoom(ask.refusal)
        if isinstance(value, bytes) and len(value) >= size:
            return Piece(memoryview(value))
        if isinstance(value, Parcel) and value.size >= size:
            fd = self._parcels.own(value.id)
            assert fd is not None, "it has just been handed in"
            try:
                memory = mmap.mmap(fd, value.size, mmap.MAP_SHARED, mmap.PROT_READ)
            except OSError as error:  # most often, too many files are open
                raise NoRoom(
                    f"The node can't map a value of {value.size} bytes: {error.strerror}."
                ) from error
            return Piece(memoryview(memory), parcel=value)
        if not size and value is None:
            return Piece(memoryview(b""))
        raise Unfit(f"{body.words} comes with less than the {size} bytes that it announces.")

    def _kernel(self, body: CallCollective, members: int) -> Kernel:
        """Raises TypeError for what can't be reduced."""
        size = sum(body.sizes)
        key = body.op, body.leaves, members, size
        found = self._kernels.get(key)
        if found is None:
            leaves = [
                Leaf(one.start, one.stop, one.dtype, one.where, one.said, one.into)
                for one in body.leaves
            ]
            if any(not 0 <= leaf.start <= leaf.stop <= size for leaf in leaves):
                raise Unfit(f"{body.words} has arrays beyond its {size} bytes.")
            covered = Coverage()
            for leaf in leaves:
                covered.add(leaf.start, leaf.stop)
            if any(stop - start >= ALIGNED for start, stop in covered.missing(0, size)):
                raise Unfit(f"{body.words} has arrays that leave out some of its {size} bytes.")
            from manta.node.reduction.kernel import Kernel  # numpy, which takes 0.1 s

            found = Kernel(body.op, leaves, members)
            if len(self._kernels) >= _MOST_KERNELS:
                self._kernels.clear()
            self._kernels[key] = found
        return found


def _call(body: CallCollective, kernel: Kernel | None) -> Call:
    # Who takes part in a gather that goes on without some is the root's to decide.
    goes_on = body.kind is Kind.GATHER or body.goes_on
    lost = "continue" if goes_on else "raise"
    if kernel is None:
        return Call(body.kind, body.words, body.root, on_lost=lost)  # type: ignore[arg-type]
    return Call(
        body.kind,
        body.words,
        body.root,
        kernel.itemsize,
        lost,  # type: ignore[arg-type]
        kernel.local_first,
        kernel.noted,
        kernel.reproducible,
    )


def _buffers(body: CallCollective, rank: int) -> Iterator[tuple[int, Buffer]]:
    """Each with where it begins."""
    if body.kind is not Kind.SCATTER:
        if body.sizes:
            yield 0, Buffer(VALUE, rank, sum(body.sizes))
        return
    start = 0
    for to, size in enumerate(body.sizes):
        yield start, share_of(rank, to, size)
        start += -(-size // ALIGNED) * ALIGNED
