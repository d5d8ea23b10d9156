"""What files for other programs hold of values: tables, .npz and JSON.

JSON has no NaN and no infinities: they are null, as in the output of `--json`. Bytes are written
as hexadecimal digits, arrays as nested lists, times as text.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from manta.apis.errors import InvalidArgument
from manta.protocol.names import file_name

_EXACT = 2**53
"""Integers up to this are exact as floats."""
_MOST_BITS = 10_000
"""Of larger integers Python prints no decimal digits."""


def cell(value: Any) -> tuple[str, Any]:
    """Returns the kind of a value and what a table stores of it."""
    value = _unwrapped(value)
    if isinstance(value, float) or (isinstance(value, int) and abs(value) <= _EXACT):
        return "number", float(value)
    if isinstance(value, str) and is_utf8(value):
        return "text", value
    if isinstance(value, bytes):
        return "bytes", value
    type_ = f"array {value.dtype}" if hasattr(value, "dtype") else "json"
    return type_, as_json(value)


def is_utf8(text: str) -> bool:
    """Whether files hold it: not with half a surrogate pair, as in names of files that are other
    bytes (PEP 383). JSON does, by an escape."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return hex(value)
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if _is_time(value):  # whose tolist() gives integers, depending on its unit
        return _plain(value.astype(str).tolist())
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value.hex() if isinstance(value, bytes) else str(value)


def _unwrapped(value: Any) -> Any:
    """Returns what is in an array or tensor without dimensions, such as a mean or a sum gives."""
    is_scalar = getattr(value, "shape", None) == () and not _is_time(value)
    return value.item() if is_scalar else value


def _is_time(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M")


def has_arrays(value: Any) -> bool:
    """Whether the value is, or holds, an array or tensor with dimensions."""
    return any(getattr(leaf, "shape", ()) != () for _, leaf in _leaves(value, ""))


def arrays(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Returns numpy arrays of values, each of which has a place, by place; `/key` is added to it
    for what is in dicts and lists, and `#2`, `#3`, ... where one is taken.

    Raises InvalidArgument, which names the place, for what .npz cannot hold.
    """
    found: dict[str, Any] = {}
    taken: Counter[str] = Counter()
    for where, value in values:
        for place, leaf in _leaves(value, where):
            taken[place] += 1
            copy = f"#{taken[place]}" if taken[place] > 1 else ""
            found[place + copy] = _array(leaf, place)
    return found


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Writes what numpy.savez would, which takes no array of the name `file`. Raises OSError."""
    from zipfile import ZipFile

    from numpy.lib import format

    with ZipFile(path, "w") as archive:
        for place, array in arrays.items():
            with archive.open(f"{place}.npy", "w", force_zip64=True) as file:
                format.write_array(file, array, allow_pickle=False)


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yields what is in dicts and lists, each with its place; an empty one itself."""
    if not isinstance(value, dict | list | tuple) or not value:
        yield where, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        name = file_name(str(key))
        yield from _leaves(item, f"{where}/{name}" if where else name)


def _array(value: Any, where: str) -> Any:
    """Returns a numpy array; a tensor whose type numpy lacks becomes float32 or complex64."""
    import numpy

    if hasattr(value, "detach"):
        tensor = value.detach().cpu().resolve_conj().resolve_neg()
        try:
            return tensor.numpy()
        except TypeError:  # of 8 or 16 bits, all of which 32 hold exactly
            return (tensor.cfloat() if tensor.is_complex() else tensor.float()).numpy()
    found = numpy.asarray(value)
    # numpy cuts the null characters at the end of a text.
    if found.dtype.hasobject or (isinstance(value, str | bytes) and found.item() != value):
        raise InvalidArgument(
            f"{where} is a {type(value).__name__}, which .npz cannot hold: choose the "
            "tags that are arrays, as in results(tag).to_npz(path), or use to_parquet."
        )
    return found
