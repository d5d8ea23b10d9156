"""The types that msgpack lacks: arrays, tensors, datetimes; and what cannot be encoded.

numpy and torch are never imported to encode, and only to decode what needs them.
"""

from __future__ import annotations

import importlib
import math
import re
import struct
import sys
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from manta.transports.errors import CorruptValue, MissingPackage, ValueNotSerializable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from manta.transports.interface import Buffer

_DTYPE = re.compile(
    r"[<>|](b1|[iu][1248]|f[248]|c8|c16|[SU][1-9][0-9]{0,8}"
    r"|[mM]8(\[[0-9]{0,9}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)
_TENSOR_DTYPES = {
    name: itemsize
    for itemsize, names in {
        1: "bool uint8 int8 float8_e4m3fn float8_e5m2",
        2: "uint16 int16 float16 bfloat16",
        4: "uint32 int32 float32",
        8: "uint64 int64 float64 complex64",
        16: "complex128",
    }.items()
    for name in names.split()
}
_DATETIME = struct.Struct("<HBBBBBIBB")
_OFFSET = struct.Struct("<q")
_NAIVE, _FIXED, _ZONE = range(3)
_MAX_DIMENSIONS = 64
_MAX_HEADER = 1024
_REMEDIES = {
    name: remedy
    for remedy, names in {
        "sorted(...) or list(...) of it": "set frozenset",
        "bytes(...) of it": "bytearray memoryview",
        "its .getvalue()": "BytesIO StringIO",
        "numpy.complex128(...) of it": "complex",
        "its .isoformat()": "date time",
        "its .total_seconds()": "timedelta",
        "its .to_pydatetime()": "Timestamp",
        "str(...) of it": "Decimal UUID",
        "list(...) of it": "range generator deque dict_keys dict_values",
        'its .to_dict("list") or .to_numpy()': "DataFrame",
        "its .to_numpy()": "Series",
    }.items()
    for name in names.split()
}


class Refused(Exception):
    """A value that can't be encoded: what it is, and what to send instead."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    @classmethod
    def of_type(cls, value: Any) -> Refused:
        """The refusal of an unsupported type."""
        kind = type(value)
        name = kind.__qualname__ if kind.__module__ == "builtins" else _full_name(kind)
        return cls(f"is of type {name}, which can't be sent", _remedy(value))


class Piece(NamedTuple):
    """Bytes that lie outside the container's head."""

    nbytes: int
    view: Callable[[], Buffer]
    """Returns the bytes, not copied if they are contiguous."""


def _array_view(numpy: Any, array: Any) -> Buffer:
    """The array's bytes in C order."""
    if not array.nbytes:
        return b""
    run = numpy.ascontiguousarray(array).reshape(-1)
    return memoryview(run.view(numpy.uint8))


def _tensor_view(torch: Any, tensor: Any) -> Buffer:
    # A tensor has no buffer protocol; its .numpy() lacks some dtypes.
    buffer = bytearray(tensor.numel() * tensor.element_size())
    if buffer:
        flat = torch.frombuffer(buffer, dtype=tensor.dtype)
        flat.view(tensor.shape).copy_(tensor)
    return buffer


def pack_array(numpy: Any, array: Any) -> tuple[bytes, Piece]:
    """The head's entry for an array, and its bytes. Raises Refused."""
    if type(array) is not numpy.ndarray and type(array) is not numpy.memmap:
        name = _full_name(type(array))
        remedy = "numpy.asarray(...) of it"
        if isinstance(array, numpy.ma.MaskedArray):  # which would drop the mask
            remedy = "its .filled(...), or a dict of its .data and .mask"
        raise Refused(f"is of type {name}, which can't be sent", remedy)
    dtype = _checked_dtype(array.dtype)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    header = msgpack.packb([dtype, order, array.shape])
    in_order = array.T if order == "F" else array
    return header, Piece(array.nbytes, partial(_array_view, numpy, in_order))


def unpack_array(header: bytes, buffer: memoryview) -> Any:
    """The array over the buffer. Raises CorruptValue, MissingPackage."""
    dtype, order, shape = _fields(header)
    numpy = _package("numpy", "a numpy array")
    kind = _dtype_from(numpy, dtype)
    _check_shape(shape, kind.itemsize, buffer)
    if order not in ("C", "F"):
        raise CorruptValue(f"an array in order {order!r:.20}")
    return numpy.ndarray(shape, kind, buffer=buffer if len(buffer) else None, order=order)


def pack_scalar(numpy: Any, scalar: Any) -> bytes:
    """The head's entry for a numpy scalar. Raises Refused."""
    array = numpy.asarray(scalar)
    if array.dtype.kind in "SU" and not array.dtype.itemsize:  # numpy.str_("")
        array = array.astype(array.dtype.kind + "1")
    dtype = _checked_dtype(array.dtype).encode()
    return bytes([len(dtype)]) + dtype + bytes(array.tobytes())


def unpack_scalar(header: bytes) -> Any:
    """The numpy scalar. Raises CorruptValue, MissingPackage."""
    start = 1 + header[0] if header else 0
    data = header[start:]
    numpy = _package("numpy", "a numpy scalar")
    kind = _dtype_from(numpy, header[1:start].decode())
    _check_shape((), kind.itemsize, data)
    return numpy.ndarray((), kind, buffer=data)[()]


def pack_tensor(torch: Any, tensor: Any) -> tuple[bytes, Piece]:
    """The head's entry for a tensor, and its bytes. Raises Refused."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        raise Refused("is a quantized tensor, which can't be sent", "its .dequantize()")
    if tensor.layout != torch.strided:
        raise Refused("is a sparse tensor, which can't be sent", "its .to_dense()")
    if tensor.device.type == "meta":
        raise Refused("is a tensor without data (on device 'meta')", "one that is materialised")
    dtype = str(tensor.dtype).partition(".")[2]
    if dtype not in _TENSOR_DTYPES:
        wider = "its .cfloat()" if tensor.is_complex() else "its .float()"
        raise Refused(f"is a tensor of {tensor.dtype}, which can't be sent", wider)
    nbytes = tensor.numel() * tensor.element_size()
    piece = Piece(nbytes, partial(_tensor_view, torch, tensor))
    return msgpack.packb([dtype, tuple(tensor.shape)]), piece


def unpack_tensor(header: bytes, buffer: memoryview) -> Any:
    """The tensor, over the buffer if that is writable. Raises CorruptValue, MissingPackage."""
    dtype, shape = _fields(header)
    itemsize = _TENSOR_DTYPES.get(dtype) if isinstance(dtype, str) else None
    if itemsize is None:
        raise CorruptValue(f"a tensor of type {dtype!r:.20}")
    _check_shape(shape, itemsize, buffer)
    torch = _package("torch", "a torch tensor")
    if not hasattr(torch, dtype):
        raise MissingPackage(f"the value holds a tensor of {dtype}: it needs a newer torch")
    kind = getattr(torch, dtype)
    if not len(buffer):
        return torch.empty(shape, dtype=kind)
    run = bytearray(buffer) if buffer.readonly else buffer
    return torch.frombuffer(run, dtype=kind).view(shape)


def pack_datetime(value: datetime) -> bytes:
    """Year, month, day, hour, minute, second, microsecond, fold and zone; raises Refused.

    The zone is 0: none; 1: a fixed offset, 8 bytes of microseconds and its name if it was
    given one; 2: a name as in the IANA database.
    """
    zone, extra = _NAIVE, b""
    tz = value.tzinfo
    if type(tz) is timezone:
        offset = tz.utcoffset(None)
        name = tz.tzname(None)
        zone, extra = _FIXED, _OFFSET.pack(offset // timedelta(microseconds=1))
        if name != timezone(offset).tzname(None):
            extra += name.encode("utf-8", "surrogatepass")
    elif tz is not None:
        key = getattr(tz, "key", None)
        if type(tz).__module__.partition(".")[0] != "zoneinfo" or not isinstance(key, str):
            raise Refused(
                f"is a datetime in a zone of type {_full_name(type(tz))}, which can't be sent",
                "its .astimezone(datetime.timezone.utc)",
            )
        zone, extra = _ZONE, key.encode("utf-8")
    day = (value.year, value.month, value.day)
    second = (value.hour, value.minute, value.second, value.microsecond)
    return _DATETIME.pack(*day, *second, value.fold, zone) + extra


def unpack_datetime(data: bytes) -> datetime:
    """The inverse of `pack_datetime`. Raises CorruptValue, MissingPackage."""
    if len(data) < _DATETIME.size:
        raise CorruptValue("a datetime of too few bytes")
    year, month, day, hour, minute, second, micro, fold, zone = _DATETIME.unpack_from(data)
    extra = data[_DATETIME.size :]
    tz: Any = None
    if zone == _FIXED and len(extra) >= _OFFSET.size:
        offset = timedelta(microseconds=_OFFSET.unpack_from(extra)[0])
        name = extra[_OFFSET.size :].decode("utf-8", "surrogatepass")
        tz = timezone(offset, name) if name else timezone(offset)
    elif zone == _ZONE:
        tz = _zone(extra.decode("utf-8"))
    elif zone != _NAIVE or extra:
        raise CorruptValue("a datetime with a malformed zone")
    return datetime(year, month, day, hour, minute, second, micro, tz, fold=fold)


def find_refused(
    value: Any, check: Callable[[Any], object], max_depth: int, error: Exception
) -> ValueNotSerializable:
    """The error that names the first place in `value` that can't be encoded, and the remedy.

    `check` raises Refused for a leaf that can't; `error` is what encoding raised, for the
    message when no place is found.
    """
    # The containers around the current item: (place, remaining children, id).
    path: list[tuple[str, Iterator[tuple[str, Any]], int]] = [("", iter([("value", value)]), 0)]
    while path:
        place, children, _ = path[-1]
        child = next(children, None)
        if child is None:
            path.pop()
            continue
        place += child[0]
        item = child[1]
        grandchildren = _children(item)
        if grandchildren is None:
            try:
                check(item)
            except Refused as refused:
                return ValueNotSerializable(f"{place} {refused.what}: send {refused.remedy}")
            continue
        if any(id(item) == above for _, _, above in path):
            return ValueNotSerializable(f"{place} contains itself: send a copy without the cycle")
        if len(path) > max_depth:
            shown = place if len(place) <= 60 else f"{place[:60]}..."
            return ValueNotSerializable(
                f"{shown} is nested more than {max_depth} levels deep: send it flattened"
            )
        path.append((place, grandchildren, id(item)))
    return ValueNotSerializable(f"value can't be sent: {error}")


_LEAVES = frozenset({type(None), bool, int, float, str, bytes})


def _children(item: Any) -> Iterator[tuple[str, Any]] | None:
    """The children of a container, each with its place; None for a leaf."""
    kind = type(item)
    if kind in _LEAVES:
        return iter(())
    if kind is list or kind is tuple:
        return ((f"[{index}]", child) for index, child in enumerate(item))
    if isinstance(item, dict) and (kind is dict or kind.__module__ == "collections"):
        return _items(item)
    return None


def _items(mapping: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    import json

    for key, child in mapping.items():
        shown = json.dumps(key, ensure_ascii=False) if isinstance(key, str) else repr(key)
        place = f"[{shown if len(shown) <= 80 else shown[:80] + '...'}]"
        if type(key) not in _LEAVES:
            yield f"{place} (the key)", key
        yield place, child


def _remedy(value: Any) -> str:
    kind = type(value)
    torch = sys.modules.get("torch")
    if kind.__name__ in _REMEDIES:
        return _REMEDIES[kind.__name__]
    if isinstance(value, Enum):
        return "its .value"
    if hasattr(value, "_asdict"):
        return "its ._asdict()"
    if hasattr(value, "__dataclass_fields__"):
        return "dataclasses.asdict(...) of it"
    if hasattr(value, "__fspath__"):
        return "str(...) of it"
    if torch is not None and isinstance(value, getattr(getattr(torch, "nn", None), "Module", ())):
        return "its .state_dict()"
    for base in (dict, list, tuple, bool, int, float, str, bytes):
        if isinstance(value, base):
            return f"{base.__name__}(...) of it"
    return "a dict of its fields, an array or bytes"


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _checked_dtype(dtype: Any) -> str:
    name: str = dtype.str
    if not _DTYPE.fullmatch(name):
        remedy = "a list, or its .astype(...) of a fixed type"
        if dtype.names:
            remedy = "a dict of its fields, an array each"
        elif dtype.kind in "fc":
            remedy = "its .astype(float) or .astype(complex)"
        raise Refused(f"is of numpy type {str(dtype)[:60]}, which can't be sent", remedy)
    return name


def _dtype_from(numpy: Any, name: Any) -> Any:
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise CorruptValue(f"an array of type {name!r:.40}")
    return numpy.dtype(name)


def _fields(header: bytes) -> Any:
    if len(header) > _MAX_HEADER:
        raise CorruptValue("an array with an overlong header")
    return msgpack.unpackb(header, use_list=False)


def _check_shape(shape: Any, itemsize: int, buffer: Buffer) -> None:
    """Raises CorruptValue unless an array of this shape fills the buffer."""
    if (
        not isinstance(shape, tuple)
        or len(shape) > _MAX_DIMENSIONS
        or not all(type(size) is int and 0 <= size < 1 << 62 for size in shape)
        or math.prod(shape) * itemsize != len(buffer)
    ):
        raise CorruptValue("an array whose shape and buffer differ")


def _package(name: str, what: str) -> Any:
    try:
        return sys.modules.get(name) or importlib.import_module(name)
    except ImportError as error:
        raise MissingPackage(
            f"the value holds {what}, and {name} can't be imported here ({error}): "
            f"add it to the image or to the module's requirements"
        ) from error


def _zone(key: str) -> Any:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(key)
    except ZoneInfoNotFoundError as error:
        raise MissingPackage(
            f"the value holds a datetime in the zone {key!r:.60}, which is not known here: "
            "install tzdata"
        ) from error
