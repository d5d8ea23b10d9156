"""Lets the code of a task import what it could import on a node, and nothing else.

A node has the standard library, what is installed, and what is packed with the program. What is
found here for another reason (the working folder, a test's folder) is refused with the remedy,
also where it has been imported already.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from manta.apis.compile.imports import imports

_FINDS = "import sys, importlib.util as u; print(u.find_spec(sys.argv[1]) is not None)"


@contextmanager
def as_on_a_node(roots: Sequence[Path]) -> Iterator[None]:
    """`roots` are the program's file or folder, and what is included."""
    found = imports(roots)
    guard = _Guard((*roots, *found.along))
    hidden = {name for name in found.names if name in sys.modules and guard.why_not(name)}
    hidden |= {path.stem for path in found.along if not _is_of(sys.modules.get(path.stem), path)}
    kept = {name: sys.modules[name] for name in sys.modules if name.partition(".")[0] in hidden}
    for name in kept:
        del sys.modules[name]
    sys.meta_path.insert(0, guard)
    path = list(sys.path)
    sys.path[:0] = dict.fromkeys(str(root.parent) for root in roots[1:])
    try:
        yield
    finally:
        sys.path[:] = path
        sys.meta_path.remove(guard)
        sys.modules.update(kept)


def _is_of(module: object, path: Path) -> bool:
    """Whether a module was imported from this file or package folder."""
    return Path(getattr(module, "__file__", None) or "/").is_relative_to(path)


class _Guard:
    """A finder that finds nothing and refuses what a node lacks."""

    def __init__(self, packed: Sequence[Path]) -> None:
        self._packed = packed

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if path is None and (why := self.why_not(name)):
            raise ModuleNotFoundError(why, name=name)
        return None

    def why_not(self, name: str) -> str:
        """Says why a node would not find a top-level name that is found here; empty if it would."""
        if name in sys.stdlib_module_names or name == "manta":
            return ""
        spec = PathFinder.find_spec(name)
        places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
        where = next((Path(place) for place in places if place), None)
        if where is None or {"site-packages", "dist-packages"} & {*where.parts}:
            return ""
        if any(where.is_relative_to(packed) for packed in self._packed) or _is_everywhere(name):
            return ""
        entry = self._packed[0].name
        return (
            f"{name!r} is at {where}, which is not packed with {entry}, so that a node would not "
            f"find it: put it beside {entry} and import it by its name, name it in include=, or "
            "install it where the task runs."
        )


@cache
def _is_everywhere(name: str) -> bool:
    """Whether Python finds it in whatever folder it is started."""
    command = [sys.executable, "-P", "-c", _FINDS, name]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    return done.stdout.strip() == "True"
