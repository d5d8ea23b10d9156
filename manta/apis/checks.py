"""Checks of arguments; each error names the argument and the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, TypeGuard

from manta.apis.errors import InvalidArgument

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
MAX_NAME = 200
LONGEST = 1e9
"""Seconds; longer times are cut to this."""


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def name(where: str, value: object) -> str:
    """Checks a text of 1 to 200 printable characters."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{where} is {shown(value)}: give a string.")
    if not value.strip() or len(value) > MAX_NAME or not value.isprintable():
        raise InvalidArgument(
            f"{where} is {shown(value)}: give 1 to {MAX_NAME} printable characters."
        )
    return value


def identity(kind: str, thing: object) -> str:
    """Returns the id of a cluster, node, swarm, ...: that of an overview, or what was given."""
    found = getattr(thing, f"{kind}_id", None) or getattr(thing, "id", thing)
    return name(f"The {kind}", found)


def optional_identity(kind: str, thing: object) -> str | None:
    """Does the same for what may be left out."""
    return None if thing is None else identity(kind, thing)


def names(where: str, value: object) -> tuple[str, ...]:
    """Checks a list of texts; a single text stands for a list of one."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (name(where, value),)
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        raise InvalidArgument(f"{where} is {shown(value)}: give a list of strings.")
    found = tuple(name(f"an entry of {where}", item) for item in value)
    for item in found:
        if found.count(item) > 1:
            raise InvalidArgument(f"{where} has {item!r} twice: name it once.")
    return found


def flag(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where} is {shown(value)}: give True or False.")
    return value


def choice(where: str, value: object, among: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in among:
        known = " or ".join(f'"{one}"' for one in among)
        raise InvalidArgument(f"{where} is {shown(value)}: give {known}.")
    return value


def integer(where: str, value: object, least: int, most: int | None = None) -> int:
    limits = f"of {least} or more" if most is None else f"from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{where} is {shown(value)}: give a whole number {limits}.")
    if value < least or (most is not None and value > most):
        raise InvalidArgument(f"{where} is {value}: give a whole number {limits}.")
    return value


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is an int or float, numpy's included, but no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def seconds(where: str, value: object) -> float:
    """Checks a finite number of seconds above zero."""
    if not _is_number(value) or not 0 < value < math.inf:
        raise InvalidArgument(f"{where} is {shown(value)}: give seconds, more than 0.")
    return min(float(value), LONGEST)


def fraction(where: str, value: object) -> float:
    if not _is_number(value) or not 0 < value <= 1:
        raise InvalidArgument(
            f"{where} is {shown(value)}: give a fraction above 0 and up to 1, such as 0.8."
        )
    return float(value)


def size(where: str, value: object) -> int:
    """Returns bytes, given as a number or as a text such as "512 MiB"."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise InvalidArgument(
            f'{where} is {shown(value)}: give bytes, or a string such as "2 GiB".'
        )
    unit = (match[2] or "").capitalize()
    return int(float(match[1]) * _UNITS[unit])


def number(where: str, value: object) -> float:
    if not _is_number(value) or not 0 <= value < math.inf:
        raise InvalidArgument(f"{where} is {shown(value)}: give a number of 0 or more.")
    return min(float(value), LONGEST)


def count(where: str, value: object) -> int:
    return integer(where, value, 0)


_RESOURCES: dict[object, Callable[[str, object], int | float]] = {
    "cpu": number,
    "memory": size,
    "disk": size,
    "gpu": count,
}


def resources(where: str, value: object) -> dict[str, Any] | None:
    """Checks a mapping with any of cpu (cores), memory, disk (bytes) and gpu (count)."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidArgument(
            f'{where} is {shown(value)}: give a dict such as {{"cpu": 2, "memory": "1 GiB"}}.'
        )
    for key in value:
        if key not in _RESOURCES:
            known = ", ".join(map(str, _RESOURCES))
            raise InvalidArgument(f"{where} has {shown(key)}: it takes {known} and nothing else.")
    return {key: _RESOURCES[key](f"{where}[{key!r}]", value[key]) for key in value}
