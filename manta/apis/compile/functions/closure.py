"""Finds the source of a function or class, and of what it uses, in the syntax tree of its file.

Beginning with a function, every name that its source takes from around it is looked up: what a
statement of the file defines or imports is taken as it is written, a constant with the value that
it has now, and each of these may use names in turn. Whatever cannot be said in source is refused by
its name: code that runs elsewhere would see another value, or none. Nothing is pickled.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from manta.apis.compile.functions.constants import (
    described,
    is_declared,
    is_repeatable,
    literal,
    remedy,
)
from manta.apis.compile.functions.names import attributes, used
from manta.apis.compile.functions.pieces import Piece, laid_out, piece_of, source_of
from manta.apis.compile.functions.texts import Definition, Namespace, Place, code_of
from manta.apis.errors import ModuleError
from manta.apis.task import Task, task

GIVEN = {"world": "World", "local": "Local", "results": "Results"}
"""Parameters that a function may have, and the class of which each is given an object."""
_OF_MODULES = {"__name__", "__file__", "__doc__", "__package__", "__spec__", "__builtins__"}
_OF_NOTEBOOKS = {"display", "get_ipython", "In", "Out"}


class Program(NamedTuple):
    """Source text of a module; `file` is that from which it was taken, None for a notebook's."""

    source: str
    file: Path | None


def program_of(target: Any) -> Program:
    """Returns a module that runs a function or holds a class. Raises ModuleError."""
    return _Closure(target).program()


def parameters(function: Any) -> list[str]:
    """Returns those of GIVEN that a function asks for. Raises ModuleError if it asks for more."""
    wanted = list[str]()
    for name, one in inspect.signature(function).parameters.items():
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        if name in GIVEN and one.kind is not one.POSITIONAL_ONLY:
            wanted.append(name)
        elif one.default is one.empty:
            raise ModuleError(
                f"The function {function.__name__} has the parameter {name!r}, and a task is given "
                f"none but {', '.join(GIVEN)}: give it a default, or read a global, as "
                f"World().globals[{name!r}]."
            )
    return wanted


