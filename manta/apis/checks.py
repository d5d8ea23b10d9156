"""The gate for what users give the SDK: each error names the argument and the remedy.

Each check returns Python's own type, `plain`, whatever was given: what numpy calculated, a member
of an enumeration, another subclass of str, int or float.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeGuard

from manta.apis.errors import InvalidArgument
from manta.protocol.isolation import LEVELS
from manta.protocol.names import MAX_NAME, is_name, meant
from manta.protocol.outbound import PREFIX, targets_of
from manta.protocol.requirements import flaw_of, lines_of

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
LONGEST = 1e9
"""Seconds; longer times are cut to this."""
LARGEST = 2**63 - 1
"""No integer in a message is larger."""


def plain(value: Any) -> Any:
    """Returns numbers and texts as Python's own types, and anything else as it is."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return int(value)
    return float.__float__(value) if isinstance(value, float) else value


def shown(value: object) -> str:
    try:
        text = repr(plain(value))
    except Exception:  # an object of the user's, or an integer of more digits than are printed
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."


def text(where: str, value: object, most: int | None = None) -> str:
    """Checks a text of at most so many characters."""
    value = plain(value)
    if not isinstance(value, str):
        raise InvalidArgument(f"{where} is {shown(value)}: give a string.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{where} is {shown(value)}, which UTF-8 cannot hold: give other characters."
        ) from None
    if most is not None and len(value) > most:
        raise InvalidArgument(f"{where} has {len(value)} characters: give {most} at most.")
    return value


def name(where: str, value: object) -> str:
    """Checks a text of 1 to 200 printable characters."""
    found = text(where, value)
    if not is_name(found):
        raise InvalidArgument(
            f"{where} is {shown(found)}: give 1 to {MAX_NAME} printable characters."
        )
    return found


def optional_name(where: str, value: object) -> str | None:
    """Does the same for what may be left out."""
    return None if value is None else name(where, value)


def identity(kind: str, thing: object) -> str:
    """Returns the id of a cluster, node, swarm, ...: that of an overview, or what was given."""
    found = getattr(thing, f"{kind}_id", None) or getattr(thing, "id", thing)
    return name(f"The {kind}", found)


def optional_identity(kind: str, thing: object) -> str | None:
    """Does the same for what may be left out."""
    return None if thing is None else identity(kind, thing)


def names(where: str, value: object) -> tuple[str, ...]:
    """Checks a list of texts; a single text stands for a list of one."""
    value = plain(value)
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


def requirements(where: str, value: object) -> tuple[str, ...]:
    """Checks lines of a requirements file; a text may have several."""
    value = plain(value)
    if value is None:
        return ()
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, Iterable) or isinstance(entries, Mapping | bytes):
        raise InvalidArgument(f"{where} is {shown(value)}: give a list of strings.")
    found: list[str] = []
    for entry in entries:
        given = text(f"an entry of {where}", entry)
        lines = lines_of(given)
        if not lines:
            raise InvalidArgument(f"An entry of {where} is {shown(given)}: name a package.")
        found += lines
    for line in found:
        if flaw := flaw_of(line):
            raise InvalidArgument(f"{where}: {flaw}.")
        if found.count(line) > 1:
            raise InvalidArgument(f"{where} has {line!r} twice: name it once.")
    return tuple(found)


def outbound(where: str, value: object) -> tuple[str, ...]:
    """Checks ways out, "outbound:HOST:PORT" each."""
    found = names(where, value)
    try:
        return tuple(f"{PREFIX}{target}" for target in targets_of(found))
    except ValueError as error:
        raise InvalidArgument(f"{where}: {error}.") from None


def identities(where: str, value: object) -> tuple[str, ...]:
    """Does the same for overviews and ids."""
    if hasattr(value, "id") or not isinstance(value, Iterable) or isinstance(value, str | Mapping):
        return names(where, getattr(value, "id", value))
    return names(where, [getattr(thing, "id", thing) for thing in value])


def flag(where: str, value: object) -> bool:
    value = plain(value)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where} is {shown(value)}: give True or False.")
    return value


