"""What is written of a collective of an attempt that has ended.

Buffers say what the values are that follow each other; a CRC-32 follows these.
"""

from __future__ import annotations

import msgspec

from manta.node.reduction.forms import Leaf
from manta.transports.collectives import calls, messages
from manta.transports.collectives.actions import Outcome
from manta.transports.collectives.calls import Entry
from manta.transports.collectives.plans import Buffer

CHECK = 4
"""Bytes of the CRC-32."""


class _OfMember(msgspec.Struct, frozen=True, array_like=True):
    """Written when this member's attempt ended: it counts for as long as the member stays, and what
    came of a call that needs all for as long as the attempt counts."""

    number: int
    rank: int
    stay: int


class Gave(_OfMember, frozen=True, tag=1):
    """A member's contribution; `op` and `leaves` make its kernel."""

    entry: Entry
    buffers: tuple[Buffer, ...]
    op: str = ""
    leaves: tuple[Leaf, ...] = ()
    nodes: int = 0
    """Of how many the call must be for it to leave, at least."""


class Came(_OfMember, frozen=True, tag=2):
    """What all members get."""

    call: calls.Call
    done: messages.Done
    outcome: Outcome
    entries: dict[int, Entry]

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return self.outcome.buffers


class Failed(_OfMember, frozen=True, tag=3):
    error: str
    sentence: str
    buffers: tuple[Buffer, ...] = ()


What = Gave | Came | Failed

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(What).decode