class _Closure:
    def __init__(self, target: Any) -> None:
        self._target = target
        self._function = inspect.unwrap(target) if callable(target) else target
        self._name: str = self._function.__name__
        kind = "class" if isinstance(target, type) else "function"
        self._what = f"The {kind} {self._name}"
        self._module = sys.modules.get(self._function.__module__)
        code = code_of(self._function)
        names: dict[str, Any] = getattr(self._function, "__globals__", None) or vars(
            self._module or ModuleType("")
        )
        self._names = names
        file = getattr(self._module, "__file__", None) or "<unknown>"
        self._code = code or compile("", file, "exec")
        self._space = Namespace(names, self._code)
        self._pieces: dict[Piece, None] = {}
        self._waiting: list[tuple[Piece, Any]] = []
        """What is yet to be looked into."""
        self._first: dict[str, None] = {}
        self._aliases: dict[str, None] = {}
        self._values: dict[str, Any] = {}
        """What each name that was looked up stands for."""
        self._future = any(
            isinstance(one, ast.ImportFrom)
            and one.module == "__future__"
            and any(alias.name == "annotations" for alias in one.names)
            for text in self._space.texts
            for one in text.tree.body
        )

    def program(self) -> Program:
        place = self._place_of(self._function, self._name)
        self._take(place, self._function)
        while self._waiting:
            self._look_into(*self._waiting.pop(0))
        first = [*self._first]
        if self._future:
            first.insert(0, "from __future__ import annotations")
        source = laid_out(self._pieces, first, [*self._aliases, *self._entry()])
        return Program(source, place.text.file)

    def _entry(self) -> list[str]:
        """What runs the function: main(), which gives it what it asks for."""
        if isinstance(self._target, type):
            return []
        wanted = parameters(self._target)
        if not wanted and self._name == "main":
            return []
        lines = ["", "", f"def main(*, _function={self._name}):"]
        if wanted:
            classes = ", ".join(sorted({GIVEN[name] for name in wanted}))
            lines.append(f"    from manta.light import {classes}")
        given = ", ".join(f"{name}={GIVEN[name]}()" for name in wanted)
        return [*lines, f"    return _function({given})"]

    def _take(self, place: Place, item: Any) -> None:
        """Adds a statement."""
        tasks = [one for one in _decorators(place.node) if self._is_task(one)]
        piece = piece_of(place, tasks)
        if piece not in self._pieces:
            self._pieces[piece] = None
            self._waiting.append((piece, item))

    def _look_into(self, piece: Piece, item: Any) -> None:
        """Adds what a statement uses."""
        captured = _captured(item)
        try:
            names = used(source_of(piece), self._future)
        except SyntaxError as error:  # a nonlocal name
            raise ModuleError(
                f"{self._what} depends on the function around it ({error.msg}, line {piece.first}):"
                " define it at the top of the file, and keep what changes in a global or a class."
            ) from None
        for name in names:
            self._need(name, piece.place.node, captured)

    def _need(self, name: str, by: ast.AST, captured: dict[str, Any]) -> None:
        if name in _OF_MODULES:
            return
        if name in captured:
            value = captured[name]
        elif name in self._names:
            value = self._names[name]
        elif hasattr(builtins, name) and name not in _OF_NOTEBOOKS:
            return
        elif any(isinstance(one, ast.Global) and name in one.names for one in ast.walk(by)):
            return  # its own code may set it
        else:
            raise ModuleError(
                f"{self._what} uses {name!r}, which is not defined{self._line(by, name)}: define "
                "it, or import it, before the swarm is checked or deployed."
            )
        if name in self._values:
            if self._values[name] is not value:
                raise ModuleError(
                    f"{self._what} and what it uses mean two different things by {name!r}: "
                    "rename one of them."
                )
            if not isinstance(value, ModuleType):
                return
        self._values[name] = value
        if name == "main" and self._name != "main":
            raise ModuleError(
                f"{self._what} uses {name!r}, which is what a task begins with: rename it."
            )
        if isinstance(value, Task):
            if value.module.function is self._function:
                return  # it calls itself
            raise self._refusal(
                name, "which is a task", "tasks give each other results and globals", by
            )
        self._bind(name, value, by, is_captured=name in captured)

    def _bind(self, name: str, value: Any, by: ast.AST, is_captured: bool) -> None:
        """Has the module bind a name as it is bound here."""
        if name in _OF_NOTEBOOKS and self._space.is_notebook:
            raise self._refusal(name, "which is the notebook's", "leave it out", by)
        places = [] if is_captured else self._space.bindings(name)
        if (text := literal(value)) is not None:
            self._assign(name, text, places)
        elif places and self._restates(places[-1], name, value):
            # "import a.b" and "import a.c" both bind a.
            for place in places[:-1] if isinstance(value, ModuleType) else ():
                if isinstance(place.node, ast.Import):
                    self._restates_import(place, place.node, name)
        elif isinstance(value, ModuleType):
            self._import_module(name, value, by)
        elif (line := self._import_of(name, value)) is not None:
            self._first[line] = None
        elif is_captured and name not in _at_definition(by) and (known := self._known_as(value)):
            self._aliases[f"{name} = {known}"] = None
            self._need(known, by, {})
        elif isinstance(value, type | FunctionType) and self._is_own(value):
            self._define(name, value)
        else:
            what = f"which is {described(value)}"
            raise self._refusal(name, what, remedy(name, value), by)

    def _assign(self, name: str, text: str, places: list[Place]) -> None:
        """Binds a constant, on its line if it has one."""
        place = next(
            (one for one in places if isinstance(one.node, ast.Assign | ast.AnnAssign)), None
        )
        if place is None or {place.node.lineno, place.node.end_lineno} & place.text.shared:
            self._first[f"{name} = {text}"] = None
        else:
            self._pieces[Piece(place, (f"{name} = {text}",))] = None

    def _restates(self, place: Place, name: str, value: Any) -> bool:
        """Takes the statement that bound a name, if that makes the same again."""
        node = place.node
        if isinstance(node, ast.Import | ast.ImportFrom):
            return self._restates_import(place, node, name)
        if isinstance(node, Definition):
            self._take(place, value)
            return True
        if isinstance(node, ast.Try | ast.If | ast.With) and _imports(node, name):
            self._take(place, value)
            return True
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            return False
        expression = node.value
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if not all(isinstance(target, ast.Name) for target in targets):
            return False

        def again() -> Any:
            code = compile(ast.Expression(expression), place.text.name, "eval", dont_inherit=True)
            return eval(code, {**self._names})

        if not is_declared(value) and not is_repeatable(value, again):
            return False
        self._take(place, value)
        return True

    def _restates_import(self, place: Place, node: ast.Import | ast.ImportFrom, name: str) -> bool:
        if isinstance(node, ast.ImportFrom) and node.level:
            raise ModuleError(
                f"{self._what} uses {name!r}, which {place.text.name} imports relative to its "
                "package, and a function travels without it: import it by its full name, or give "
                "the package as the module, Module(path of its folder)."
            )
        wanted = [one for one in node.names if (one.asname or one.name.partition(".")[0]) == name]
        if isinstance(node, ast.Import):
            line = ast.unparse(ast.Import(wanted))
        else:
            line = ast.unparse(ast.ImportFrom(node.module, wanted, 0))
        if {node.lineno, node.end_lineno} & place.text.shared:
            self._first[line] = None
        else:
            self._pieces[Piece(place, (line,))] = None
        return True

    def _import_module(self, name: str, module: ModuleType, by: ast.AST) -> None:
        own = module.__name__
        if own == "__main__":
            raise self._refusal(name, "which is this program", "import what you need of it", by)
        self._first[f"import {own}" + ("" if own == name else f" as {name}")] = None
        for dotted in sorted(attributes(by, name)):
            below = own + dotted.removeprefix(name)
            if below in sys.modules and "." in below:
                self._first[f"import {below} as _"] = None

    def _import_of(self, name: str, value: Any) -> str | None:
        """How a value is imported from the module that says to have made it."""
        home = getattr(value, "__module__", None)
        qualified = getattr(value, "__qualname__", None)
        if not isinstance(home, str) or not isinstance(qualified, str) or "." in qualified:
            return None
        if home == "__main__" or getattr(sys.modules.get(home), qualified, None) is not value:
            return None
        if vars(sys.modules[home]) is self._names:
            return None
        return f"from {home} import {qualified}" + ("" if qualified == name else f" as {name}")

    def _is_own(self, value: Any) -> bool:
        """Whether it is defined where the function is."""
        names = getattr(value, "__globals__", None)
        return names is self._names or (
            names is None and value.__module__ == self._names.get("__name__")
        )

    def _known_as(self, value: Any) -> str | None:
        """The name that a statement at the top of the file gives a value."""
        names = (name for name, one in self._names.items() if one is value)
        return next((name for name in names if self._space.bindings(name)), None)

    def _define(self, name: str, value: Any) -> None:
        """Takes the definition of what no statement at the top of the file binds."""
        if value.__name__ != name or hasattr(value, "__wrapped__"):
            raise ModuleError(
                f"{self._what} uses {name!r}, which is {value.__qualname__} under another name or "
                "decorated: define it at the top of the file, under the name that is used."
            )
        self._take(self._place_of(value, name), value)

    def _place_of(self, item: Any, name: str) -> Place:
        """Where a function or class is defined. Raises ModuleError."""
        code = code_of(item)
        place = self._space.defined(code) if isinstance(item, FunctionType) and code else None
        if place is None and isinstance(item, type):
            found = [
                Place(order, text, node)
                for order, text in enumerate(self._space.texts)
                for node in ast.walk(text.tree)
                if isinstance(node, ast.ClassDef) and node.name == name and _has(node, code)
            ]
            place = found[-1] if found else None
        if place is not None:
            return place
        if not self._space.texts:
            raise ModuleError(
                f"{self._what} comes from {self._code.co_filename}, which keeps no source: put it "
                "into a file, or a notebook."
            )
        raise ModuleError(
            f"{self._what} is not found in {self._space.texts[-1].name} where it was defined: the "
            "file was changed since, or it was made by other means than def and class. Import it "
            "anew, or define it there."
        )

    def _is_task(self, decorator: ast.expr) -> bool:
        """Whether it is @task, which is not for nodes."""
        node = decorator.func if isinstance(decorator, ast.Call) else decorator
        parts = list[str]()
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        value = self._names.get(node.id) if isinstance(node, ast.Name) else None
        for part in parts:
            value = getattr(value, part, None) if isinstance(value, ModuleType) else None
        return value is task

    def _line(self, by: ast.AST, name: str) -> str:
        lines = [
            node.lineno for node in ast.walk(by) if isinstance(node, ast.Name) and node.id == name
        ]
        return f" (line {lines[0]})" if lines else ""

    def _refusal(self, name: str, what: str, how: str, by: ast.AST) -> ModuleError:
        return ModuleError(
            f"{self._what} uses {name!r}{self._line(by, name)}, {what} and cannot travel as "
            f"source: {how}."
        )


