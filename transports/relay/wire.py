"""What a relay and those that it serves say to each other, over links that prove their keys. Pure.

A message has two parts: a head, and what its kind says.

    HERE    nothing: streams to its key may be opened over this link
    OPEN    a purpose (1 byte), and the key of the peer: to whom, and from whom
    DATA    bytes of the stream
    CREDIT  how many bytes more the receiver takes (4 bytes)
    BACK    how many bytes of credit the sender gives back (4 bytes)
    CLOSE   why, in UTF-8

A stream has a number on each of its two links, which who opens it there chooses: the relay's have
the highest bit. Credit counts what each message costs (`cost`), so that many small ones do not take
more of a link than a large one. What streams carry is sealed by those at their ends: a relay sees
ciphertext.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from manta.transports.errors import RemoteProtocolError

MAGIC = b"\0relay1"
THEIRS = 1 << 31
"""Set in the numbers that a relay chooses."""
MAX_DATA = 128 * 1024
MAX_TEXT = 200
WINDOW = 512 * 1024
"""Bytes of a stream, one way, that its receiver has not taken: what one that stops costs."""
RESERVE = 8 * 1024
"""Of these, what a stream always has: a sender gives back what it does not use beyond it."""
REPORT = RESERVE // 4
"""Bytes that a receiver has taken at least when it gives credit for more."""
OVERHEAD = 256
"""Bytes that a message costs besides its own: a link counts about as many."""
_HEAD = struct.Struct(f"<{len(MAGIC)}sBI")
_CREDIT = struct.Struct("<I")
_KEY = 40

Parts = Sequence[bytes | bytearray | memoryview]


class Kind(IntEnum):
    OPEN = 1
    DATA = 2
    CREDIT = 3
    CLOSE = 4
    HERE = 5
    BACK = 6


class Purpose(IntEnum):
    """What the ends of a stream do with it."""

    LINK = 1
    BULK = 2


class Said(NamedTuple):
    kind: Kind
    stream: int
    payload: bytes

    @property
    def credit(self) -> int:
        return int(_CREDIT.unpack(self.payload)[0])

    @property
    def opening(self) -> tuple[Purpose, str]:
        return Purpose(self.payload[0]), self.payload[1:].decode("ascii")

    @property
    def text(self) -> str:
        return self.payload.decode("utf-8", "replace")

    def pack(self) -> list[bytes]:
        return [_HEAD.pack(MAGIC, self.kind, self.stream), self.payload]


HERE = Said(Kind.HERE, 0, b"")


def is_relay(message: Parts) -> bool:
    return len(message) == 2 and bytes(message[0][: len(MAGIC)]) == MAGIC


def unpack(message: Parts) -> Said:
    """Raises RemoteProtocolError."""
    try:
        _, kind, stream = _HEAD.unpack(message[0])
        said = Said(Kind(kind), stream, bytes(message[1]))
    except (struct.error, ValueError) as error:
        raise RemoteProtocolError(f"no message of a relay: {error}") from None
    size = len(said.payload)
    fits = {
        Kind.OPEN: size == _KEY + 1 and said.payload.isascii(),
        Kind.DATA: 0 < size <= MAX_DATA,
        Kind.CREDIT: size == _CREDIT.size,
        Kind.BACK: size == _CREDIT.size,
        Kind.CLOSE: size <= MAX_TEXT,
        Kind.HERE: not size,
    }
    if not fits[said.kind]:
        raise RemoteProtocolError(f"a relay's {said.kind.name} of {size} bytes")
    if said.kind is Kind.OPEN and said.payload[0] not in set(Purpose):
        raise RemoteProtocolError("a stream for an unknown purpose")
    return said


def opening(stream: int, purpose: Purpose, key: str) -> Said:
    return Said(Kind.OPEN, stream, bytes([purpose]) + key.encode("ascii"))


def data(stream: int, payload: bytes) -> Said:
    return Said(Kind.DATA, stream, payload)


def credit(stream: int, size: int) -> Said:
    return Said(Kind.CREDIT, stream, _CREDIT.pack(size))


def giving_back(stream: int, size: int) -> Said:
    return Said(Kind.BACK, stream, _CREDIT.pack(size))


def cost(payload: bytes) -> int:
    """What a message of a stream takes of its credit."""
    return OVERHEAD + len(payload)


def closing(stream: int, why: str) -> Said:
    return Said(Kind.CLOSE, stream, why.encode()[:MAX_TEXT])
