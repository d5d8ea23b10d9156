"""Whoever writes swarms and tasks finds every name explained: the reference is made of this."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pytest

import manta
import manta.light
import manta.light.federated

MODULES = [
    "manta.apis.errors",
    "manta.apis.graph:Condition",
    "manta.apis.overviews",
    "manta.apis.results",
    "manta.light.errors",
    "manta.federated.partition",
    "manta.light.federated.adapters",
    "manta.light.federated.errors",
    "manta.light.federated.statistics",
    "manta.light.exchange:Peer",
    "manta.light.local:Resources",
    "manta.light.utils",
    "manta.testing.attempts:TaskRun",
    "manta.testing.instances:run_tasks",
    "manta.testing.tasks:run_task",
]
NOT_FOR_USERS = {"of"}
"""Makes an overview of a message."""


def public() -> Iterator[tuple[str, Any]]:
    for package in (manta, manta.light, manta.light.federated):
        for name in package.__all__:
            yield f"{package.__name__}.{name}", getattr(package, name)
    for entry in MODULES:
        name, _, chosen = entry.partition(":")
        module = importlib.import_module(name)
        for key in chosen.split(",") if chosen else vars(module):
            value = getattr(module, key)
            if key[0] != "_" and getattr(value, "__module__", None) == name and callable(value):
                yield f"{name}.{key}", value


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """Those that explain themselves: what overrides a method means what that one says."""
    explained = {
        name
        for base in kind.__mro__
        if base.__module__.startswith("manta")
        for name, value in vars(base).items()
        if inspect.isfunction(value) and value.__doc__
    }
    for base in kind.__mro__:
        if not base.__module__.startswith("manta"):
            continue
        for name, value in vars(base).items():
            if name[0] == "_" or name in NOT_FOR_USERS:
                continue
            if isinstance(value, property):
                yield name, value.fget
            elif isinstance(value, cached_property):
                yield name, value.func
            elif isinstance(value, classmethod | staticmethod):
                yield name, value.__func__
            elif inspect.isfunction(value) and (value.__doc__ or name not in explained):
                yield name, value


def without(things: Iterator[tuple[str, Any]]) -> list[str]:
    found = []
    for name, value in things:
        if not vars(value).get("__doc__") and not getattr(value, "__doc__", None):
            found.append(name)
        if isinstance(value, type):
            if not vars(value).get("__doc__"):
                found.append(name)
            found += [f"{name}.{key}" for key, method in methods(value) if not method.__doc__]
    return sorted(set(found))


def test_every_public_name_has_a_docstring() -> None:
    assert without(public()) == []


@pytest.mark.parametrize("missing", ["class", "method", "property"])
def test_one_without_is_found(missing: str) -> None:
    class Documented:
        """Is."""

        def method(self) -> None:
            """Does."""

        @property
        def property(self) -> None:
            """Has."""

    Documented.__module__ = "manta.somewhere"
    assert without(iter([("it", Documented)])) == []
    if missing == "class":
        Documented.__doc__ = None
    elif missing == "method":
        Documented.method.__doc__ = None
    else:
        vars(Documented)["property"].fget.__doc__ = None
    assert without(iter([("it", Documented)])) == ["it" if missing == "class" else f"it.{missing}"]
