"""What calls that are over keep, and can do without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from manta.node.plane.shares import Whose


class Footprint(NamedTuple):
    """The room that something takes."""

    memory: int = 0
    """Bytes, small values among them."""
    disk: int = 0
    small: int = 0
    blocks: int = 0
    """How many."""

    def plus(self, other: Footprint) -> Footprint:
        return Footprint(*(mine + its for mine, its in zip(self, other, strict=True)))

    def minus(self, other: Footprint) -> Footprint:
        return Footprint(*(mine - its for mine, its in zip(self, other, strict=True)))


Size = Callable[[Footprint], int]


class Keeps(Protocol):
    """What all calls that are over keep."""

    def small(self) -> Mapping[str, int]:
        """Bytes of small values that could go into files, by swarm."""

    def spill(self, whose: Whose) -> bool:
        """Moves some of them there; false if there are none, or the disk takes none."""

    def given(self) -> Mapping[str, Footprint]:
        """Of what members gave, which only planes that forgot a call may need; by swarm."""

    def let_go(self, whose: Whose, size: Size) -> bool:
        """Lets go of what was given to the oldest call of which that takes such room; false if none
        does."""


class Nothing:
    """Where no call is kept."""

    def small(self) -> Mapping[str, int]:
        return {}

    def spill(self, whose: Whose) -> bool:
        return False

    def given(self) -> Mapping[str, Footprint]:
        return {}

    def let_go(self, whose: Whose, size: Size) -> bool:
        return False
