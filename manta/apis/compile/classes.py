"""Checks that the class which a task names is in its program."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from manta.apis.compile.syntax import parse
from manta.apis.errors import InvalidSwarm
from manta.apis.task import Task
from manta.protocol.names import meant


@dataclass(frozen=True)
class Source:
    """What of a program runs first, and the words for where it is.

    It is looked at once, however many tasks share it.
    """

    text: bytes | str
    where: str

    @cached_property
    def tree(self) -> ast.Module | None:
        """None if it can't be parsed."""
        return parse(self.text)

    @cached_property
    def bound(self) -> frozenset[str]:
        """The names that it may bind."""
        if self.tree is None:
            return frozenset()
        by_global = (
            name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Global)
            for name in node.names
        )
        return frozenset((*_bound(self.tree.body), *by_global))


_BINDING = ("globals", "locals", "vars", "exec", "setattr")


def check_class(task: Task, alias: str, source: Source) -> None:
    """Raises InvalidSwarm if the program has no such class, as far as can be seen without running
    it."""
    name = task.class_name
    if name is None:
        return
    tree, bound = source.tree, source.bound
    if tree is None or name in bound or bound & {"*", "__getattr__"}:
        return
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    there = f"it has {', '.join(classes)}" if classes else "it has no classes"
    raise InvalidSwarm(
        f"Task {alias!r} has class_name={name!r}, which is not in {source.where} ({there}): "
        "correct class_name." + meant(name, classes)
    )


def _bound(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """Yields the names that a module's statements bind, whatever branch is taken."""
    for statement in statements:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from (alias.asname or alias.name for alias in node.names)
            elif isinstance(node, ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.Call) and _sets_globals(node):
                yield "*"


def _sets_globals(call: ast.Call) -> bool:
    """Whether it is one of those with which a module may bind anything."""
    return isinstance(call.func, ast.Name) and call.func.id in _BINDING