def choice(where: str, value: object, among: tuple[str, ...]) -> str:
    value = plain(value)
    if not isinstance(value, str) or value not in among:
        known = " or ".join(f'"{one}"' for one in among)
        raise InvalidArgument(f"{where} is {shown(value)}: give {known}.")
    return value


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a plain value is a whole number; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def integer(where: str, value: object, least: int, most: int = LARGEST) -> int:
    value = plain(value)
    if not is_integer(value) or not least <= value <= most:
        limits = f"of {least} or more" if most == LARGEST else f"from {least} to {most}"
        if is_integer(value) and value > LARGEST:
            limits = f"from {least} to {most}"
        raise InvalidArgument(f"{where} is {shown(value)}: give a whole number {limits}.")
    return value


def optional_integer(where: str, value: object, least: int, most: int = LARGEST) -> int | None:
    """Does the same for what may be left out."""
    return None if value is None else integer(where, value, least, most)


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is an int, a float or a fraction, but no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def seconds(where: str, value: object) -> float:
    """Checks a finite number of seconds above zero."""
    value = plain(value)
    if not _is_number(value) or not 0 < value < math.inf:
        raise InvalidArgument(f"{where} is {shown(value)}: give seconds, more than 0.")
    return float(min(value, LONGEST))


def fraction(where: str, value: object) -> float:
    value = plain(value)
    if not _is_number(value) or not 0 < value <= 1:
        raise InvalidArgument(
            f"{where} is {shown(value)}: give a fraction above 0 and up to 1, such as 0.8."
        )
    return float(value)


def size(where: str, value: object) -> int:
    """Returns bytes, given as a number or as a text such as "512 MiB"."""
    value, found = plain(value), -1
    if is_integer(value):
        found = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        unit = (match[2] or "").capitalize()
        found = int(min(float(match[1]) * _UNITS[unit], 1e30))
    if not 0 <= found <= LARGEST:
        raise InvalidArgument(
            f'{where} is {shown(value)}: give bytes, or a string such as "2 GiB".'
        )
    return found


def number(where: str, value: object) -> float:
    value = plain(value)
    if not _is_number(value) or not 0 <= value < math.inf:
        raise InvalidArgument(f"{where} is {shown(value)}: give a number of 0 or more.")
    return float(min(value, LONGEST))


def count(where: str, value: object) -> int:
    return integer(where, value, 0)


def isolation(where: str, value: object) -> str:
    """Checks a level of isolation."""
    if value not in LEVELS:
        raise InvalidArgument(f"{where} is {shown(value)}: give one of {', '.join(LEVELS)}.")
    return str(value)


_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def architecture(where: str, value: object) -> str:
    """Checks the architecture of a processor; returns what Linux calls it."""
    found = name(where, value).lower()
    return _ARCHITECTURES.get(found, found)


def labels(where: str, value: object) -> dict[str, str]:
    """Checks a mapping of names to texts."""
    if not isinstance(value, Mapping):
        raise InvalidArgument(
            f'{where} is {shown(value)}: give a dict such as {{"zone": "north"}}.'
        )
    return {name(f"a name in {where}", key): text(where, value[key], MAX_NAME) for key in value}


_RESOURCES: dict[object, Callable[[str, object], Any]] = {
    "cpu": number,
    "memory": size,
    "disk": size,
    "gpu": count,
    "gpu_memory": size,
    "gpu_shared": flag,
    "isolation": isolation,
    "arch": architecture,
    "labels": labels,
}


def resources(where: str, value: object) -> dict[str, Any] | None:
    """Checks a mapping with any of cpu (cores), memory, disk (bytes), gpu (count), gpu_memory
    (bytes), gpu_shared, isolation, arch and labels."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidArgument(
            f'{where} is {shown(value)}: give a dict such as {{"cpu": 2, "memory": "1 GiB"}}.'
        )
    given = {plain(key): item for key, item in value.items()}
    for key in given:
        if key not in _RESOURCES:
            known = ", ".join(map(str, _RESOURCES))
            near = meant(str(key), map(str, _RESOURCES))
            raise InvalidArgument(
                f"{where} has {shown(key)}: it takes {known} and nothing else.{near}"
            )
    found = {key: _RESOURCES[key](f"{where}[{key!r}]", item) for key, item in given.items()}
    if found.get("gpu_memory") and found.get("gpu") == 0:
        raise InvalidArgument(f"{where} has gpu 0 and gpu_memory: leave one of them out.")
    if found.get("gpu_shared") and not found.get("gpu_memory"):
        raise InvalidArgument(
            f"{where} has gpu_shared, which lets others have the rest of a GPU's memory: give "
            "gpu_memory, how much of it the task needs."
        )
    return found
