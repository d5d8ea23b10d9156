"""What the buffers of a meeting lie in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from manta.light.wire import MAX_FDS
from manta.node.plane.collectives.block import Block
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.spare import Footprint
from manta.node.plane.collectives.spill import Spill, Spilled
from manta.node.plane.parcels import NoRoom
from manta.node.plane.requests import ALIGNED
from manta.node.plane.value_room import KeptNoLonger
from manta.transports.collectives import table
from manta.transports.collectives.plans import Buffer, Span
from manta.transports.exchange.messages import Parcel

INLINE = 64 * 1024
"""Bytes up to which memory is no block of its own."""
MOST_INLINE = 192 * 1024
"""Bytes of all small values: what of an answer fits into a socket's buffer."""
COST = 6144
"""Bytes that a meeting takes here beside its values, about."""


class Piece(NamedTuple):
    """Bytes of a buffer, or of what a member gave, and what they lie in."""

    view: memoryview
    block: Block | None = None
    parcel: Parcel | None = None
    offset: int = 0
    """Where in the block or parcel they begin."""

    @property
    def is_small(self) -> bool:
        """Do they lie in this process's own memory?"""
        return self.block is None and self.parcel is None


def bytes_of(view: memoryview) -> bytes:
    """Without a copy where they are bytes as a whole."""
    whole = view.obj
    return whole if isinstance(whole, bytes) and len(whole) == len(view) else bytes(view)


_SMALL = Piece(memoryview(b""))


class Read(Protocol):
    def __call__(self, into: memoryview, at: int = 0) -> None:
        """Copies what is there from byte `at` on, on any thread. Raises OSError where that is on
        disk and can't be read."""


class Reading(NamedTuple):
    """Bytes that stay where they are until `end` is called."""

    read: Read
    end: Callable[[], None]


