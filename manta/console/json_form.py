"""The output of `--json`. docs/json.md has the shapes; a test compares them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import click

_MAX_ITEMS = 1000
"""A larger array is described, not printed."""
MOST_BITS = 10_000
"""Of larger integers Python prints no decimal digits."""


def jsonable(value: Any) -> Any:
    """A value as JSON can hold it: NaN and the infinities are null, large arrays
    `{"dtype", "shape"}`, bytes `{"bytes": length}`, other things their text."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return hex(value)
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "__struct_fields__"):
        return {name: jsonable(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        if math.prod(value.shape) <= _MAX_ITEMS:
            return jsonable(value.tolist())
        return {"dtype": str(value.dtype), "shape": list(value.shape)}
    return str(value)


def dumps(value: Any, indent: int | None = None) -> str:
    return json.dumps(jsonable(value), indent=indent, allow_nan=False)


def show(value: Any) -> None:
    """Print one document."""
    click.echo(dumps(value, indent=2))


def show_line(value: Any) -> None:
    """Print one object of many, on a line of its own."""
    click.echo(dumps(value))
