"""Checks the arguments of World, Local and Results where they are given.

The node ends an attempt whose request it can't read. Checked here, a wrong argument raises an
exception that names it and says what would do.
"""

from __future__ import annotations

import math
import operator
from typing import Any

MAX_NAME = 200
LONGEST_TEXT = 16 * 1024
LONGEST_WAIT = 366 * 86400.0
"""Seconds; longer waits are cut to this."""
_LARGEST = 2**53
_DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "complex128", "complex64"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
)
_ALIASES = {"float": "float64", "int": "int64", "complex": "complex128"}


def name(what: str, value: object) -> str:
    """A tag, key, alias, ...: the rule of `manta.protocol.names`. Raises TypeError, ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"A {what} is a str, not {value!r:.60}.")
    if not value.strip() or len(value) > MAX_NAME or not value.isprintable():
        long = f", which has {len(value)}" if len(value) > MAX_NAME else ""
        raise ValueError(
            f"A {what} is 1 to {MAX_NAME} printable characters, not {value!r:.60}{long}."
        )
    return str.__str__(value)


def tag(value: object) -> str:
    return name("tag", value)


def node(value: object) -> str:
    return name("node's id or alias", value)


def text(value: object) -> str:
    """Text for people, cut where it is too long."""
    return str(value)[:LONGEST_TEXT].encode("utf-8", "replace").decode()


def whole(what: str, value: object) -> int:
    """An integer, numpy's too. Raises TypeError, ValueError."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what} is an int, not {value!r:.60}.") from None
    if not -_LARGEST < number < _LARGEST:
        raise ValueError(f"{what} is beyond 2**53: {str(number)[:30]}.")
    return number


def number(what: str, value: Any) -> float:
    """A number, numpy's and torch's too, but no text and no bool. Raises TypeError, ValueError."""
    if isinstance(value, str | bytes) or type(value).__name__ in ("bool", "bool_"):  # numpy's too
        raise TypeError(f"{what} is a number, not {value!r:.60}.")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{what} is too large for a float.") from None
    except (TypeError, ValueError):
        raise TypeError(f"{what} is a number, not {value!r:.60}.") from None


def seconds(what: str, value: Any) -> float:
    """A finite number of seconds above 0. Raises TypeError, ValueError."""
    sentence = f"{what} is {value!r:.60}: give seconds, more than 0."
    try:
        given = number(what, value)
    except TypeError:
        raise TypeError(sentence) from None
    if not 0 < given < math.inf:
        raise ValueError(sentence)
    return min(given, LONGEST_WAIT)


def fraction(what: str, value: Any) -> float:
    """A fraction above 0 and up to 1. Raises TypeError, ValueError."""
    given = number(what, value)
    if not 0 < given <= 1:
        raise ValueError(f"{what} is {value!r:.60}: give a fraction above 0 and up to 1.")
    return given


def rank(what: str, value: object, size: int) -> int:
    """A rank from 0 to `size` - 1. Raises TypeError, ValueError."""
    given = whole(what, value)
    if not 0 <= given < size:
        raise ValueError(f"{what} is {given}: give a rank from 0 to {size - 1}.")
    return given


def one_of(what: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises ValueError."""
    if value not in allowed:
        raise ValueError(f"{what} is {value!r:.60}: give one of {', '.join(allowed)}.")


def dtype(value: object) -> str | None:
    """The name of a dtype, of numpy's, torch's or Python's, or None. Raises ValueError."""
    if value is None:
        return None
    name = value if isinstance(value, str) else getattr(value, "name", None)
    name = name or getattr(value, "__name__", None) or str(value).removeprefix("torch.")
    name = _ALIASES.get(name, name)
    one_of("dtype", name, _DTYPES)
    return str(name)
