"""What a peer's process is told at its start: by who begins it, and by who joins."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from manta.transports.security.keys import KEY_CHARACTERS, KeyPair

Key = Annotated[str, Meta(min_length=KEY_CHARACTERS, max_length=KEY_CHARACTERS)]
Doors = Annotated[tuple[tuple[tuple[str, ...], str], ...], Meta(max_length=10_000)]
"""Addresses where a peer admits others, and by which secret."""
MEMORY = 1 << 30


class Place(msgspec.Struct, frozen=True):
    """What it may use of the machine: JSON on its command line. `folder` is for what does not fit
    into memory."""

    folder: str
    memory: int = MEMORY
    """Bytes of large values that are kept in memory, as a node does."""
    listen: str = ""
    """In place of what who joins says."""
    advertised: tuple[str, ...] = ()
    """Hosts that others are told, in place of the machine's own."""
    hosts: tuple[str, ...] | None = None
    """Which it may connect to; None where that may be any."""


class Join(msgspec.Struct, frozen=True):
    """`listen` is a host, with or without a port; `peers` are addresses of doors. Of `secret` and
    `keys`, one is given."""

    name: str
    listen: str
    peers: tuple[str, ...]
    secret: str | None
    keys: tuple[Key, ...]
    own: Key | None
    """The secret half of this peer's key pair; a new one is made where it is left out."""
    topology: Any
    timeout: float
    faults: Any = None
    """Of an experiment, as `Faults.of` takes them; it begins with so many peers."""
    size: int = 1

    def pair(self) -> KeyPair:
        return KeyPair.generate() if self.own is None else KeyPair.from_secret(self.own)
