"""Packs a Module: finds, reads and checks its files, in a fixed order.

A program is looked up as a path (`locate`), then among the registered modules, then as `NAME.py`
(`find_program`); a name with a version first among the registered modules. Of a function its file
is taken, without what the function does not use (`functions`). A package is a dict of
relative path -> bytes in sorted order, with its entry point under "__entry__": the path of a file,
or the name of a package folder. What it imports and lies beside it is packed along (`imports`).
`__pycache__`, compiled Python and names that start with a dot are left out.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from manta.apis import checks
from manta.apis.compile.functions.closure import program_of
from manta.apis.compile.imports import imports
from manta.apis.errors import ModuleError
from manta.apis.module import Module
from manta.protocol.names import meant
from manta.protocol.requirements import flaw_of, lines_of
from manta.protocol.spec import MAX_PACKAGE_BYTES, MAX_PACKAGE_FILES
from manta.transports.files import FileTooLarge, read_bounded

ENTRY = "__entry__"
REQUIREMENTS = "requirements.txt"


class Package(NamedTuple):
    """`files` includes the entry point; `requirements` are those of a package folder; `along`
    names what was packed because the program imports it."""

    files: dict[str, bytes | str]
    requirements: tuple[str, ...]
    along: tuple[str, ...] = ()

    @property
    def entry(self) -> bytes | str:
        """The source that runs first."""
        return entry_of(self.files)


def entry_of(files: Mapping[str, bytes | str]) -> bytes | str:
    """Returns the source that runs first of a package's files. Raises KeyError."""
    name = str(files[ENTRY])
    return files[name if name in files else f"{name}/__init__.py"]


class Wanted(NamedTuple):
    """A registered module, by name and version or range."""

    name: str
    version: str | None


def package(module: Module, found: Path | None, folders: Sequence[Path]) -> Package | None:
    """Packs the files of a module; None for an image without a program.

    `found` is its file or package folder, unless it is source text. Included paths are relative
    to `folders`, the first of which is the swarm's own. Raises ModuleError.
    """
    if not module.has_program:
        return None
    requirements: tuple[str, ...] = ()
    files: dict[str, bytes] = {}
    roots: list[Path] = []
    taken: dict[Path, str] = {}
    if module.function is not None:
        program = program_of(module.function)
        entry = f"{module.function.__name__}.py"
        if program.file is not None:
            entry = program.file.name
            roots.append(program.file)
            taken[program.file] = program.source
        files[entry] = program.source.encode("utf-8", "surrogatepass")
        _check_syntax(module, entry, files[entry], f"what was taken of {program.file or entry}")
    elif module.is_source:
        assert module.python_program is not None
        entry = re.sub(r"\W", "_", module.name)[:60] + ".py"
        files[entry] = module.python_program.encode("utf-8", "surrogatepass")
        _check_syntax(module, entry, files[entry], f"the source text of module {module.name!r}")
    else:
        assert found is not None
        entry = found.name
        roots.append(found)
        _take(found, module, files)
        if found.is_dir():
            listed = files.get(f"{entry}/{REQUIREMENTS}", b"").decode("utf-8", "replace")
            requirements = lines_of(listed)
            for line in requirements:
                if flaw := flaw_of(line):
                    raise ModuleError(f"{found / REQUIREMENTS}: {flaw}.")
    for name in module.include:
        roots.append(_find_include(name, module, folders))
        _take(roots[-1], module, files)
    along = imports(roots, taken).along
    for path in along:
        _take(path, module, files)
    contents: dict[str, bytes | str] = {**files, ENTRY: entry}
    return Package(dict(sorted(contents.items())), requirements, tuple(path.name for path in along))


def locate(module: Module, folders: Sequence[Path]) -> Path | Wanted | None:
    """Returns the module's file or package folder, or what to look up in the registry; None for
    source text, a function, or no program."""
    if module.python_program is None or module.is_source:
        return None
    if module.version is not None and _is_bare(module.python_program):
        return Wanted(module.python_program, module.version)
    if not module.is_range and (found := lying(module, folders)) is not None:
        return found
    return Wanted(module.python_program, module.version)


def lying(module: Module, folders: Sequence[Path]) -> Path | None:
    """Returns the file or package folder that the module's program is the path of, if any."""
    return _first(_paths(module, folders), [])


def _is_bare(program: str) -> bool:
    """Whether it is a name alone, without a folder or an ending."""
    return os.path.basename(program) == program and not program.endswith(".py")


