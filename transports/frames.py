"""The wire format of links. Pure.

A message is a first frame, the *head*, and the frames that it declares:

    byte 0   major version            the same in every version
    byte 1   minor version            the same in every version
    byte 2   kind: HELLO 1, PING 2, PONG 3, BYE 4, DATA 5
                                      HELLO and BYE the same in every version
    byte 3   detail: of a BYE its reason, the same in every version;
             else 1 if the parts follow in the head itself, 0 if in frames of their own
    byte 4   count of parts, 16 bits, then the size of each, 32 bits, network order
    ...      the parts, if they are in the head

Sizes and count are checked against `Limits` before a part is touched. Small
messages travel in the head alone: each zmq frame costs a CURVE box of its own.
A peer of another major version is told so by a BYE, whose four bytes any
version can read. A newer minor version may append to HELLO's body, and sends
nothing else that an older one does not know.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from manta.transports.errors import MessageTooLarge, RemoteProtocolError, VersionMismatch

if TYPE_CHECKING:
    from manta.transports.interface import Buffer

MAJOR = 1
MINOR = 0
INLINE_BYTES = 8192  # larger messages have a frame for each part, which saves a copy

_HEAD = struct.Struct("!BBBBH")
_HEAD_ONE = struct.Struct("!BBBBHI")
_PREFIX_BYTES = 4  # of a head, the same in every version
_COUNTED = struct.Struct("!Q")
_HELLO = struct.Struct("!IHIII")
_SINGLE = bytes((MAJOR, MINOR, 5, 1, 0, 1))  # one part, in the head
_MAX_UINT32 = 0xFFFFFFFF


class Kind(IntEnum):
    HELLO = 1
    PING = 2
    PONG = 3
    BYE = 4
    DATA = 5


class Bye(IntEnum):
    """Why the peer closes the link. Unknown values read as CLOSING."""

    CLOSING = 0
    VERSION = 1
    PROTOCOL = 2
    NO_LINK = 3  # the peer has no link for this connection: dial again


@dataclass(frozen=True)
class Limits:
    """What a peer may send; sizes in bytes."""

    frame_bytes: int = 4 * 1024 * 1024
    parts: int = 64
    message_bytes: int = 4 * 1024 * 1024

    def __post_init__(self) -> None:
        if not 64 <= self.frame_bytes <= _MAX_UINT32 or not 64 <= self.message_bytes <= _MAX_UINT32:
            raise ValueError("limits of frame and message are between 64 bytes and 4 GiB")
        if not 1 <= self.parts <= 0xFFFF:
            raise ValueError("the limit of parts is between 1 and 65535")


class Hello(NamedTuple):
    """The first message of each side."""

    limits: Limits
    window: int  # bytes that may be in flight, see `cost`
    silence_ms: int  # after which this side gives up a silent peer


class Head(NamedTuple):
    """A valid first frame."""

    kind: int
    detail: int
    minor: int
    sizes: tuple[int, ...]
    parts: list[Buffer] | None  # None: in frames of their own


def cost(sizes: Sequence[int]) -> int:
    """What a message takes of the window: its bytes, and the overhead of holding it."""
    return 128 + 64 * len(sizes) + sum(sizes)


def encode(message: Sequence[Buffer], limits: Limits) -> tuple[list[Buffer], int]:
    """The frames of a DATA message, and its cost. Raises MessageTooLarge."""
    if len(message) == 1:
        part = message[0]
        size = part.nbytes if type(part) is memoryview else len(part)
        if size <= INLINE_BYTES and size <= limits.frame_bytes and size <= limits.message_bytes:
            head = _HEAD_ONE.pack(MAJOR, MINOR, 5, 1, 1, size)
            return [b"".join((head, part))], 192 + size
    sizes = [p.nbytes if isinstance(p, memoryview) else len(p) for p in message]
    total = sum(sizes)
    _check_local(sizes, total, limits)
    inline = total <= INLINE_BYTES
    head = _HEAD.pack(MAJOR, MINOR, 5, inline, len(sizes)) + struct.pack(f"!{len(sizes)}I", *sizes)
    if inline:
        return [b"".join((head, *message))], cost(sizes)
    return [head, *message], cost(sizes)


def decode_head(head: bytes, limits: Limits) -> Head:
    """Decode and check a first frame.

    Raises VersionMismatch for another major version's HELLO, and
    RemoteProtocolError for anything else that is invalid.
    """
    length = len(head)
    if length < _PREFIX_BYTES:
        raise RemoteProtocolError(f"a head of {length} bytes: it has at least {_PREFIX_BYTES}")
    major, minor, kind, detail = head[0], head[1], head[2], head[3]
    if kind == Kind.BYE:
        return Head(kind, detail, minor, (), [])
    if major != MAJOR:
        if kind != Kind.HELLO:  # with which any version begins
            raise RemoteProtocolError("this is not a message of the protocol")
        raise VersionMismatch(
            f"the peer speaks version {major}.{minor}, this side {MAJOR}.{MINOR}: update the older"
        )
    if not 1 <= kind <= 5:
        raise RemoteProtocolError(f"no kind of message has the number {kind}")
    if length < _HEAD.size:
        raise RemoteProtocolError("the head ends before its count of parts")
    count = head[4] << 8 | head[5]
    if count > limits.parts:
        raise RemoteProtocolError(f"{count} parts in a message, {limits.parts} are allowed")
    at = _HEAD.size + 4 * count
    if length < at:
        raise RemoteProtocolError(f"the head ends before the sizes of its {count} parts")
    sizes = struct.unpack_from(f"!{count}I", head, _HEAD.size)
    if count and max(sizes) > limits.frame_bytes:
        raise RemoteProtocolError(f"a part of {max(sizes)} bytes, {limits.frame_bytes} are allowed")
    total = sum(sizes)
    if total > limits.message_bytes:
        raise RemoteProtocolError(f"a message of {total} bytes, {limits.message_bytes} are allowed")
    if detail == 0:
        if length != at:
            raise RemoteProtocolError(f"{length - at} bytes after the end of the head")
        return Head(kind, detail, minor, sizes, None)
    if detail != 1:
        raise RemoteProtocolError(f"the detail {detail} has no meaning")
    if length != at + total:
        raise RemoteProtocolError(f"{length - at} bytes of parts, {total} were declared")
    parts: list[Buffer] = []
    for size in sizes:
        parts.append(head[at : at + size])
        at += size
    return Head(kind, detail, minor, sizes, parts)


def single_part(head: bytes, limits: Limits) -> bytes | None:
    """The part of a valid DATA message of one part in its head, as nearly all are; else None."""
    if head[:6] != _SINGLE:
        return None
    size = len(head) - 10
    if size != int.from_bytes(head[6:10], "big"):
        return None
    return head[10:] if size <= limits.frame_bytes and size <= limits.message_bytes else None


def check_parts(head: Head, received: Sequence[int]) -> None:
    """Raises RemoteProtocolError unless the frames after the head have the declared sizes."""
    declared = head.sizes if head.parts is None else ()
    if tuple(received) != declared:
        raise RemoteProtocolError(
            f"{len(received)} frames of {sum(received)} bytes after the head, where it declares "
            f"{len(declared)} of {sum(declared)}"
        )


def encode_hello(hello: Hello) -> bytes:
    limits = hello.limits
    body = _HELLO.pack(
        limits.frame_bytes, limits.parts, limits.message_bytes, hello.window, hello.silence_ms
    )
    return _small(Kind.HELLO, body)


def decode_hello(head: Head) -> Hello:
    """Raises RemoteProtocolError."""
    parts = head.parts
    if not parts or len(parts[0]) < _HELLO.size:
        raise RemoteProtocolError("a HELLO without its body")
    frame, count, message, window, silence = _HELLO.unpack_from(parts[0])
    try:
        limits = Limits(frame, count, message)
    except ValueError as error:
        raise RemoteProtocolError(f"a HELLO with impossible limits: {error}") from None
    if window < 1 or silence < 1:
        raise RemoteProtocolError("a HELLO whose window or silence is zero")
    return Hello(limits, window, silence)


def encode_ping(received: int) -> bytes:
    """A PING tells how much its sender has received (see `cost`), and asks for a PONG."""
    return _small(Kind.PING, _COUNTED.pack(received))


def encode_pong(received: int) -> bytes:
    """A PONG tells it too; it is also sent unasked, to open the window."""
    return _small(Kind.PONG, _COUNTED.pack(received))


def decode_received(head: Head) -> int:
    """What the peer has received, by its PING or PONG. Raises RemoteProtocolError."""
    parts = head.parts
    if not parts or len(parts[0]) < _COUNTED.size:
        raise RemoteProtocolError("a PING or PONG without its count")
    counted: int = _COUNTED.unpack_from(parts[0])[0]
    return counted


def encode_bye(reason: Bye) -> bytes:
    return bytes((MAJOR, MINOR, Kind.BYE, reason))


def decode_bye(head: Head) -> Bye:
    try:
        return Bye(head.detail)
    except ValueError:
        return Bye.CLOSING


def common(ours: Limits, theirs: Limits) -> Limits:
    """What both sides accept."""
    return Limits(
        min(ours.frame_bytes, theirs.frame_bytes),
        min(ours.parts, theirs.parts),
        min(ours.message_bytes, theirs.message_bytes),
    )


def _small(kind: Kind, body: bytes) -> bytes:
    return _HEAD_ONE.pack(MAJOR, MINOR, kind, 1, 1, len(body)) + body


def _check_local(sizes: Sequence[int], total: int, limits: Limits) -> None:
    remedy = "move what is large as a blob"
    if len(sizes) > limits.parts:
        raise MessageTooLarge(
            f"a message of {len(sizes)} parts, the link takes {limits.parts}: {remedy}"
        )
    if sizes and max(sizes) > limits.frame_bytes:
        raise MessageTooLarge(
            f"a part of {max(sizes)} bytes, the link takes {limits.frame_bytes}: {remedy}"
        )
    if total > limits.message_bytes:
        raise MessageTooLarge(
            f"a message of {total} bytes, the link takes {limits.message_bytes}: {remedy}"
        )
