"""What a table or an .npz file holds of a result's value.

JSON has no NaN and no infinities: they are null, as in the output of `--json`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from manta.apis.errors import InvalidArgument
from manta.protocol.names import file_name

_EXACT = 2**53
"""Integers up to this are exact as floats."""


def cell(value: Any) -> tuple[str, Any]:
    """Returns the kind of a value and what a table stores of it."""
    if getattr(value, "shape", None) == ():  # what a mean or a sum gives
        value = value.item()
    if isinstance(value, float) or (isinstance(value, int) and abs(value) <= _EXACT):
        return "number", float(value)
    if isinstance(value, str):
        return "text", value
    if isinstance(value, bytes):
        return "bytes", value
    type_ = f"array {value.dtype}" if hasattr(value, "dtype") else "json"
    return type_, json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value.hex() if isinstance(value, bytes) else str(value)


def leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yields what is in dicts and lists, each with its place."""
    if isinstance(value, dict):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        yield where, value
        return
    for key, item in items:
        yield from leaves(item, f"{where}/{file_name(str(key))}")


def array(value: Any, where: str) -> Any:
    """Returns a numpy array of the value; a tensor whose type numpy lacks becomes float32.

    Raises InvalidArgument, which names the place, for what .npz cannot hold.
    """
    import numpy

    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        try:
            return tensor.numpy()
        except TypeError:  # bfloat16 and the 8-bit floats, all of which float32 holds exactly
            return tensor.float().numpy()
    found = numpy.asarray(value)
    # numpy cuts the null characters at the end of a text.
    if found.dtype.hasobject or (isinstance(value, str | bytes) and found.item() != value):
        raise InvalidArgument(
            f"{where} is a {type(value).__name__}, which .npz cannot hold: choose the "
            "tags that are arrays, as in results(tag).to_npz(path), or use to_parquet."
        )
    return found
