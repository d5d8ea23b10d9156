"""What was written where: the file, or the cells of a notebook, that a function comes from."""

from __future__ import annotations

import ast
import io
import linecache
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from manta.apis.compile.syntax import parse

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Text:
    """A file or a cell, read once. `file` is None for a cell."""

    def __init__(self, name: str, source: str, file: Path | None) -> None:
        self.name = name
        self.lines = _lines(source)
        self.file = file
        self._source = source

    @cached_property
    def tree(self) -> ast.Module:
        """Empty if Python can't parse it, as of a cell with an error."""
        return parse(self._source) or ast.Module([], [])

    @cached_property
    def title(self) -> str:
        """What a cell is called where it is not known which number it has: after what it defines,
        or else binds first."""
        body = self.tree.body
        defined = [one.name for one in body if isinstance(one, Definition)]
        names = defined or [name for one in body for name in sorted(_bound(one))]
        return f"cell of {names[0]}" if names else "cell"

    @cached_property
    def shared(self) -> frozenset[int | None]:
        """The lines on which several statements stand."""
        body = self.tree.body
        met = pairwise(body)
        return frozenset(one.end_lineno for one, other in met if one.end_lineno == other.lineno)

    def definition(self, name: str, line: int) -> Definition | None:
        """What is defined under a name and begins on a line, with its decorators."""
        for node in ast.walk(self.tree):
            if isinstance(node, Definition) and node.name == name and first_line(node) == line:
                return node
        return None

    def bindings(self, name: str) -> Iterator[ast.stmt]:
        """Yields the statements that may bind a name of the module, in order."""
        return (one for one in self.tree.body if name in _bound(one))


class Place(NamedTuple):
    """Lines of a text; `order` tells which text comes first."""

    order: int
    text: Text
    node: ast.stmt


class Namespace:
    """The texts that filled the global names of a function, in the order in which they ran."""

    def __init__(self, names: Mapping[str, Any], code: CodeType) -> None:
        self.names = names
        self.is_notebook = isinstance(names.get("In"), list) and "get_ipython" in names
        self.texts: list[Text] = []
        if self.is_notebook:
            cells = [one if isinstance(one, str) else "" for one in names["In"]]
            last = {cell: n for n, cell in enumerate(cells)}
            # What was run again counts once, where it ran last.
            texts = (cell if last[cell] == n else "" for n, cell in enumerate(cells))
            self.texts = [Text(f"In [{n}]", text, None) for n, text in enumerate(texts)]
        elif (text := self._read(code.co_filename)) is not None:
            self.texts = [text]

    def _read(self, name: str) -> Text | None:
        linecache.checkcache(name)
        lines = linecache.getlines(name, {**self.names})
        if not lines:
            return None
        return Text(name, "".join(lines), Path(name) if Path(name).is_file() else None)

    def defined(self, code: CodeType) -> Place | None:
        """Where a function was defined, or the class of which it is a method."""
        name = code.co_name
        if not self.is_notebook:
            for order, text in enumerate(self.texts):
                if text.name == code.co_filename or text.file == Path(code.co_filename):
                    node = text.definition(name, code.co_firstlineno)
                    return None if node is None else Place(order, text, node)
            return None
        # A cell's code tells its file, which tells the cell's text.
        cell = _lines("".join(linecache.getlines(code.co_filename)))
        for order in range(len(self.texts) - 1, -1, -1):
            text = self.texts[order]
            if text.lines == cell:
                node = text.definition(name, code.co_firstlineno)
                return None if node is None else Place(order, text, node)
        return None

    def bindings(self, name: str) -> list[Place]:
        """The statements that bind a global name."""
        return [
            Place(order, text, statement)
            for order, text in enumerate(self.texts)
            for statement in text.bindings(name)
        ]


def _lines(source: str) -> list[str]:
    """Up to the last that is not empty, by what ends a line for Python: a form feed does not."""
    return io.StringIO(source, newline=None).read().rstrip("\n").split("\n")


def first_line(node: ast.stmt) -> int:
    """The line on which it begins, or the first of its decorators."""
    decorators = node.decorator_list if isinstance(node, Definition) else []
    return min([node.lineno, *(one.lineno for one in decorators)])


def code_of(item: Any) -> CodeType | None:
    """The code of a function, or of a method that a class defines."""
    if isinstance(item, FunctionType):
        return item.__code__
    for value in vars(item).values() if isinstance(item, type) else ():
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        # Not what a decorator such as dataclass adds, which has no file, nor what enum does.
        if (
            isinstance(value, FunctionType)
            and value.__module__ == item.__module__
            and not value.__code__.co_filename.startswith(("<string>", "<attrs "))
        ):
            return value.__code__
    return None


def _bound(statement: ast.stmt) -> set[str]:
    """The names of its module that a statement may bind."""
    if isinstance(statement, Definition):
        return {statement.name}
    found = set[str]()
    to_visit: list[ast.AST] = [statement]
    while to_visit:
        node = to_visit.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, Definition):
            found.add(node.name)
            continue  # what it binds is its own
        elif isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp):
            continue
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
        to_visit += ast.iter_child_nodes(node)
    return found