def _decorators(node: ast.stmt) -> list[ast.expr]:
    return node.decorator_list if isinstance(node, Definition) else []


def _at_definition(node: ast.AST) -> set[str]:
    """The names that a definition uses before it is called."""
    parts = [*getattr(node, "decorator_list", ()), *getattr(node, "bases", ())]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts += [*node.args.defaults, *(one for one in node.args.kw_defaults if one)]
    elif isinstance(node, ast.ClassDef):
        parts += node.body
    return {one.id for part in parts for one in ast.walk(part) if isinstance(one, ast.Name)}


def _captured(item: Any) -> dict[str, Any]:
    """The names that a function, or a class by its methods, takes from a function around it."""
    item = inspect.unwrap(item) if callable(item) else item
    functions = [item] if isinstance(item, FunctionType) else []
    if isinstance(item, type):
        functions = [one for one in vars(item).values() if isinstance(one, FunctionType)]
    found = dict[str, Any]()
    for one in functions:
        for name, cell in zip(one.__code__.co_freevars, one.__closure__ or (), strict=True):
            if name != "__class__":
                try:
                    found[name] = cell.cell_contents
                except ValueError:  # it is bound later
                    continue
    return found


def _has(node: ast.ClassDef, code: Any) -> bool:
    """Whether a class's definition has a method with that code; any has none."""
    if code is None:
        return True
    return any(
        isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        and min([one.lineno, *(each.lineno for each in one.decorator_list)]) == code.co_firstlineno
        for one in ast.walk(node)
    )


def _imports(node: ast.stmt, name: str) -> bool:
    """Whether a compound statement imports a name."""
    return any(
        (alias.asname or alias.name.partition(".")[0]) == name
        for one in ast.walk(node)
        if isinstance(one, ast.Import | ast.ImportFrom)
        for alias in one.names
    )
