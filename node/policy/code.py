"""What an owner reads of code that asks: what changed since it was approved last, what it imports,
and what it reads and writes by `manta.light`, as far as its syntax tree says so.

It is a help to readers, not a guard: code that hides what it does is found to hide it at best.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from difflib import unified_diff

import msgspec

from manta.node.policy.records import Code

MOST = 50
"""Names that are told of each kind."""
NOT_SAID = "a name that is computed"

_READS = {
    "get_dataset", "get_binary_data", "get_numpy_data", "list_dir", "read_file_lines",
    "dataset_path",
}  # fmt: skip
_RESULTS = {"set_result", "save"}
_GLOBALS = {"set_global", "set"}
_TELLS = {
    "broadcast", "send_to_node", "all_reduce", "reduce_scatter", "all_gather", "gather", "scatter",
    "checkpoint",
}  # fmt: skip
_HIDES = {"eval", "exec", "compile", "__import__", "getattr", "setattr", "globals", "vars"}
_REACHES = {
    "subprocess", "socket", "ctypes", "multiprocessing", "importlib", "pickle", "marshal", "urllib",
    "http", "requests",
}  # fmt: skip


class Found(msgspec.Struct, frozen=True):
    """Names are in the order of the alphabet."""

    imports: tuple[str, ...] = ()
    """What is not part of the module, nor of Python's own library."""
    datasets: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    globals: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()
    """The calls with which it tells other tasks something."""
    prints: bool = False
    """It writes log lines."""
    hides: tuple[str, ...] = ()
    """Calls and imports by which it can do what its syntax does not show."""
    unread: tuple[str, ...] = ()
    """Files that are no Python that can be read."""


def look(code: Code) -> Found:
    looked = _Look()
    own = {path.partition("/")[0].removesuffix(".py") for path in code.sources}
    unread = list(code.others)
    for path, text in code.sources.items():
        if not path.endswith(".py"):
            continue
        try:
            looked.visit(ast.parse(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            unread.append(path)
    library = {*own, *sys.stdlib_module_names, "manta"}

    def told(names: set[str]) -> tuple[str, ...]:
        return tuple(sorted(names)[:MOST])

    return Found(
        told(looked.imports - library),
        told(looked.datasets),
        told(looked.results),
        told(looked.globals),
        told(looked.metrics),
        told(looked.tells),
        looked.prints,
        told(looked.hides | (looked.imports & _REACHES)),
        told(set(unread)),
    )


class _Look(ast.NodeVisitor):
    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.datasets: set[str] = set()
        self.results: set[str] = set()
        self.globals: set[str] = set()
        self.metrics: set[str] = set()
        self.tells: set[str] = set()
        self.hides: set[str] = set()
        self.prints = False

    def visit_Import(self, node: ast.Import) -> None:
        self.imports.update(alias.name.partition(".")[0] for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and not node.level:
            self.imports.add(node.module.partition(".")[0])

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = node.func
        if isinstance(called, ast.Name):
            self.prints |= called.id == "print"
            if called.id in _HIDES:
                self.hides.add(called.id)
        if not isinstance(called, ast.Attribute):
            return
        name, of = called.attr, called.value
        if name in _READS:
            self.datasets.add(_first(node, "name"))
        elif name in _RESULTS or (name == "add" and _last(of) in ("results", "Results")):
            self.results.add(_first(node, "tag", at=1 if name == "save" else 0))
        elif name in _GLOBALS and _last(of) in ("world", "World"):
            self.globals.add(_first(node, "tag"))
        elif name == "log_metrics":
            self.metrics.update(_keys(node))
        elif name in _TELLS and _last(of) in ("world", "World", "mesh"):
            self.tells.add(name)
        elif _last(of) in ("logger", "logging", "log"):
            self.prints = True

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._stores(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.generic_visit(node)
        self._stores(node.target)

    def _stores(self, target: ast.expr) -> None:
        if isinstance(target, ast.Subscript) and _last(target.value) in ("globals", "Globals"):
            self.globals.add(_text(target.slice))


def _last(node: ast.expr) -> str:
    """The last part of a dotted name, or of what is called."""
    match node:
        case ast.Call(func=func):
            return _last(func)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _first(call: ast.Call, keyword: str, at: int = 0) -> str:
    named = [one.value for one in call.keywords if one.arg == keyword]
    found = named[0] if named else call.args[at] if len(call.args) > at else None
    return NOT_SAID if found is None else _text(found)


def _text(node: ast.expr) -> str:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return str(node.value) if is_text and isinstance(node, ast.Constant) else NOT_SAID


def _keys(call: ast.Call) -> Iterator[str]:
    given = call.args[0] if call.args else None
    if not isinstance(given, ast.Dict):
        yield NOT_SAID
        return
    for key in given.keys:
        yield NOT_SAID if key is None else _text(key)


def diff(before: Code | None, after: Code) -> list[str]:
    """The unified difference, file by file; all lines are new where nothing was approved before.
    It is whole: what would be left out is what somebody wants to hide."""
    old = before or Code()
    lines: list[str] = []
    for path in sorted({*old.sources, *after.sources}):
        former, now = old.sources.get(path), after.sources.get(path)
        if former == now:
            continue
        lines += unified_diff(
            _split(former),
            _split(now),
            f"a/{path}" if former is not None else "/dev/null",
            f"b/{path}" if now is not None else "/dev/null",
            lineterm="",
        )
    return [*lines, *_others(old.others, after.others)]


def _split(text: str | None) -> list[str]:
    return [] if text is None else text.splitlines()


def _others(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for path in sorted({*old, *new}):
        if old.get(path) != new.get(path):
            how = "added" if path not in old else "removed" if path not in new else "changed"
            yield f"{how}: {path} (not shown: it is no text, or too long)"
