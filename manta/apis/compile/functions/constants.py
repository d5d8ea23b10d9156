"""Values that source text can hold, and words for those that it can't."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import logging
import math
import re
import types
import typing
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import PurePath
from typing import Any

MOST = 16 * 1024
"""Characters of a constant."""
_DEEP = 50
_PLAIN = (type(None), bool, int, str, bytes, type(...))
_REPEATABLE = (
    *(logging.Logger, re.Pattern, PurePath, datetime.date, datetime.time, datetime.timedelta),
    *(datetime.tzinfo, Decimal, Fraction, enum.Enum, range, slice),
)
"""What the statement that made it makes again."""
_DECLARED = (type, typing.TypeVar, typing.ParamSpec, typing.NewType, types.GenericAlias, partial)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def literal(value: Any) -> str | None:
    """Returns an expression for a small constant: None, numbers, texts, bytes, and tuples, lists,
    sets and dicts of them; None for all else."""
    try:
        text = _literal(value, _DEEP)
    except (RecursionError, ValueError):  # an integer of more digits than are printed
        return None
    return text if text is not None and len(text) <= MOST else None


def _literal(value: Any, deep: int) -> str | None:
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if kind is float:
        return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
    if kind is complex and math.isfinite(value.real) and math.isfinite(value.imag):
        return f"complex({value.real!r}, {value.imag!r})"
    if not deep:
        return None
    if kind is dict:
        pairs = [(_literal(one, deep - 1), _literal(value[one], deep - 1)) for one in value]
        if any(None in pair for pair in pairs):
            return None
        return "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
    if kind not in (list, tuple, set, frozenset):
        return None
    items = [_literal(one, deep - 1) for one in value]
    if any(one is None for one in items):
        return None
    text = ", ".join(sorted(items) if kind in (set, frozenset) else items)  # type: ignore[arg-type]
    if kind is list:
        return f"[{text}]"
    if kind is tuple:
        return f"({text},)" if len(items) == 1 else f"({text})"
    return f"{kind.__name__}([{text}])"


def is_declared(value: Any) -> bool:
    """Whether a statement that binds it says what it is: a class, a function, a type variable."""
    return isinstance(value, (*_DECLARED, *_FUNCTIONS)) or type(value) is object


def is_repeatable(value: Any, again: Callable[[], Any]) -> bool:
    """Whether the statement that made it, evaluated `again`, makes an equal one."""
    kind = type(value)
    is_record = dataclasses.is_dataclass(kind) and kind.__eq__ is not object.__eq__
    if not (isinstance(value, _REPEATABLE) or is_record or _is_scalar(value)):
        return False
    try:
        return bool(again() == value)
    except Exception:  # whatever the user's own expression raises
        return False


def _is_scalar(value: Any) -> bool:
    """Whether it is a scalar or a dtype of numpy."""
    kind = type(value)
    is_scalar = getattr(value, "shape", None) == () and kind.__name__ != "ndarray"
    return kind.__module__.partition(".")[0] == "numpy" and (
        is_scalar or kind.__name__.endswith("DType")
    )


def described(value: Any) -> str:
    """Says what a value is."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if (shape := getattr(value, "shape", None)) is not None and not callable(shape):
        return f"a {name} of shape {tuple(shape)}"
    if isinstance(value, str | bytes | list | tuple | dict | set | frozenset):
        return f"a {name} with {len(value)} {'characters' if isinstance(value, str) else 'items'}"
    return f"a {name}"


def remedy(name: str, value: Any) -> str:
    """Says how a task can have a value all the same."""
    if hasattr(value, "fileno") or hasattr(value, "acquire") or hasattr(value, "__next__"):
        return "make it inside the function"
    return (
        f"give it to the swarm, set_global({name!r}, {name}), and read World().globals[{name!r}], "
        "or make it inside the function"
    )
