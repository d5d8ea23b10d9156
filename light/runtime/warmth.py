"""What a template keeps warm: installed packages that attempts import, and nothing of the user's.

It begins with the imports that the user's files begin with, and learns others from its attempts.
A package whose import starts what does not survive a fork is imported by each attempt instead.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from manta.light.runtime.forksafe import obstacle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from manta.light.runtime.sources import Import, Sources

MAX_NOTICED = 1000


class Noticed(NamedTuple):
    """An installed module that an attempt has imported, with what it had set in the environment by
    then: None for a variable that it had removed. Packages read theirs while they are imported."""

    name: str
    origin: str
    environment: dict[str, str | None]


class Notice:
    """Called with the name of each module that an attempt imports and its template has not."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._environment = dict(os.environ)
        self._latest = ""
        self._names: list[tuple[str, dict[str, str | None]]] = []

    def __call__(self, name: str) -> None:
        """Passes over what an installed package imports while it is imported itself."""
        spec = getattr(sys.modules.get(self._latest), "__spec__", None)
        within = getattr(spec, "_initializing", False)
        if within and not self._sources.contains(_origin(spec)):
            return
        if len(self._names) == MAX_NOTICED:
            return
        self._latest = name
        self._names.append((name, self._changes()))

    def _changes(self) -> dict[str, str | None]:
        if os.environ == self._environment:
            return {}
        names = {*os.environ, *self._environment}
        now = {name: os.environ.get(name) for name in names}
        return {name: now[name] for name in names if now[name] != self._environment.get(name)}

    def found(self) -> list[Noticed]:
        """In order; without what could not be imported, and what is not installed."""
        found = []
        for name, environment in self._names:
            origin = _origin(getattr(sys.modules.get(name), "__spec__", None))
            if origin and not self._sources.contains(origin):
                found.append(Noticed(name, origin, environment))
        return found


class Unsafe(NamedTuple):
    """A module that may not be kept warm, and why."""

    name: str
    why: str


class Warmth:
    """What this process, a template, has imported for its attempts."""

    def __init__(self, cold: frozenset[str]) -> None:
        """`cold` are modules that stand in the way of a fork."""
        self._passed_over = set(cold)

    def begin(self, imports: list[Import]) -> Unsafe | None:
        for name, names in imports:
            if name not in self._passed_over and (unsafe := self._import(name, names)):
                return unsafe
        return None

    def new(self, noticed: list[Noticed]) -> list[Noticed]:
        """Those that there is a use in learning."""
        passed_over, imported = self._passed_over, sys.modules
        return [at for at in noticed if at.name not in passed_over and at.name not in imported]

    def learn(self, noticed: list[Noticed]) -> Unsafe | None:
        for name, origin, environment in noticed:
            if name in sys.modules:
                continue
            if not _is_found(name, origin):
                self._passed_over.add(name)
                continue
            with _changed(environment):
                unsafe = self._import(name, ())
            if unsafe:
                return unsafe
        return None

    def _import(self, name: str, names: tuple[str, ...]) -> Unsafe | None:
        count = len(sys.modules)
        try:
            __import__(name, fromlist=names)
        except BaseException:  # the attempt that imports it tells
            self._passed_over.add(name)
        why = obstacle() if len(sys.modules) != count else None
        return Unsafe(name, why) if why else None


def _origin(spec: Any) -> str | None:
    """Where a module comes from; a package without a file of its own, the first of its folders."""
    origin = getattr(spec, "origin", None)
    if origin is None:
        origin = next(iter(getattr(spec, "submodule_search_locations", None) or ()), None)
    return origin


def _is_found(name: str, origin: str) -> bool:
    """Whether an import here finds the same: an attempt may have changed where it looks."""
    parent = name.rpartition(".")[0]
    if parent and parent not in sys.modules:
        return False
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return False
    return _origin(spec) == origin


@contextmanager
def _changed(environment: dict[str, str | None]) -> Iterator[None]:
    """Sets and removes variables; what was set otherwise meanwhile stays as it is."""
    before = {name: os.environ.get(name) for name in environment}
    _set(environment)
    try:
        yield
    finally:
        _set({n: value for n, value in before.items() if os.environ.get(n) == environment[n]})


def _set(environment: dict[str, Any]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
