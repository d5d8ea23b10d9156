"""What a program imports that lies beside it, and so has to be packed along.

As in any script, a file or a package beside the program wins over an installed one of its name,
but not over the standard library; beside a package, and for a folder without `__init__.py`, what
is installed wins. `importlib.import_module("name")` counts like `import name`; names that are
calculated are not seen.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from manta.apis.compile.syntax import parse
from manta.protocol.spec import MAX_PACKAGE_BYTES
from manta.transports.files import FileTooLarge, read_bounded

_LOADERS = ("import_module", "__import__")


class Imports(NamedTuple):
    """`names` are the top-level names that are imported; `along` lies beside a root."""

    names: frozenset[str]
    along: tuple[Path, ...]


def imports(roots: Iterable[Path], taken: Mapping[Path, str] = MappingProxyType({})) -> Imports:
    """Follows the imports of these files and package folders, and of what lies beside them.

    `taken`: the text that counts for a file, where only a part of it is packed.
    """
    packed = {root.stem if root.suffix == ".py" else root.name: root for root in roots}
    names: set[str] = set()
    along: list[Path] = []
    to_visit = list(packed.values())
    while to_visit:
        root = to_visit.pop(0)
        if root in taken:
            found = _names_of(taken[root])
        else:
            found = {name for file in _sources(root) for name in names_in(file)}
        names |= found
        for name in sorted(found - packed.keys() - sys.stdlib_module_names):
            if (beside := _beside(root, name)) is not None:
                packed[name] = beside
                along.append(beside)
                to_visit.append(beside)
    return Imports(frozenset(names), tuple(along))


def names_in(file: Path) -> set[str]:
    """The top-level names that a file imports; none if it cannot be read, which packing says."""
    try:
        return _names_of(read_bounded(file, MAX_PACKAGE_BYTES))
    except (OSError, FileTooLarge):
        return set()


def _names_of(source: str | bytes) -> set[str]:
    tree = parse(source)
    if tree is None:
        return set()
    return {name.partition(".")[0] for node in ast.walk(tree) for name in _named(node)}


def _named(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=aliases):
            yield from (alias.name for alias in aliases)
        case ast.ImportFrom(module=str(name), level=0):
            yield name
        case ast.Call(
            func=ast.Name(id=called) | ast.Attribute(attr=called),
            args=[ast.Constant(value=str(name)), *_],
        ) if called in _LOADERS:
            yield name


def _sources(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root] if root.suffix == ".py" else []
    found = []
    for folder, below, files in os.walk(root):
        # As packing does: an environment that lies in the folder is none of the program's.
        below[:] = [name for name in below if not name.startswith(".") and name != "__pycache__"]
        found += [
            Path(folder, file)
            for file in files
            if file.endswith(".py") and not file.startswith(".")
        ]
    return sorted(found)


def _beside(root: Path, name: str) -> Path | None:
    folder = root.parent
    if root.is_dir() and ((root / f"{name}.py").is_file() or (root / name).is_dir()):
        return None  # it is packed with the folder
    package, file = folder / name, folder / f"{name}.py"
    if (package / "__init__.py").is_file():
        found = package
    elif file.is_file():
        found = file
    elif package.is_dir() and any(package.glob("*.py")) and not is_installed(name):
        return package
    else:
        return None
    return None if root.is_dir() and is_installed(name) else found


def is_installed(name: str) -> bool:
    ends = ("site-packages", "dist-packages")
    return PathFinder.find_spec(name, [at for at in sys.path if at.endswith(ends)]) is not None
