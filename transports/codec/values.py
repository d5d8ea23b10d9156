"""The value codec: encodes what user code may send.

Values are None, bool, int of any size, float, str, bytes, list, tuple, dict,
datetime, numpy arrays and scalars, torch tensors, and nests of them. They come
back equal and of the same type, with these exceptions: OrderedDict, defaultdict
and Counter come back as dict, a memmap as an array, a torch Parameter as a plain
CPU tensor that requires no gradient. Nothing is ever unpickled.

The container, version 1; integers are little-endian::

    0   4   magic "\\x93MV" and the version byte
    4   4   flags (bit 0: there are tuples)
    8   4   B, the number of buffers
    12  4   H, the length of the head in bytes
    16  8B  the lengths of the buffers in bytes
    ..  H   the head, one msgpack value
    ..      the buffers, each at the next multiple of 64; the container ends with the last

The head is plain msgpack but for these extension types. Each one marked * takes the
next unused buffer, in order of occurrence; every buffer is taken.

    1  tuple      no data; first element of a msgpack array that stands for a tuple
    2  int        beyond 64 bits: two's complement, little-endian
    3  datetime   `value_types.pack_datetime`
    4  bytes *    of 16 KiB and more
    5  str *      of 16 KiB and more, in UTF-8
    6  array *    msgpack [dtype, "C" | "F", shape]; numpy's dtype string, with its byte order
    7  scalar     length of the dtype, dtype, bytes: a numpy scalar
    8  tensor *   msgpack [dtype, shape]: a torch tensor in C order

Arrays decoded from a writable buffer (a bytearray, a private mmap) are writable views
of it; from a read-only one they are read-only views. Tensors are views of a writable
buffer and copies of a read-only one. Views keep the buffer alive: a mmap can't be
closed before they are gone.

Hostile bytes cost no more memory than about 64 times the head: structure and lengths
are checked before anything is built. This module imports on Python 3.10 with nothing
but msgpack, whose pure-Python form will do.
"""

from __future__ import annotations

import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgpack

from manta.transports.codec.value_types import (
    Piece,
    Refused,
    find_refused,
    pack_array,
    pack_datetime,
    pack_scalar,
    pack_tensor,
    unpack_array,
    unpack_datetime,
    unpack_scalar,
    unpack_tensor,
)
from manta.transports.errors import CorruptValue, MissingPackage, ValueNotSerializable

if TYPE_CHECKING:
    from manta.transports.interface import Buffer

__all__ = ["MAX_DEPTH", "Encoded", "decode", "encode"]

MAX_DEPTH = 200  # containers within containers
OUT_OF_BAND = 16 * 1024  # bytes and str of this length or more get a buffer of their own

_MAGIC = b"\x93MV\x01"
_PREFIX = struct.Struct("<4sIII")
_ALIGNMENT = 64
_MAX_HEAD = (1 << 31) - 1  # the limit of msgpack's Unpacker
_MAX_BUFFERS = 1 << 24
_UNSCANNED = 256  # a head up to this length can't claim much; scanning it would cost more
# msgpack's C form allocates an array when it reads its header, so that nested headers could
# claim the length times the depth; its Python form does not.
_CLAIMS_AHEAD = "cmsgpack" in msgpack.Unpacker.__module__
_HAS_TUPLES = 1
_TUPLE, _INT, _DATETIME, _BYTES, _STR, _ARRAY, _SCALAR, _TENSOR = range(1, 9)
_TUPLE_MARK = msgpack.ExtType(_TUPLE, b"")
_PLAIN = frozenset({type(None), bool, int, float})
# What msgpack accepts, but does not give back unchanged.
_MSGPACK_ONLY = frozenset({bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp})
_DICTS = frozenset({dict, OrderedDict, defaultdict, Counter})


class Encoded:
    """A value ready to be sent; arrays are read only then."""

    __slots__ = ("_layout", "nbytes")

    def __init__(self, prefix: bytes, head: bytes, pieces: list[Piece]) -> None:
        self._layout: list[tuple[int, bytes | Piece]] = [(0, prefix), (len(prefix), head)]
        end = len(prefix) + len(head)
        for piece in pieces:
            start = _aligned(end)
            self._layout.append((start, piece))
            end = start + piece.nbytes
        self.nbytes = end

    def parts(self) -> list[Buffer]:
        """The container as buffers, to be sent one after the other; copied only where needed."""
        parts: list[Buffer] = []
        end = 0
        for start, part in self._layout:
            if start > end:
                parts.append(bytes(start - end))
            view = part if isinstance(part, bytes) else part.view()
            parts.append(view)
            end = start + (len(part) if isinstance(part, bytes) else part.nbytes)
        return parts

    def to_bytes(self) -> bytes:
        """The container in one piece."""
        return b"".join(self.parts())


