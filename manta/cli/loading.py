"""Loads a swarm from `FILE[:Class]` and `-p key=value`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, TypeVar, get_args, get_origin

from manta.apis.compile.syntax import parse
from manta.apis.errors import InvalidSwarm
from manta.apis.swarm import Swarm, graph_of, schedule_of
from manta.protocol.names import meant

MODULE = "__manta_swarm__"
"""The module name of a swarm's file."""

T = TypeVar("T")


def load_swarm(target: str, parameters: Mapping[str, str]) -> Swarm:
    """Loads a swarm. Raises InvalidSwarm, with the traceback of what the file itself raises."""
    path, class_name = split_target(target)
    with _no_cache(), _folders_on_path() as add:
        kind = _swarm_class(_load(path, add), path, class_name)
        arguments = _arguments(kind, parameters)
        swarm = of_the_user(lambda: kind(**arguments), f"{kind.__name__}() in {path}")
        # User code as well: later its errors would look like bugs of Manta.
        of_the_user(lambda: schedule_of(swarm) or graph_of(swarm), f"{kind.__name__}.execute()")
    return swarm


def split_target(target: str) -> tuple[Path, str | None]:
    """Splits `FILE` or `FILE:Class`."""
    name, colon, class_name = target.rpartition(":")
    if colon and class_name.isidentifier() and name and not os.path.exists(target):
        return Path(name), class_name
    return Path(target), None


def parse_parameters(pairs: Sequence[str]) -> dict[str, str]:
    """Parses `key=value` pairs; each key may occur once. Raises InvalidSwarm."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key.isidentifier():
            raise InvalidSwarm(f"-p {pair!r} is not KEY=VALUE: write it as in -p rounds=5.")
        if key in found:
            raise InvalidSwarm(f"-p {key} is given twice: leave one out.")
        found[key] = value
    return found


@contextmanager
def _no_cache() -> Iterator[None]:
    """Has Python write no compiled files beside the user's: it knows a file by the second of its
    last change, so one that is changed and loaded again within that second would be the old one."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


@contextmanager
def _folders_on_path() -> Iterator[Callable[..., None]]:
    """Yields what adds folders of the user's to sys.path, until the end of this.

    They come after the standard library, as a random.py of the user's would break what imports
    Python's own, and before what is installed, as with `python FILE`.
    """
    added: list[str] = []

    def add(*folders: Path) -> None:
        library = os.path.dirname(os.__file__)
        its = (library, os.path.join(library, "lib-dynload"))
        after = max((i for i, entry in enumerate(sys.path, 1) if entry in its), default=0)
        added[:] = map(str, folders)
        sys.path[after:after] = added

    try:
        yield add
    finally:  # by identity, since the user's code may have put the same folder there to stay
        sys.path[:] = [entry for entry in sys.path if not any(entry is ours for ours in added)]


def _load(path: Path, add: Callable[..., None]) -> ModuleType:
    if path.is_dir():
        raise InvalidSwarm(f"{path} is a folder: give the Python file of a swarm.")
    if not path.is_file():
        there = (str(other) for other in path.parent.glob("*.py"))
        raise InvalidSwarm(
            f"There is no file {path}: give the Python file of a swarm." + meant(str(path), there)
        )
    path = path.resolve()
    if (package := _package(path)) is not None:
        return _load_within(path, *package, add)
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise InvalidSwarm(f"{path} is not a Python file: its name must end with .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    add(path.parent)
    of_the_user(lambda: spec.loader.exec_module(module), str(path))  # type: ignore[union-attr]
    return module


def _package(path: Path) -> tuple[Path, str] | None:
    """Returns where the package of a file with relative imports lies, and its name in it."""
    try:
        tree = parse(path.read_bytes())
    except OSError:
        return None  # loading reports it
    nodes = ast.walk(tree) if tree is not None else ()
    level = max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)
    if not level:
        return None
    names = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while level > 0 or (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder, level = folder.parent, level - 1
    return (folder, ".".join(names)) if all(map(str.isidentifier, names)) else None


def _load_within(path: Path, root: Path, name: str, add: Callable[..., None]) -> ModuleType:
    top = name.partition(".")[0]
    there = sys.modules.get(top)
    is_other = there is not None and str(root / top) not in getattr(there, "__path__", ())
    if is_other or top in sys.stdlib_module_names:
        raise InvalidSwarm(
            f"{path} has relative imports, and its package would be called {top!r}, like one of "
            f"Python's or one that is already imported: rename the folder {root / top}."
        )
    add(root, path.parent)
    return of_the_user(lambda: importlib.import_module(name), str(path))


def _swarm_class(module: ModuleType, path: Path, class_name: str | None) -> type[Swarm]:
    if class_name is not None:
        kind = getattr(module, class_name, None)
        if isinstance(kind, type) and issubclass(kind, Swarm):
            return kind
        what = "has no" if kind is None else "has something else than a Swarm class called"
        raise InvalidSwarm(f"{path} {what} {class_name}: {_choices(module)}.")
    own = _own_classes(module)
    if len(own) == 1:
        return own[0]
    if not own:
        raise InvalidSwarm(f"{path} defines no Swarm: write a class that derives from manta.Swarm.")
    raise InvalidSwarm(f"{path} defines several swarms, so name one: {_choices(module)}.")


def _own_classes(module: ModuleType) -> list[type[Swarm]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Swarm)
        and value.__module__ == module.__name__
    ]


