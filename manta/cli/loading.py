"""From `FILE[:Class]` and `-p key=value` to a swarm."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from manta.apis.errors import InvalidSwarm
from manta.apis.swarm import Swarm

MODULE = "__manta_swarm__"
"""What a swarm's file is called while it is loaded."""

T = TypeVar("T")


def load_swarm(target: str, parameters: Mapping[str, str]) -> Swarm:
    """Raises InvalidSwarm; what the file itself raises is told with its own traceback."""
    path, class_name = split_target(target)
    kind = _swarm_class(_load(path), path, class_name)
    arguments = _arguments(kind, parameters)
    return of_the_user(lambda: kind(**arguments), f"{kind.__name__}() in {path}")


def split_target(target: str) -> tuple[Path, str | None]:
    """`FILE`, `FILE:Class`."""
    name, colon, class_name = target.rpartition(":")
    if colon and class_name.isidentifier() and name and not os.path.exists(target):
        return Path(name), class_name
    return Path(target), None


def parse_parameters(pairs: Sequence[str]) -> dict[str, str]:
    """`key=value`, each key once. Raises InvalidSwarm."""
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


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidSwarm(f"There is no file {path}: give the Python file of a swarm.")
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise InvalidSwarm(f"{path} is not a Python file: its name must end with .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    # As for `python FILE`: what lies beside it can be imported.
    sys.path.insert(0, str(path.parent))
    of_the_user(lambda: spec.loader.exec_module(module), str(path))  # type: ignore[union-attr]
    return module


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
        if isinstance(value, type) and issubclass(value, Swarm) and value.__module__ == MODULE
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
            there = ", ".join(named) or "none"
            raise InvalidSwarm(
                f"{kind.__name__}() has no parameter {key!r} (-p {key}=...): its are {there}."
            )
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in parameters:
            raise InvalidSwarm(
                f"{kind.__name__}() needs the parameter {name!r}: give it with -p {name}=..."
            )
    return {
        key: _value(text, named[key].annotation if key in named else None)
        for key, text in parameters.items()
    }


def _value(text: str, annotation: object) -> Any:
    """A Python literal, true, false or null; else, or where a str is asked for, the text."""
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
    """Run the user's code; what it raises becomes a sentence with the user's own frames."""
    try:
        return work()
    except InvalidSwarm:
        raise
    except SystemExit as error:
        raise InvalidSwarm(
            f"{where} called sys.exit({error.code!r}): a swarm's file must not, "
            'put it under if __name__ == "__main__".'
        ) from None
    except SyntaxError as error:
        line = f": {error.text.strip()}" if error.text else ""
        raise InvalidSwarm(
            f"Syntax error in {error.filename}, line {error.lineno} ({error.msg}){line}"
        ) from None
    except Exception as error:
        raise InvalidSwarm(
            f"{where} raised {type(error).__name__}: {error}\n\n{_own_frames(error)}"
        ) from None


def _own_frames(error: Exception) -> str:
    """The traceback without the frames of importing and of Manta's own code."""
    here = str(Path(__file__).parent.parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen importlib", here))
    ]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return "".join([*lines, *traceback.format_exception_only(error)]).rstrip()