class Pieces:
    """Of one meeting."""

    def __init__(
        self, swarm_id: str, pool: Pool, spill: Spill, release: Callable[[Parcel], None]
    ) -> None:
        self._swarm_id = swarm_id
        self._pool = pool
        self._spill = spill
        self._release = release
        self._pieces: dict[Buffer, Piece] = {}
        self._spilled: dict[Buffer, Spilled] = {}
        self._counted = 0
        """Bytes beside those of values."""
        self._small = 0
        """Bytes of small values that were made, whether there was room or not."""

    def weigh(self, size: int, *, anyway: bool = False) -> None:
        """So many bytes the meeting takes beside its values: what they are more than before is
        counted. Raises NoRoom, unless they are there `anyway`."""
        more = size - self._counted
        if more <= 0:
            self._give_small(-more)
        elif anyway:
            self._pool.count_small(more, self._swarm_id)
        else:
            self._take_small(more)
        self._counted = size

    @property
    def is_empty(self) -> bool:
        return not self._pieces and not self._spilled

    @property
    def buffers(self) -> Collection[Buffer]:
        """All that are kept, in memory or on disk."""
        return [*self._pieces, *self._spilled]

    def of(self, buffer: Buffer) -> Piece:
        """Made at first mention. Raises NoRoom, of what is small for that alone which is more than
        may ride together: others may have what comes of the call by now."""
        found = self._pieces.get(buffer)
        if found is None:
            assert buffer not in self._spilled, "what is on disk is copied, or taken out"
            if buffer.size <= INLINE:
                if self._small + buffer.size > table.TOGETHER:
                    self._take_small(buffer.size)
                else:
                    self._pool.count_small(buffer.size, self._swarm_id)
                    self._small += buffer.size
                found = Piece(memoryview(bytearray(buffer.size)))
            else:
                block = self._pool.take(buffer.size, self._swarm_id)
                found = Piece(block.view[: buffer.size], block)
            self._pieces[buffer] = found
        return found

    def span(self, span: Span) -> memoryview:
        """Raises NoRoom."""
        first = span.buffer.start
        return self.of(span.buffer).view[span.start - first : span.stop - first]

    def kept(self, buffer: Buffer) -> Piece:
        """What is there. Raises KeptNoLonger, and OSError where it is on disk and can't be read."""
        if (place := self._spilled.get(buffer)) is not None:
            return self._read(place)
        found = self._pieces.get(buffer)
        if found is None:
            raise KeptNoLonger("What came of a collective", "this node")
        return found

    def add(self, given: Mapping[Buffer, Piece], *, anyway: bool = False) -> None:
        """Raises NoRoom, unless they are there `anyway`; then they are dropped."""
        size = sum(len(one.view) for one in given.values() if one.is_small)
        try:
            if anyway:
                self._pool.count_small(size, self._swarm_id)
            else:
                self._take_small(size)
        except NoRoom:
            self._let_go(list(given.values()), small=False)
            raise
        self._pieces.update(given)

    def restore(self, values: Mapping[Buffer, Piece]) -> None:
        """What was kept when another process had room for it."""
        small = sum(len(one.view) for one in values.values() if one.is_small)
        self._pool.count_small(small, self._swarm_id)
        self._pieces.update(values)

    def put(self, buffer: Buffer, piece: Piece) -> None:
        """It lies in a block, which is held once for it."""
        self._pieces[buffer] = piece

    def replace(self, buffer: Buffer, piece: Piece) -> None:
        """The same bytes lie elsewhere from now on: in a block, held once for it."""
        self.drop([buffer])
        self._pieces[buffer] = piece

    def has(self, buffers: Iterable[Buffer]) -> bool:
        """Are all of them kept?"""
        return all(one in self._pieces or one in self._spilled for one in buffers)

    def take_out(self, buffers: Sequence[Buffer]) -> dict[Buffer, Piece]:
        """They are another's from now on, who counts small ones. Raises OSError where they are on
        disk and can't be read; then nothing has changed."""
        on_disk = {one: place for one in buffers if (place := self._spilled.get(one)) is not None}
        read = {buffer: self._read(place) for buffer, place in on_disk.items()}
        taken = {buffer: read.get(buffer) or self._pieces[buffer] for buffer in buffers}
        for buffer, piece in taken.items():
            if buffer in read:
                self._spill.drop(self._spilled.pop(buffer))
            else:
                del self._pieces[buffer]
                self._give_small(len(piece.view) if piece.is_small else 0)
        return taken

    def hand_over(self, buffers: Iterable[Buffer], to: Pieces) -> None:
        """As they are, on disk or in memory."""
        for buffer in buffers:
            if (place := self._spilled.pop(buffer, None)) is not None:
                to._spilled[buffer] = place
            if (piece := self._pieces.pop(buffer, None)) is not None:
                to._pieces[buffer] = piece

    def drop(self, buffers: Iterable[Buffer]) -> None:
        gone = []
        for buffer in buffers:
            if (place := self._spilled.pop(buffer, None)) is not None:
                self._spill.drop(place)
            if (piece := self._pieces.pop(buffer, None)) is not None:
                gone.append(piece)
        self._let_go(gone)

    def drop_others(self, kept: Collection[Buffer]) -> None:
        self.drop([buffer for buffer in self.buffers if buffer not in kept])

    def drop_given(self, given: Mapping[Buffer, Piece]) -> None:
        """What a member brought is not wanted."""
        self._let_go(list(given.values()), small=False)

    def end(self) -> None:
        self.drop(self.buffers)
        self._give_small(self._counted)
        self._counted = 0

    def _let_go(self, pieces: Sequence[Piece], *, small: bool = True) -> None:
        """Of none that is in use yet; `small`: small values among them were counted."""
        used = {piece.parcel.id for piece in self._pieces.values() if piece.parcel is not None}
        parcels = {}
        for piece in pieces:
            if piece.block is not None:
                self._pool.drop(piece.block)
            elif piece.parcel is None:
                self._give_small(len(piece.view) if small else 0)
            elif piece.parcel.id not in used:
                parcels[piece.parcel.id] = piece.parcel
        for parcel in parcels.values():
            self._release(parcel)

    def _take_small(self, size: int) -> None:
        """Raises NoRoom."""
        self._pool.take_small(size, self._swarm_id)

    def _give_small(self, size: int) -> None:
        self._pool.give_small(size, self._swarm_id)

    def footprint(self, buffers: Collection[Buffer]) -> Footprint:
        """The room that is given back if these are dropped."""
        if not buffers:
            return Footprint()
        gone = [self._pieces[one] for one in buffers if one in self._pieces]
        rest = [piece for one, piece in self._pieces.items() if one not in buffers]
        used = {piece.block for piece in rest} | {piece.parcel for piece in rest}
        small = sum(len(piece.view) for piece in gone if piece.is_small)
        blocks = {piece.block for piece in gone if piece.block is not None} - used
        files = sum(block.size for block in blocks if block.is_file)
        memory = sum(block.size for block in blocks if not block.is_file)
        found = Footprint(memory + small, files, small, len(blocks))
        for parcel in {piece.parcel for piece in gone if piece.parcel is not None} - used:
            in_memory, on_disk = self._pool.takes(parcel.id)
            found = found.plus(Footprint(in_memory, on_disk))
        return found

    # --- on disk ------------------------------------------------------------------------------

    @property
    def small(self) -> int:
        """Bytes of small values, which could go there."""
        return sum(len(piece.view) for piece in self._pieces.values() if piece.is_small)

    def spill(self) -> bool:
        """Moves small values into a file; false if there are none. Raises NoRoom."""
        small = {buffer: one for buffer, one in self._pieces.items() if one.is_small and one.view}
        if not small:
            return False
        places = self._spill.write([one.view for one in small.values()])
        for buffer, place in zip(small, places, strict=True):
            if buffer in self._pieces:
                self.drop([buffer])
                self._spilled[buffer] = place
            else:  # it was let go of, to make room for the file
                self._spill.drop(place)
        return True

    def _read(self, place: Spilled) -> Piece:
        """Raises OSError."""
        view = memoryview(bytearray(place.size))
        self._spill.read(place, view)
        return Piece(view)

    def copied(self, buffer: Buffer) -> Piece | None:
        """A copy of what is on disk, in a block that is held once: it is for one reader, and what
        is kept stays on disk. None of what is not there. Raises NoRoom."""
        place = self._spilled.get(buffer)
        if place is None:
            return None
        block = self._pool.take(buffer.size, self._swarm_id)
        view = block.view[: buffer.size]
        try:
            self._spill.read(place, view)
        except OSError as error:
            self._pool.drop(block)
            raise NoRoom(f"A value that was moved to disk can't be read: {error}.") from error
        return Piece(view, block)

    def reading(self, buffer: Buffer) -> Reading:
        """Of what is kept."""
        if (place := self._spilled.get(buffer)) is not None:
            self._spill.hold(place)
            return Reading(partial(self._spill.read, place), partial(self._spill.drop, place))
        piece, end = self._pieces[buffer], _nothing
        if piece.block is not None:
            self._pool.hold(piece.block)
            end = partial(self._pool.drop, piece.block)
        return Reading(partial(_copy, piece.view), end)

    # --- brought together -----------------------------------------------------------------------

    def crowded(self, buffers: Iterable[Buffer]) -> list[Buffer]:
        """Those of an outcome that an answer can't bring as they are: small ones if they have more
        than MOST_INLINE bytes, large ones beyond MAX_FDS descriptors."""
        there = [buffer for buffer in dict.fromkeys(buffers) if self.has([buffer])]
        small = [one for one in there if one in self._spilled or self._pieces[one].is_small]
        moved = small if sum(one.size for one in small) > MOST_INLINE else []
        places: dict[object, list[Buffer]] = {}
        for one in there:
            _, block, parcel, _ = self._pieces.get(one, _SMALL)
            if block is not None or parcel is not None:
                at = block if block is not None else parcel
                places.setdefault(id(at), []).append(one)
        if len(places) + bool(moved) > MAX_FDS:
            moved = moved + [one for them in [*places.values()][MAX_FDS - 1 :] for one in them]
        return moved

    def room_for(self, buffers: Sequence[Buffer]) -> tuple[Block, dict[Buffer, Piece]]:
        """A block for all of them, which is held once, and what each lies in then. Raises
        NoRoom."""
        starts, stop = [], 0
        for one in buffers:
            starts.append(stop)
            stop += -(-one.size // ALIGNED) * ALIGNED
        block = self._pool.take(stop, self._swarm_id)
        made = {}
        for one, start in zip(buffers, starts, strict=True):
            end = start + one.size
            made[one] = Piece(block.view[start:end], block, offset=start)
            block.view[end : end + -one.size % ALIGNED] = bytes(-one.size % ALIGNED)
        return block, made


def _copy(source: memoryview, into: memoryview, at: int = 0) -> None:
    into[:] = source[at : at + len(into)]


def _nothing() -> None:
    pass