def find_program(module: Module, folders: Sequence[Path], registry: str = "") -> Path:
    """Finds a program that the registry does not have. Raises ModuleError, which lists what was
    tried; `registry` says what the registry has, and is empty if it was not asked."""
    program = module.python_program
    assert program is not None
    if module.is_range:
        raise ModuleError(
            f"Module {module.name!r} has the range {module.version!r}, which names registered "
            f"modules, and none of {checks.shown(program)} fits: {registry or 'none was looked up'}"
            '. Send one that does (manta module push), or give a single version, such as "1.0.0", '
            "for a file."
        )
    tried: list[str] = []
    if (found := _first(_paths(module, folders), tried)) is not None:
        return found
    if registry:
        tried.append(registry)
    path = Path(program)
    if not path.is_absolute() and path.suffix != ".py":
        beside = [folder / f"{program}.py" for folder in folders]
        if (found := _first(beside, tried)) is not None:
            return found
    raise ModuleError(
        f"The program {checks.shown(program)} of module {module.name!r} was not found. "
        f"Tried {', '.join(tried)}. Give the path of a .py file or of a folder with __init__.py, "
        "relative to the swarm's file, or the name of a registered module; source text needs a "
        "line break." + meant(program, _lying_there(program, folders))
    )


def _paths(module: Module, folders: Sequence[Path]) -> list[Path]:
    assert module.python_program is not None
    path = Path(os.path.expanduser(module.python_program))
    return [path] if path.is_absolute() else [folder / path for folder in folders]


def _lying_there(program: str, folders: Sequence[Path]) -> Iterator[str]:
    """Names the programs in the folders to which a path leads, as the path would."""
    path = Path(os.path.expanduser(program))
    for folder in folders:
        with suppress(OSError, ValueError):
            for entry in os.scandir(folder / path.parent):
                if entry.name.endswith(".py") or os.path.isfile(Path(entry.path, "__init__.py")):
                    name = entry.name if path.suffix else entry.name.removesuffix(".py")
                    yield str(path.with_name(name))


def _first(candidates: Sequence[Path], tried: list[str]) -> Path | None:
    """Returns the first that is a .py file or package folder; adds the others to `tried`."""
    for candidate in dict.fromkeys(candidates):
        # For text that cannot be a path, such as a long line of source, os.path says "missing".
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
    return None


def _find_include(name: str, module: Module, folders: Sequence[Path]) -> Path:
    path = Path(os.path.expanduser(name))
    tried = [path] if path.is_absolute() else [folder / path for folder in folders]
    for candidate in tried:
        if os.path.exists(candidate):
            found = candidate.resolve()
            if not found.name:
                raise ModuleError(
                    f"Module {module.name!r} includes {name!r}, the root of the file system: "
                    "name a folder in it."
                )
            return found
    raise ModuleError(
        f"Module {module.name!r} includes {name!r}, which was not found. "
        f"Tried {', '.join(map(str, dict.fromkeys(tried)))}."
    )


def _take(root: Path, module: Module, files: dict[str, bytes]) -> None:
    """Adds a file, or all files of a folder."""
    size = sum(map(len, files.values()))
    for path, file in _files(root, module):
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            raise ModuleError(
                f"Module {module.name!r} contains {file}, a link that leads out of {root}: "
                "put a copy there, or use include=."
            )
        content = _read(file, module)
        size += len(content)
        if size > MAX_PACKAGE_BYTES or len(files) >= MAX_PACKAGE_FILES:
            raise _too_large(file, module)
        if files.setdefault(path, content) != content:
            raise ModuleError(
                f"Module {module.name!r} would contain two different files {path}: "
                f"rename {file}, or leave it out of include."
            )
        if path.endswith(".py"):
            _check_syntax(module, path, content, str(file))


def _files(root: Path, module: Module) -> Iterator[tuple[str, Path]]:
    """Yields path in the package and path on disk; a folder keeps its name."""
    if not root.is_dir():
        yield root.name, root
        return
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_symlink() and path.is_dir():
            raise ModuleError(
                f"Module {module.name!r} contains {path}, a link to a folder, which is not packed: "
                "put a copy there, or use include=."
            )
        for inside, file in _files(path, module):
            yield f"{root.name}/{inside}", file


def _too_large(file: Path, module: Module) -> ModuleError:
    return ModuleError(
        f"Module {module.name!r} is too large at {file}: a package has up to "
        f"{MAX_PACKAGE_BYTES >> 20} MiB in {MAX_PACKAGE_FILES} files; data belongs "
        "into a dataset or a global."
    )


def _read(file: Path, module: Module) -> bytes:
    if not file.is_file():
        raise ModuleError(
            f"Module {module.name!r} contains {file}, which is not a regular file: remove it."
        )
    try:
        return read_bounded(file, MAX_PACKAGE_BYTES)
    except FileTooLarge:
        raise _too_large(file, module) from None
    except OSError as error:
        raise ModuleError(
            f"{file} of module {module.name!r} can't be read ({error.strerror}): "
            "check its permissions."
        ) from error


def _check_syntax(module: Module, path: str, source: bytes, shown: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about the code are shown where it runs
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
