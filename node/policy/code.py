"""What an owner reads of code that asks: what changed since it was approved last, what it imports,
and what it reads and writes by `manta.light`, as far as its syntax tree says so.

It is a help to readers, not a guard: code that hides what it does is found to hide it at best.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import Match, SequenceMatcher, unified_diff

import msgspec
from blake3 import blake3

from manta.node.policy.records import Code

MOST = 50
"""Names that are told of each kind."""
MOST_COMPARED = 5_000_000
"""Pairs of lines of two files that are looked at, in a second or two."""
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


def diff(before: Code | None, after: Code, *, whole: bool = True) -> list[str]:
    """The unified difference, file by file; all lines are new where nothing was approved before.

    It is whole: what would be left out is what somebody wants to hide. Of two files that would take
    too long to compare by line, all lines are told as removed and added, or, without `whole`, the
    sizes and digests."""
    old = before or Code()
    lines: list[str] = []
    for path in sorted({*old.sources, *after.sources}):
        former, now = old.sources.get(path), after.sources.get(path)
        if former == now:
            continue
        names = (
            f"a/{path}" if former is not None else "/dev/null",
            f"b/{path}" if now is not None else "/dev/null",
        )
        one, other = _split(former), _split(now)
        if _can_be_compared(one, other):
            lines += unified_diff(one, other, *names, lineterm="")
        elif whole:
            lines += [f"--- {names[0]}", f"+++ {names[1]}", f"@@ -1,{len(one)} +1,{len(other)} @@"]
            lines += [*(f"-{line}" for line in one), *(f"+{line}" for line in other)]
        else:
            sizes = " -> ".join(map(_size, (former or "", now or "")))
            lines.append(f"changed: {path} (too long to compare by line): {sizes}")
    return [*lines, *_others(old.others, after.others)]


class _TooLong(Exception):
    """Two files have too many lines in common to find out which is which."""


class _Matcher(SequenceMatcher[str]):
    """Counts the pairs that are looked at: in the worst case the cube of the number of lines."""

    a: Sequence[str]
    b2j: dict[str, list[int]]
    looked = 0

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> Match:
        lines = self.a[alo:ahi]
        self.looked += len(lines) + sum(len(self.b2j.get(line, ())) for line in lines)
        if self.looked > MOST_COMPARED:
            raise _TooLong
        return super().find_longest_match(alo, ahi, blo, bhi)


def _can_be_compared(one: list[str], other: list[str]) -> bool:
    try:
        _Matcher(None, one, other).get_matching_blocks()
    except _TooLong:
        return False
    return True


def _size(text: str) -> str:
    content = text.encode()
    return f"{len(content)} bytes, BLAKE3 {blake3(content).hexdigest()}"


def _split(text: str | None) -> list[str]:
    """At what ends a line for everybody: `splitlines` would hide that another character, which may
    lie in a comment, became one that ends it."""
    return text.removesuffix("\n").split("\n") if text else []


def _others(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for path in sorted({*old, *new}):
        if old.get(path) != new.get(path):
            how = "added" if path not in old else "removed" if path not in new else "changed"
            yield f"{how}: {path} (not shown: it is no text, or too long)"
