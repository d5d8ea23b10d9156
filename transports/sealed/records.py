"""What two peers say to each other: heads of a fixed size, some with a payload; sealed or plain.

    head     kind, code, payload's length, transfer, two numbers: 40 bytes
    payload  a chunk's bytes, or the text of a refusal

Each head and each payload is a record of its own (`noise.Cipher`), and a payload is bound to its
head: bytes of another transfer, offset, length or total do not open. Who relays records learns
their sizes, and nothing else.

    sender -> receiver   OPEN limit=size            CHUNK offset, limit=size   CANCEL
    receiver -> sender   CREDIT offset=received, limit                         REFUSE
    either               PING                       BYE: the peer broke the rules, and how
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from manta.transports.errors import RemoteProtocolError
from manta.transports.sealed.noise import TAG

if TYPE_CHECKING:
    from manta.transports.interface import Buffer
    from manta.transports.sealed.noise import Cipher

    Read = Callable[[memoryview], object]
    """Fills the buffer with what comes next."""

MAX_CHUNK = 1 << 20  # bytes
MAX_TEXT = 1000  # bytes
TRANSFER = 16  # bytes of a transfer's id
NO_TRANSFER = bytes(TRANSFER)
_MAX_SIZE = 1 << 62
_HEAD = struct.Struct(">BBHI16sQQ")


class Kind(IntEnum):
    OPEN = 1
    CREDIT = 2
    CHUNK = 3
    REFUSE = 4
    CANCEL = 5
    PING = 6
    BYE = 7


_WITH_TEXT = frozenset({Kind.REFUSE, Kind.CANCEL, Kind.BYE})


class Head(NamedTuple):
    """One message, without its payload. Offsets are bytes from the transfer's start."""

    kind: Kind
    transfer: bytes = NO_TRANSFER
    offset: int = 0
    limit: int = 0
    length: int = 0  # of the payload
    code: int = 0

    def pack(self) -> bytes:
        kind, transfer, offset, limit, length, code = self
        return _HEAD.pack(kind, code, 0, length, transfer, offset, limit)

    @classmethod
    def unpack(cls, data: Buffer) -> Head:
        """Raises RemoteProtocolError."""
        try:
            number, code, zero, length, transfer, offset, limit = _HEAD.unpack(data)
            kind = Kind(number)
        except (struct.error, ValueError):
            raise RemoteProtocolError("a head of bulk is malformed") from None
        if zero or limit > _MAX_SIZE or not _is_sound(kind, offset, limit, length):
            raise RemoteProtocolError(f"a head of bulk says {kind.name} beyond its bounds")
        return cls(kind, transfer, offset, limit, length, code)


def _is_sound(kind: Kind, offset: int, limit: int, length: int) -> bool:
    if kind is Kind.CHUNK:
        return 0 < length <= min(MAX_CHUNK, limit - offset)
    if kind in _WITH_TEXT:
        return length <= MAX_TEXT and not offset and not limit
    most = {Kind.OPEN: _MAX_SIZE, Kind.CREDIT: limit}.get(kind, 0)
    return not length and offset <= most


def text_of(data: Buffer) -> str:
    return bytes(data).decode("utf-8", "replace")


def as_text(sentence: str) -> bytes:
    """Cut to what a head may have."""
    return sentence.encode("utf-8")[:MAX_TEXT]


class Records(Protocol):
    """How heads and payloads are bytes on a stream."""

    head_bytes: int

    def frames(self, head: Head, payload: Buffer | None) -> list[Buffer]:
        """What is to be sent; valid until the next call."""

    def head(self, data: Buffer) -> Head:
        """The head that was received. Raises RemoteProtocolError."""

    def payload(self, head: Head, into: memoryview, read: Read) -> None:
        """Receive a head's payload, of `head.length` bytes. Raises RemoteProtocolError."""


class SealedRecords:
    """With the two ciphers of a handshake. One thread sends, and one receives."""

    head_bytes = _HEAD.size + TAG

    def __init__(self, send: Cipher, receive: Cipher) -> None:
        self._send = send
        self._receive = receive
        self._out = memoryview(bytearray(self.head_bytes + MAX_CHUNK + TAG))
        self._in = memoryview(bytearray(MAX_CHUNK + TAG))
        # Untouched memory costs nothing: a connection pays for the chunks that it sees.

    def frames(self, head: Head, payload: Buffer | None) -> list[Buffer]:
        plain = head.pack()
        if payload is None:
            return [self._send.seal(plain)]
        at, end = self.head_bytes, self.head_bytes + head.length + TAG
        self._out[:at] = self._send.seal(plain)
        self._send.seal_into(payload, plain, self._out[at:end])
        return [self._out[:end]]

    def head(self, data: Buffer) -> Head:
        return Head.unpack(self._receive.open(data))

    def payload(self, head: Head, into: memoryview, read: Read) -> None:
        record = self._in[: head.length + TAG]
        read(record)
        self._receive.open_into(record, head.pack(), into)


class PlainRecords:
    """As they are, within one machine."""

    head_bytes = _HEAD.size

    def frames(self, head: Head, payload: Buffer | None) -> list[Buffer]:
        return [head.pack()] if payload is None else [head.pack(), payload]

    def head(self, data: Buffer) -> Head:
        return Head.unpack(data)

    def payload(self, head: Head, into: memoryview, read: Read) -> None:
        read(into)
