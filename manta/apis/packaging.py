"""From a Module to the files that travel: found, read, checked, in a fixed order.

A package is a dict of relative path -> bytes in sorted order, and under "__entry__" what
is run of it: a file's path, or the name of a package folder. What is left out: `__pycache__`,
compiled Python, and names that start with a dot.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from manta.apis import checks
from manta.apis.errors import ModuleError
from manta.apis.module import Module

ENTRY = "__entry__"
REQUIREMENTS = "requirements.txt"


class Package(NamedTuple):
    """`files` has the entry as well; `requirements` are those of a package folder."""

    files: dict[str, bytes | str]
    requirements: tuple[str, ...]


def package(module: Module, folders: Sequence[Path]) -> Package | None:
    """The files of a module; None for an image alone.

    Paths are relative to `folders`, the first of which is the swarm's own. Raises ModuleError.
    """
    if module.python_program is None:
        return None
    requirements: tuple[str, ...] = ()
    files: dict[str, bytes] = {}
    if module.is_source:
        entry = re.sub(r"\W", "_", module.name) + ".py"
        files[entry] = module.python_program.encode("utf-8", "surrogatepass")
        _check_syntax(module, entry, files[entry], f"the source text of module {module.name!r}")
    else:
        found = find_program(module, folders)
        entry = found.name
        for path, file in _files(found, module):
            files[path] = _read(file, module)
            if path.endswith(".py"):
                _check_syntax(module, path, files[path], str(file))
        if found.is_dir():
            listed = files.get(f"{entry}/{REQUIREMENTS}", b"").decode("utf-8", "replace")
            lines = (line.partition(" #")[0].strip() for line in listed.splitlines())
            requirements = tuple(line for line in lines if line and not line.startswith("#"))
    for name in module.include:
        for path, file in _files(_find_include(name, module, folders), module):
            content = _read(file, module)
            if files.setdefault(path, content) != content:
                raise ModuleError(
                    f"Module {module.name!r} would hold two different files {path}: "
                    f"rename {file}, or leave it out of include."
                )
            if path.endswith(".py"):
                _check_syntax(module, path, content, str(file))
    contents: dict[str, bytes | str] = {**files, ENTRY: entry}
    return Package(dict(sorted(contents.items())), requirements)


def find_program(module: Module, folders: Sequence[Path]) -> Path:
    """The module's file or package folder. Raises ModuleError that lists what was tried."""
    program = module.python_program
    assert program is not None
    path = Path(program).expanduser()
    candidates = [path] if path.is_absolute() else [folder / path for folder in folders]
    if not path.is_absolute() and path.suffix != ".py":
        candidates += [folder / f"{program}.py" for folder in folders]
    tried = []
    for candidate in dict.fromkeys(candidates):
        # os.path: what is no path at all, such as a long line of source, is just not there.
        is_folder = os.path.isdir(candidate)
        if os.path.isfile(candidate / "__init__.py" if is_folder else candidate) and (
            is_folder or candidate.suffix == ".py"
        ):
            return candidate.resolve()
        why = ""
        if is_folder:
            why = " (a folder without __init__.py)"
        elif os.path.exists(candidate):
            why = " (not a .py file)"
        tried.append(f"{candidate}{why}")
    raise ModuleError(
        f"The program {checks.shown(program)} of module {module.name!r} was not found. "
        f"Tried {', '.join(tried)}. Give the path of a .py file or of a folder with __init__.py, "
        "relative to the swarm's file; source text needs a line break."
    )


def _find_include(name: str, module: Module, folders: Sequence[Path]) -> Path:
    path = Path(name).expanduser()
    tried = [path] if path.is_absolute() else [folder / path for folder in folders]
    for candidate in tried:
        if os.path.exists(candidate):
            return candidate.resolve()
    raise ModuleError(
        f"Module {module.name!r} includes {name!r}, which was not found. "
        f"Tried {', '.join(map(str, dict.fromkeys(tried)))}."
    )


def _files(root: Path, module: Module) -> Iterator[tuple[str, Path]]:
    """Path in the package and on disk; a folder keeps its own name."""
    if not root.is_dir():
        yield root.name, root
        return
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_symlink() and path.is_dir():
            raise ModuleError(
                f"Module {module.name!r} holds {path}, a link to a folder, which is not packed: "
                "put a copy there, or use include=."
            )
        for inside, file in _files(path, module):
            yield f"{root.name}/{inside}", file


def _read(file: Path, module: Module) -> bytes:
    if not file.is_file():
        raise ModuleError(
            f"Module {module.name!r} holds {file}, which is no regular file: remove it."
        )
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModuleError(
            f"{file} of module {module.name!r} can't be read ({error.strerror}): "
            "check its permissions."
        ) from error


def _check_syntax(module: Module, path: str, source: bytes, shown: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the code's own, told where it runs
            compile(source, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        text = f": {error.text.strip()}" if error.text and error.text.strip() else ""
        raise ModuleError(
            f"Module {module.name!r} has a syntax error in {shown}{line} ({error.msg}){text}"
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes, absurd nesting
        raise ModuleError(
            f"Module {module.name!r} can't be compiled: {shown}: {error or type(error).__name__}."
        ) from None