def _choices(module: ModuleType) -> str:
    own = _own_classes(module)
    file = Path(str(module.__file__)).name
    return "give " + " or ".join(f"{file}:{kind.__name__}" for kind in own) if own else "write one"


def _arguments(kind: type[Swarm], parameters: Mapping[str, str]) -> dict[str, Any]:
    known = inspect.signature(kind).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    named = {
        name: parameter
        for name, parameter in known.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    for key in parameters:
        if key not in named and not free:
            there = f"it has {', '.join(named)}" if named else "it has none"
            raise InvalidSwarm(
                f"{kind.__name__}() has no parameter {key!r} (-p {key}=...): {there}."
                + meant(key, named)
            )
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in parameters:
            raise InvalidSwarm(
                f"{kind.__name__}() needs the parameter {name!r}: give it with -p {name}=..."
            )
    hints = _hints(kind)
    return {key: _typed(kind, key, text, hints.get(key)) for key, text in parameters.items()}


def _hints(kind: type[Swarm]) -> dict[str, Any]:
    """Returns the types of the parameters, as far as they can be resolved."""
    try:
        signature = inspect.signature(kind, eval_str=True)
    except (NameError, SyntaxError, TypeError, AttributeError):
        signature = inspect.signature(kind)
    return {name: parameter.annotation for name, parameter in signature.parameters.items()}


_CHECKED = {int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
_CHECKED |= {dict: "a dict", tuple: "a tuple"}


def _typed(kind: type[Swarm], key: str, text: str, annotation: Any) -> Any:
    """Converts a value. Raises InvalidSwarm if the parameter's type does not accept it."""
    value = _value(text, annotation)
    allowed = {get_origin(one) or one for one in get_args(annotation) or (annotation,)}
    if get_origin(annotation) in _CHECKED:
        allowed = {get_origin(annotation)}
    wanted = [_CHECKED[one] for one in _CHECKED if one in allowed]
    if not wanted or not allowed <= {*_CHECKED, str, NoneType} or str in allowed:
        return value
    if float in allowed and type(value) is int:
        value = float(value)
    if type(value) in allowed:
        return value
    raise InvalidSwarm(
        f"{kind.__name__}() takes {' or '.join(wanted)} as {key}, not {text!r}: "
        f"correct -p {key}=..."
    )


def _value(text: str, annotation: object) -> Any:
    """Parses a Python literal, true, false or null; anything else, or a str, stays text."""
    if annotation in (str, "str"):
        return text
    words: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def of_the_user(work: Callable[[], T], where: str) -> T:
    """Runs user code; turns what it raises into InvalidSwarm with the user's own frames."""
    try:
        return work()
    except InvalidSwarm:
        raise
    except SystemExit as error:
        raise InvalidSwarm(
            f"{where} called sys.exit({error.code!r}), which a swarm's file must not: "
            'put it under if __name__ == "__main__".'
        ) from None
    except SyntaxError as error:
        line = f": {error.text.strip()}" if error.text else ""
        at = f"{error.filename}, line {error.lineno}" if error.filename else where
        raise InvalidSwarm(f"Syntax error in {at} ({error.msg}){line}") from None
    except Exception as error:
        frames = _own_frames(error)
        at = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        shown = "".join(
            [
                "Traceback (most recent call last):\n",
                *traceback.format_list(frames),
                *traceback.format_exception_only(error),
            ]
        ).rstrip()
        raise InvalidSwarm(
            f"{where} raised {type(error).__name__}: {error}{at}{_hidden(error, frames)}\n\n{shown}"
        ) from None


def _hidden(error: Exception, frames: Sequence[traceback.FrameSummary]) -> str:
    """Names the user's file that was meant, where one of Python's modules was imported instead."""
    name = error.name if isinstance(error, ImportError) else None
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = error.obj.__name__
    if name is None or name not in sys.stdlib_module_names or not frames:
        return ""
    file = Path(frames[-1].filename).parent / f"{name}.py"
    said = f". {file} has the name of one of Python's own modules, which comes first: rename it."
    return said if file.exists() else ""


def _own_frames(error: Exception) -> list[traceback.FrameSummary]:
    """Returns the frames of user code, without importlib's and Manta's."""
    here = str(Path(__file__).parent.parent)
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen importlib", here))
    ]
