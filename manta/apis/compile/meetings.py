"""Whether all instances of a task certainly meet in a collective, as its source says.

A collective that waits for all can only end if all run at the same time; the manager refuses a
task whose instances do not have places at once. Only what is certain counts: a call in the code
that runs first, under no condition. What is called from there is not looked into.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

COLLECTIVES = ("barrier", "all_reduce", "all_gather", "reduce_scatter")
"""Those in which every instance waits for every other."""
_ENTRIES = ("setup", "run", "execute")


def meets(tree: ast.Module | None, class_name: str | None) -> str:
    """Returns the first collective in which all instances certainly meet, or nothing; None is the
    tree of what can't be parsed."""
    if tree is None:
        return ""
    worlds = _worlds(tree)
    for body in _first_code(tree, class_name):
        for call in _certain(body):
            function = call.func
            if (
                isinstance(function, ast.Attribute)
                and function.attr in COLLECTIVES
                and _is_world(function.value, worlds)
            ):
                return function.attr
    return ""


def _first_code(tree: ast.Module, class_name: str | None) -> Iterator[Sequence[ast.stmt]]:
    """Yields what runs: the module, and `main`, the named class or the only one."""
    yield [one for one in tree.body if not isinstance(one, ast.If)]
    classes = [one for one in tree.body if isinstance(one, ast.ClassDef)]
    for one in tree.body:
        if class_name is None and isinstance(one, ast.FunctionDef) and one.name == "main":
            yield one.body
            return
    wanted = [one for one in classes if class_name in (None, one.name)]
    if len(wanted) == 1:
        for method in wanted[0].body:
            if isinstance(method, ast.FunctionDef) and method.name in _ENTRIES:
                yield method.body


def _worlds(tree: ast.Module) -> set[str]:
    """Names that only World() is given to."""
    made: set[str] = set()
    other: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            (made if _is_made(node.value) else other).update(names)
    return made - other


def _is_made(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name == "World"


def _is_world(node: ast.expr, worlds: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in worlds
    in_task = isinstance(node, ast.Attribute) and node.attr == "world"
    return in_task or _is_made(node)


def _certain(body: Sequence[ast.stmt]) -> Iterator[ast.Call]:
    """Yields the calls that are made whenever this code runs, in about their order."""
    for statement in body:
        match statement:
            case ast.For():
                yield from _calls(statement.iter)
                yield from _certain(statement.body)
            case ast.With():
                # A context may swallow what the wait raises, and go on.
                for item in statement.items:
                    yield from _calls(item.context_expr)
            case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.AnnAssign() | ast.Return():
                if statement.value is not None:
                    yield from _calls(statement.value)
        if _may_leave(statement):
            return


def _may_leave(statement: ast.stmt) -> bool:
    """Whether what comes after it may not be reached."""
    leaves = ast.Return | ast.Raise | ast.Break | ast.Continue
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    return any(isinstance(node, leaves) for node in ast.walk(statement))


def _calls(node: ast.expr) -> Iterator[ast.Call]:
    """Yields the calls in an expression that no condition, loop or lambda holds back."""
    if isinstance(node, ast.IfExp | ast.BoolOp | ast.Lambda | ast.ListComp | ast.SetComp):
        return
    if isinstance(node, ast.DictComp | ast.GeneratorExp):
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _calls(child)
        elif isinstance(child, ast.keyword):
            yield from _calls(child.value)
    if isinstance(node, ast.Call):
        yield node
