"""Where an actor is: node, path and incarnation."""

from __future__ import annotations

import itertools
import os
from typing import NamedTuple

ANY = 0  # an address that names a path, whoever lives there now


class Address(NamedTuple):
    """One life of one actor. A restart keeps node and path and changes the incarnation."""

    node: str
    path: str
    incarnation: int = ANY

    def __str__(self) -> str:
        life = f"#{self.incarnation & 0xFFFFF:x}" if self.incarnation else ""
        return f"{self.node}:{self.path}{life}"


# Unique across the restarts of a process too: an address that a peer kept from before
# a crash must not reach whoever lives at its path afterwards.
_incarnations = itertools.count((int.from_bytes(os.urandom(4), "big") << 20) + 1)


def next_incarnation() -> int:
    """A number that no other incarnation has."""
    return next(_incarnations)
