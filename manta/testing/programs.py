"""What a task of this process runs: a class, a function, a file or a package."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol

from manta.apis.compile.functions.closure import parameters, program_of
from manta.light.local import Local
from manta.light.results import Results
from manta.light.runtime.loader import NothingToRun, Program, Target
from manta.light.world import World
from manta.testing.node_imports import as_on_a_node


def check_task(task: object) -> None:
    is_function = isinstance(task, FunctionType) and task.__name__ != "<lambda>"
    if not isinstance(task, type | str | os.PathLike) and not is_function:
        raise TypeError(
            "A task is a class, a function that is written with def, the path of a module or "
            f"source text, not {task!r:.60}: give the class itself, not an object of it."
        )


def outcome_of(target: Target) -> Any:
    """Runs one attempt. Raises what its code raises, but a SystemExit that says that all is
    well."""
    try:
        return target.run()
    except SystemExit as error:
        if error.code not in (None, 0):
            raise
    return None


class Loaded(Protocol):
    """What runs, and what there is of it."""

    def targets(self, class_name: str | None, count: int) -> list[Target]:
        """One for each instance. To be called within an attempt."""

    def modules(self) -> list[str]:
        """The user's own that were imported for it, in order."""

    def let_go(self) -> None: ...


class Own(Loaded):
    """A class or function of the caller's."""

    def __init__(self, item: Callable[..., Any]) -> None:
        self._item = item

    def targets(self, class_name: str | None, count: int) -> list[Target]:
        item = self._item
        if not isinstance(item, type):
            program_of(item)
            made = {"world": World, "local": Local, "results": Results}
            item = partial(item, **{name: made[name]() for name in parameters(item)})
        return [Target(item) for _ in range(count)]

    def modules(self) -> list[str]:
        return []

    def let_go(self) -> None:
        """It stays."""


class ModuleOf(Loaded):
    """A file, or a folder, at `places`."""

    def __init__(self, program: Program, places: Sequence[Path]) -> None:
        self._program = program
        self._places = places
        self._before = set(sys.modules)

    def targets(self, class_name: str | None, count: int) -> list[Target]:
        self._program.load()
        if count == 1:
            return [self._program.target(class_name)]
        main = self._program.main
        if main is not None and main.called:
            raise NothingToRun(
                f"{self._program.entry} calls main() while it is imported, which happens once for "
                'all instances: call it under `if __name__ == "__main__":` only.'
            )
        if main is not None and class_name is None:
            return [Target(main.__wrapped__) for _ in range(count)]
        return [self._program.target(class_name) for _ in range(count)]

    def modules(self) -> list[str]:
        new = [name for name in sys.modules if name not in self._before]
        return [name for name in new if self._is_own(sys.modules[name])]

    def let_go(self) -> None:
        self._program.module = self._program.main = None

    def _is_own(self, module: object) -> bool:
        origin = Path(getattr(module, "__file__", None) or "")
        return module is None or any(origin.is_relative_to(place) for place in self._places)


@contextmanager
def loaded(
    task: Callable[..., Any] | str | os.PathLike[str], folder: Path, included: Sequence[Path]
) -> Iterator[Loaded]:
    """Yields what finds the target within the attempt; forgets the module afterwards."""
    if not isinstance(task, str | os.PathLike):
        yield Own(task)
        return
    source = os.fspath(task)
    if "\n" in source:
        file = folder / "module.py"
        file.write_text(textwrap.dedent(source), "utf-8")
    else:
        file = Path(source).resolve()
        if not file.exists():
            raise FileNotFoundError(f"There is no module {file}: give a file or a package folder.")
        if file.is_dir() and not (file / "__init__.py").exists():
            raise FileNotFoundError(f"{file} is no package: it has no __init__.py.")
    program = Program(str(file.parent), file.name, str(folder))
    places = [file.parent, *(path.parent for path in included)]
    path, arguments = list(sys.path), list(sys.argv)
    loaded = ModuleOf(program, places)
    try:
        with as_on_a_node([file, *included]):
            yield loaded
    finally:
        sys.path[:], sys.argv[:] = path, arguments
        for name in loaded.modules():
            del sys.modules[name]


def included(include: object) -> list[Path]:
    entries = [include] if isinstance(include, str | os.PathLike) else include
    if not isinstance(entries, list | tuple):
        raise TypeError(f"run_task() takes include as a list of paths, not {include!r:.60}.")
    found = [Path(entry).resolve() for entry in entries]
    for path in found:
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}, which run_task() is to include.")
    return found