def encode(value: Any) -> Encoded:
    """Encode a value; its arrays must not change until it is written.

    Raises ValueNotSerializable, which names the place and the remedy.
    """
    packer = _Packer()
    try:
        lift = _scan(value)
        head = msgpack.packb(
            _lifted(value) if lift else value,
            default=packer.extend,
            strict_types=True,
            unicode_errors="surrogatepass",
        )
    except (Refused, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise find_refused(value, packer.extend, MAX_DEPTH, error) from None
    if len(head) > _MAX_HEAD:
        raise ValueNotSerializable(
            f"value has {len(head)} bytes outside arrays, of 2 GiB at most: "
            "put long lists of numbers into numpy arrays"
        )
    pieces = packer.pieces
    prefix = _PREFIX.pack(_MAGIC, packer.flags, len(pieces), len(head))
    if pieces:
        prefix += struct.pack(f"<{len(pieces)}Q", *(piece.nbytes for piece in pieces))
    return Encoded(prefix, head, pieces)


def decode(buffer: Buffer | Any) -> Any:
    """Decode one container, which fills the buffer (any object with the buffer protocol).

    Raises CorruptValue for bytes that are not a value, MissingPackage for a value that
    needs numpy, torch or a time zone that is not installed.
    """
    view = memoryview(buffer).cast("B")
    if len(view) < _PREFIX.size:
        raise CorruptValue(f"not a value: {len(view)} bytes are fewer than any value has")
    magic, flags, count, head_length = _PREFIX.unpack_from(view)
    if magic != _MAGIC:
        if magic[:3] == _MAGIC[:3]:
            raise CorruptValue(
                f"a value in format {magic[3]}, which this version of Manta can't read: update it"
            )
        raise CorruptValue("not a value: it does not start as values do")
    if flags & ~_HAS_TUPLES:
        raise CorruptValue(f"a value with unknown flags {flags:#x}")
    start = _PREFIX.size + 8 * count
    if count > _MAX_BUFFERS or start + head_length > len(view):
        raise CorruptValue("a value whose head is longer than the value")
    end = start + head_length
    buffers = []
    for nbytes in struct.unpack_from(f"<{count}Q", view, _PREFIX.size) if count else ():
        begin = _aligned(end)
        end = begin + nbytes
        if end > len(view):
            raise CorruptValue("a value whose buffers reach beyond its end")
        buffers.append(view[begin:end])
    if end != len(view):
        raise CorruptValue(f"a value followed by {len(view) - end} more bytes")
    unpacker = _Unpacker(buffers)
    try:
        value = unpacker.unpack(view[start : start + head_length], flags)
    except (CorruptValue, MissingPackage):
        raise
    except (TypeError, ValueError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise CorruptValue(f"a value with a malformed head: {error}") from error
    if unpacker.taken != count:
        raise CorruptValue("a value with buffers that nothing refers to")
    return value


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _scan(value: Any) -> bool:
    """Whether there are long bytes or str. Raises Refused for deep nesting, such as a cycle.

    Level by level, each container once, so that aliases and cycles cost nothing.
    """
    found = False
    level = [value]
    depth = 0
    while level:
        below: dict[int, Any] = {}
        for item in level:
            kind = type(item)
            if kind in _DICTS:
                children = item.values()
            elif kind is list or kind is tuple:
                children = item
            else:
                if kind in _MSGPACK_ONLY:
                    raise Refused.of_type(item)
                found = found or (kind in (bytes, str) and len(item) >= OUT_OF_BAND)
                continue
            if depth == MAX_DEPTH:
                raise Refused("is nested too deeply", "it flattened")
            below.update([(id(child), child) for child in children if type(child) not in _PLAIN])
        level = list(below.values())
        depth += 1
    return found


class _Long:
    """Marks bytes or str that get a buffer: msgpack would copy them into the head."""

    __slots__ = ("code", "data")

    def __init__(self, value: bytes | str) -> None:
        self.code = _STR if isinstance(value, str) else _BYTES
        self.data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _lifted(value: Any) -> Any:
    kind = type(value)
    if kind in (bytes, str):
        return _Long(value) if len(value) >= OUT_OF_BAND else value
    if kind in _DICTS:
        return {key: _lifted(item) for key, item in value.items()}
    if kind is list:
        return [_lifted(item) for item in value]
    if kind is tuple:
        return tuple([_lifted(item) for item in value])
    return value


class _Packer:
    """Converts what msgpack has no type for."""

    __slots__ = ("flags", "pieces")

    def __init__(self) -> None:
        self.flags = 0
        self.pieces: list[Piece] = []

    def extend(self, value: Any) -> Any:
        """Called by msgpack. Raises Refused."""
        kind = type(value)
        if kind is tuple:
            self.flags |= _HAS_TUPLES
            return [_TUPLE_MARK, *value]
        if kind in _DICTS:
            return dict(value)
        if kind is int:
            length = value.bit_length() // 8 + 1
            return msgpack.ExtType(_INT, value.to_bytes(length, "little", signed=True))
        if kind is _Long:
            self.pieces.append(Piece(len(value.data), lambda: value.data))
            return msgpack.ExtType(value.code, b"")
        if kind is datetime:
            return msgpack.ExtType(_DATETIME, pack_datetime(value))
        numpy: Any = sys.modules.get("numpy")
        if numpy is not None and hasattr(numpy, "ndarray"):
            if isinstance(value, numpy.ndarray):
                return self._out_of_band(_ARRAY, pack_array(numpy, value))
            if isinstance(value, numpy.generic):
                return msgpack.ExtType(_SCALAR, pack_scalar(numpy, value))
        torch: Any = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "Tensor") and isinstance(value, torch.Tensor):
            return self._out_of_band(_TENSOR, pack_tensor(torch, value))
        raise Refused.of_type(value)

    def _out_of_band(self, code: int, packed: tuple[bytes, Piece]) -> Any:
        self.pieces.append(packed[1])
        return msgpack.ExtType(code, packed[0])


class _Unpacker:
    """Builds the value that a head describes, over the container's buffers."""

    __slots__ = ("buffers", "taken")

    def __init__(self, buffers: list[memoryview]) -> None:
        self.buffers = buffers
        self.taken = 0

    def unpack(self, head: memoryview, flags: int) -> Any:
        length = len(head)
        if _CLAIMS_AHEAD and length > _UNSCANNED:
            # skip() allocates nothing, and fails unless all elements are there.
            scanner = msgpack.Unpacker(max_buffer_size=length, strict_map_key=False)
            scanner.feed(head)
            scanner.skip()
            if scanner.tell() != length:
                raise CorruptValue("a value with a malformed head: bytes are left over")
        return msgpack.unpackb(
            head,
            ext_hook=self._extension,
            list_hook=_restored if flags & _HAS_TUPLES else None,
            unicode_errors="surrogatepass",
            strict_map_key=False,
            timestamp=3,
            max_str_len=length,
            max_bin_len=length,
            max_array_len=length,
            max_map_len=length,
            max_ext_len=length,
        )

    def _extension(self, code: int, data: bytes) -> Any:
        """Called by msgpack, in order of occurrence."""
        if code == _ARRAY:
            return unpack_array(data, self._take())
        if code == _TENSOR:
            return unpack_tensor(data, self._take())
        if code == _BYTES:
            return bytes(self._take())
        if code == _STR:
            return str(self._take(), "utf-8", "surrogatepass")
        if code == _SCALAR:
            return unpack_scalar(data)
        if code == _INT:
            return int.from_bytes(data, "little", signed=True)
        if code == _DATETIME:
            return unpack_datetime(data)
        if code == _TUPLE and not data:
            return _TUPLE_MARK
        raise CorruptValue(f"a value with an extension of unknown type {code}")

    def _take(self) -> memoryview:
        if self.taken == len(self.buffers):
            raise CorruptValue("a value that refers to a buffer which it does not have")
        self.taken += 1
        return self.buffers[self.taken - 1]


def _restored(items: list[Any]) -> Any:
    """A tuple where the first element marks one. Called by msgpack."""
    if items and items[0] is _TUPLE_MARK:
        return tuple(items[1:])
    return items
