"""The names that a piece of source takes from around it."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator


def used(source: str, future: bool) -> list[str]:
    """Returns the names that statements at the top of a module use, and those used within them
    that are not local, sorted.

    `future`: whether annotations are left alone (PEP 563).
    """
    prefix = "from __future__ import annotations\n" if future else ""
    table = symtable.symtable(prefix + source, "<source>", "exec")
    own = {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
    found = {one.get_name() for one in table.get_symbols() if one.is_referenced()} - own
    for below in table.get_children():
        found |= {*_global(below)}
    return sorted(found - own)


def attributes(tree: ast.AST, name: str) -> set[str]:
    """Returns the dotted names that are read from a name, as "os.path" of `os.path.join`."""
    found = set[str]()
    for node in ast.walk(tree):
        parts = list[str]()
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id == name:
            for end in range(len(parts)):
                found.add(".".join([name, *reversed(parts[end:])]))
    return found


def _global(table: symtable.SymbolTable) -> Iterator[str]:
    for symbol in table.get_symbols():
        # The locals of a function that is called "top", like the module's table, count as global.
        is_global = symbol.is_declared_global() or (symbol.is_global() and not symbol.is_local())
        if is_global and symbol.is_referenced():
            yield symbol.get_name()
    for below in table.get_children():
        yield from _global(below)
