"""Names an actor: the system it lives in, its path there, and its incarnation."""

from __future__ import annotations

import itertools
import os
from typing import NamedTuple

ANY = 0
"""The incarnation of an address that means whichever actor is at the path."""


class Address(NamedTuple):
    """One incarnation of an actor. A restart keeps node and path and changes the incarnation."""

    node: str
    path: str
    incarnation: int = ANY

    def __str__(self) -> str:
        incarnation = f"#{self.incarnation & 0xFFFFF:x}" if self.incarnation else ""
        return f"{self.node}:{self.path}{incarnation}"


# Random where it begins, so that numbers do not repeat when the process is restarted: an address
# that a peer has kept from before must not reach the actor that lives at its path afterwards.
_incarnations = itertools.count((int.from_bytes(os.urandom(4), "big") << 20) + 1)


def next_incarnation() -> int:
    """Returns a number that no other incarnation has."""
    return next(_incarnations)
