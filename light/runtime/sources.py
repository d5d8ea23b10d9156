"""The user's own files: compiled once, imported in each attempt, and what they begin by importing.

A template never runs any of them. It may compile them, and it may run the imports with which they
begin: nothing of the user's comes before those, so they do the same in every attempt.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, ModuleType

_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST, without importing ast
_TRIES = 10


class Import(NamedTuple):
    """An import of an installed module: `from name import names`, or `import name`."""

    name: str
    names: tuple[str, ...] = ()


class Sources:
    """The files below `folder`."""

    def __init__(self, folder: str) -> None:
        self._inside = folder + os.sep
        self._codes: dict[str, tuple[bytes, CodeType]] = {}
        self.imported: list[str] = []
        """The names of those that this process has imported, in order."""
        self.uncompiled: list[str] = []
        """The files that it had to compile itself."""

    def contains(self, file: str | None) -> bool:
        return file is not None and file.startswith(self._inside)

    def install(self) -> None:
        """Has all files in the folder imported by way of this object from now on."""
        sys.path_hooks.insert(0, self._finder)

    def _finder(self, path: str) -> FileFinder:
        if not self.contains(path + os.sep) or not os.path.isdir(path):
            raise ImportError
        own: Any = self._loader
        return FileFinder(
            path,
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (own, SOURCE_SUFFIXES),
            (SourcelessFileLoader, BYTECODE_SUFFIXES),
        )

    def _loader(self, name: str, file: str) -> OwnLoader:
        return OwnLoader(name, file, self)

    def compile(self, file: str, make: Callable[[bytes, str], CodeType]) -> None:
        """Compiles a file for all attempts; one that can't be is left for them to tell."""
        try:
            with open(file, "rb") as source:
                data = source.read()
            self._codes[file] = data, make(data, file)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            self._codes.pop(file, None)

    def kept(self, file: str) -> CodeType | None:
        """The code of a file, if that was compiled as it is now."""
        try:
            with open(file, "rb", buffering=0) as source:
                return self.code(file, source.read())
        except OSError:
            return None

    def code(self, file: str, data: bytes) -> CodeType | None:
        """The code of a file that holds `data`, if that was compiled."""
        kept = self._codes.get(file)
        return kept[1] if kept is not None and kept[0] == data else None


def parsed(data: str | bytes, file: str) -> Any:
    """The module's syntax tree, as `ast.parse` gives it."""
    for _ in range(_TRIES - 1):
        try:
            return compile(data, file, "exec", _ONLY_AST, dont_inherit=True)
        except SystemError:
            # Before 3.11.8, threads that parse at the same time may disturb each other
            # (https://github.com/python/cpython/issues/106905).
            continue
    return compile(data, file, "exec", _ONLY_AST, dont_inherit=True)


def compiled(data: bytes, file: str) -> CodeType:
    code: CodeType = compile(data, file, "exec", dont_inherit=True)
    return code


class OwnLoader(SourceFileLoader):
    """Loads one of the user's files as its template has compiled it, if it has. It writes no cache
    to disk, which knows a file by the second of its last change."""

    def __init__(self, name: str, file: str, sources: Sources) -> None:
        super().__init__(name, file)
        self._sources = sources

    def get_code(self, fullname: str) -> CodeType:
        file = self.get_filename(fullname)
        data = self.get_data(file)
        code = self._sources.code(file, data)
        if code is None:
            self._sources.uncompiled.append(file)
            code = self.compile(data, file)
        return code

    def compile(self, data: bytes, file: str) -> CodeType:
        return compiled(data, file)

    def exec_module(self, module: ModuleType) -> None:
        self._sources.imported.append(module.__name__)
        super().exec_module(module)


def leading_imports(file: str, package: str, find: Callable[[str], str | None]) -> list[Import]:
    """What a file imports of installed modules before anything else of the user's runs.

    `package` is what relative imports in it are relative to. `find` gives the file of a module of
    the user's, by its full name, and None for all others.
    """
    found: list[Import] = []
    _Reader(find, found.append).read(file, package)
    return found


class _Reader:
    def __init__(self, find: Callable[[str], str | None], found: Callable[[Import], None]) -> None:
        self._find = find
        self._found = found
        self._read: set[str] = set()

    def read(self, file: str, package: str) -> bool:
        """Returns whether the file does nothing but import, as far as can be told."""
        if file in self._read:
            return True
        self._read.add(file)
        try:
            with open(file, "rb") as source:
                tree = parsed(source.read(), file)
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        for statement in tree.body:
            kind = type(statement).__name__
            if kind == "Import":
                if not all(self._import(alias.name, ()) for alias in statement.names):
                    return False
            elif kind == "ImportFrom":
                name = _full_name(statement.module or "", statement.level, package)
                names = tuple(alias.name for alias in statement.names)
                if name is None or not self._import(name, names):
                    return False
            elif not _does_nothing(statement, kind):
                return False
        return True

    def _import(self, name: str, names: tuple[str, ...]) -> bool:
        parts = name.split(".")
        first = self._find(parts[0])
        if first is None:
            self._found(Import(name, names))
            return True
        modules = [".".join(parts[: end + 1]) for end in range(len(parts))]
        modules += [f"{name}.{submodule}" for submodule in names]
        return all(self._enter(module) for module in modules)

    def _enter(self, module: str) -> bool:
        file = self._find(module)
        if file is None:  # what is imported from a module is not a module
            return True
        is_package = os.path.basename(file) == "__init__.py"
        return self.read(file, module if is_package else module.rpartition(".")[0])


def _full_name(name: str, level: int, package: str) -> str | None:
    """The full name of what is imported relatively; None where it leads out of the package."""
    if not level:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return None
    base = parts[: len(parts) - level + 1]
    return ".".join([*base, name] if name else base)


def _does_nothing(statement: Any, kind: str) -> bool:
    """A docstring, a constant, or what is there for type checkers."""
    if kind == "Assign" and any(type(at).__name__ != "Name" for at in statement.targets):
        return False
    if kind in ("Expr", "Assign"):
        return all(_is_constant(part) for part in _values(statement.value))
    if kind == "If":
        test = statement.test
        return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", "")) and (
            not statement.orelse
        )
    return kind == "Pass"


def _values(value: Any) -> Iterator[Any]:
    parts = getattr(value, "elts", None)
    if parts is None:
        yield value
    else:
        yield from parts


def _is_constant(value: Any) -> bool:
    return type(value).__name__ == "Constant"
