"""What members of this plane gave to a call, for as long as it may be begun anew with it.

It lies with the other values of the call. Where the call was begun anew and another plane has what
came of it before, that takes the place of what was given, under the same names: what was given lies
*aside* then, and goes when the outcome is here. Should its holder be lost before, the call is begun
anew with what lies aside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from manta.node.plane.collectives.pieces import Piece, Pieces, Reading
from manta.node.plane.collectives.spare import Footprint
from manta.node.plane.parcels import NoRoom
from manta.transports.collectives.calls import Entry, Placement
from manta.transports.collectives.plans import Buffer

if TYPE_CHECKING:
    from manta.node.reduction.kernel import Kernel

OWNER = "The owner of a node lets values leave"
"""Begins what is told of a call that has too few nodes for one."""


@dataclass(frozen=True)
class Given:
    """What a member brings to the call."""

    entry: Entry
    pieces: Mapping[Buffer, Piece]
    kernel: Kernel | None = None
    refusal: str = ""
    """Why there is no room for its value, which is not there then."""
    nodes: int = 0
    """Of how many the call must be, at least, for its value to leave."""

    def too_few(self, placement: Placement) -> str:
        """Why its value may not leave for where the call is carried out, "" if it may."""
        if self.nodes <= len(placement.nodes):
            return ""
        return (
            f"{OWNER} in sums of {self.nodes} nodes or more, and all instances of "
            f"{placement.alias} are on {len(placement.nodes)}."
        )


class Known(NamedTuple):
    """What of it is remembered."""

    entry: Entry
    buffers: tuple[Buffer, ...]
    kernel: Kernel | None
    refusal: str
    nodes: int


class Giving:
    """Of one meeting, whose values lie in `memory`."""

    def __init__(self, memory: Pieces, aside: Pieces) -> None:
        self._memory = memory
        self._aside = aside
        self._known: dict[int, Known] = {}
        """By rank."""

    def __contains__(self, rank: int) -> bool:
        return rank in self._known

    @property
    def buffers(self) -> set[Buffer]:
        """In the meeting's memory."""
        given = (buffer for one in self._known.values() for buffer in one.buffers)
        return {buffer for buffer in given if not self._aside.has([buffer])}

    @property
    def is_aside(self) -> bool:
        """Does anything lie aside?"""
        return not self._aside.is_empty

    @property
    def small(self) -> int:
        """Bytes that `spill` moves."""
        return self._aside.small

    @property
    def footprint(self) -> Footprint:
        """The room that what lies aside takes."""
        return self._aside.footprint(self._aside.buffers)

    def came(self, rank: int, given: Given) -> None:
        """Its values lie in the meeting's memory, or were refused."""
        buffers = () if given.refusal else tuple(given.pieces)
        self._known[rank] = Known(given.entry, buffers, given.kernel, given.refusal, given.nodes)

    def lay_aside(self, rank: int, given: Given) -> None:
        """Of a call whose outcome is on its way. What finds no room is to be given again."""
        with contextlib.suppress(NoRoom):
            self._aside.add(given.pieces)
            self.came(rank, given)

    def make_way(self, buffer: Buffer) -> None:
        """The buffer is to be filled with something else."""
        if buffer in self.buffers:
            self._memory.hand_over([buffer], self._aside)
        else:
            self._memory.drop([buffer])

    def take_out(self, rank: int) -> Given | None:
        """For another meeting, which counts it from now on. None of what is not kept here, or can't
        be read from disk: it is to be given again."""
        one = self._known.get(rank)
        if one is None:
            return None
        for place in (self._aside, self._memory):
            if place.has(one.buffers):
                with contextlib.suppress(OSError):
                    pieces = place.take_out(one.buffers)
                    return Given(one.entry, pieces, one.kernel, one.refusal, one.nodes)
        return None

    def reading(self, rank: int) -> tuple[Known, list[Reading]] | None:
        """What the member gave, with a reading of each buffer; None of what is not kept here."""
        one = self._known.get(rank)
        for place in (self._aside, self._memory):
            if one is not None and place.has(one.buffers):
                return one, [place.reading(buffer) for buffer in one.buffers]
        return None

    def forget(self) -> None:
        """Nobody needs it again. What is in the meeting's memory is dropped by that."""
        self._known.clear()
        self._aside.drop_others(())

    def spill(self) -> bool:
        """Moves small values that lie aside onto disk; false if there are none. Raises NoRoom."""
        return self._aside.spill()

    def end(self) -> None:
        self._aside.end()
