"""Strategies and stopping rules as plain values, which globals carry, and back."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from manta.light.federated.errors import BadDescription

_PACKAGE = "manta.light.federated"
_KIND = "kind"


def described(thing: Any) -> dict[str, Any]:
    """A strategy or a stopping rule of this package as a value: its name and what it was given.

    Raises TypeError for anything else, a strategy of the user's own included.

    >>> from manta.light.federated import FedAvgM, Reached
    >>> described(Reached("accuracy", at_least=0.9))
    {'kind': 'Reached', 'metric': 'accuracy', 'at_least': 0.9, 'at_most': None}
    """
    kind = type(thing)
    if not is_dataclass(kind) or not kind.__module__.startswith(f"{_PACKAGE}."):
        raise TypeError(
            f"{thing!r:.80} is not of {_PACKAGE}: give one of its strategies, or an aggregator "
            "and a worker of your own that make yours in strategy()."
        )
    given = {field.name: _plain(getattr(thing, field.name)) for field in fields(kind)}
    return {_KIND: kind.__name__, **given}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return described(value)
    return list(value) if isinstance(value, tuple) else value


def from_description(value: Any) -> Any:
    """What was described. Raises BadDescription."""
    if not isinstance(value, Mapping) or not isinstance(name := value.get(_KIND), str):
        raise BadDescription(f"{value!r:.80} describes no strategy and no stopping rule.")
    package = importlib.import_module(_PACKAGE)
    kind = getattr(package, name, None) if name in package.__all__ else None
    if not isinstance(kind, type) or not is_dataclass(kind):
        raise BadDescription(
            f"The version of Manta here knows no {name!r:.80}: install that of who deployed this."
        )
    given = {key: _made(one) for key, one in value.items() if key != _KIND}
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise BadDescription(f"{name} can't be made of its description: {error}") from error


def _made(value: Any) -> Any:
    return from_description(value) if isinstance(value, Mapping) and _KIND in value else value
