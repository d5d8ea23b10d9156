"""Imports the user's module, within an attempt, and finds what to run in it.

`main` of the entry module is wrapped, so that it runs once in an attempt, and not twice, where a
script calls it while it is imported, without `if __name__ == "__main__"`.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder, all_suffixes
from importlib.util import module_from_spec
from os import listdir, makedirs, path, symlink
from typing import TYPE_CHECKING, Any

from manta.light import wire
from manta.light.errors import LightError
from manta.light.runtime.cells import placed
from manta.light.runtime.shared import CALLED, RETURNED, SET_UP
from manta.light.runtime.sources import OwnLoader, Sources, compiled, leading_imports, parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, ModuleType

    from manta.light.runtime.sources import Import

_NEEDED = (
    *("asyncio", "dataclasses", "faulthandler", "json", "logging", "pickletools", "random"),
    *("traceback", "zipfile", "numpy"),
)
"""What Manta imports in the course of time, and what these import in turn."""
_STARTERS = {
    "multiprocessing.popen_spawn_posix",
    "multiprocessing.popen_forkserver",
    "joblib.externals.loky",
    "loky",
}
_WRAP = "main = __manta_main__(main)"


class NothingToRun(LightError):
    """The module has no main() and no class that could be run."""


class Main:
    """The user's main(), which runs once in a process."""

    def __init__(self, function: Callable[..., Any], begun: Callable[[], None]) -> None:
        """`begun` is called before the function is."""
        self.__wrapped__ = function
        self._begun = begun
        self.__name__ = getattr(function, "__name__", "main")
        self.__doc__ = getattr(function, "__doc__", None)
        self.called = False
        self.output: Any = None
        self._depth = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._depth:  # it calls itself
            return self.__wrapped__(*args, **kwargs)
        if not self.called:
            self.called = True
            self._depth = 1
            self._begun()
            try:
                output = self.__wrapped__(*args, **kwargs)
            finally:
                self._depth = 0
            if _is_coroutine(output):
                return self._keeping(output)
            self.output = output
        return self.output

    async def _keeping(self, output: Any) -> Any:
        self.output = await output
        return self.output


def _is_coroutine(value: Any) -> bool:
    return type(value).__name__ == "coroutine"


def _awaited(value: Any) -> Any:
    """A value, or what a coroutine returns."""
    if not _is_coroutine(value):
        return value
    import asyncio

    return asyncio.run(value)


class _EntryLoader(OwnLoader):
    """Compiles the entry from source with its main wrapped, which a cached one would lack."""

    def compile(self, data: bytes, file: str) -> CodeType:
        return _entry_code(data, file)


def _entry_code(data: bytes, file: str) -> CodeType:
    tree = parsed(data, file)
    for at, statement in enumerate(tree.body):
        if _binds_main(statement):
            wrap = parsed(_WRAP, file)
            for node in (wrap.body[0], wrap.body[0].value):
                node.lineno = node.end_lineno = statement.lineno
            tree.body.insert(at + 1, wrap.body[0])
            break
    code: CodeType = compile(tree, file, "exec", dont_inherit=True)
    return placed(code, data, file)


def _binds_main(statement: Any) -> bool:
    kind = type(statement).__name__
    if kind in ("FunctionDef", "AsyncFunctionDef"):
        return bool(statement.name == "main")
    if kind == "ImportFrom":
        return any((alias.asname or alias.name) == "main" for alias in statement.names)
    return False


_INSTALLED = ("site-packages", "dist-packages")


def _is_installed(name: str) -> bool:
    """Whether a package of that name is installed."""
    folders = [at for at in sys.path if at.endswith(_INSTALLED)]
    return PathFinder.find_spec(name, folders) is not None


def _is_library(name: str) -> bool:
    return name in sys.stdlib_module_names or PathFinder.find_spec(name) is not None


def _modules_in(folder: str) -> Iterator[str]:
    for name in listdir(folder):
        stem, _, suffix = name.partition(".")
        if f".{suffix}" in all_suffixes() or path.isfile(path.join(folder, name, "__init__.py")):
            yield stem


def _end_of_path() -> int:
    """Where in `sys.path` the standard library and installed packages are over: what Manta's own
    folder holds beside Manta, where it is not installed like others, is nobody's business."""
    manta = path.dirname(path.dirname(path.dirname(path.abspath(wire.__file__))))
    is_last = sys.path[-1:] == [manta] and not manta.endswith(_INSTALLED)
    return len(sys.path) - is_last


class Program:
    """The user's module, in this process.

    `folder` holds the unpacked module; `entry` is its main file or package, relative to it. What
    lies beside a file comes before libraries of the same name, as for any script, and after them
    where the entry is a package, whose modules find each other by relative imports.
    """

    def __init__(self, folder: str, entry: str, scratch: str | None = None) -> None:
        """`scratch` is a folder where it may leave a link, by which processes that the task starts
        import an entry that can't have its own name."""
        self.folder = path.abspath(folder)
        self.entry = entry
        self._links = None if scratch is None else path.join(scratch, ".manta-task")
        file = path.join(self.folder, entry)
        self.is_package = path.isdir(file)
        self.file = path.join(file, "__init__.py") if self.is_package else file
        stem = path.splitext(path.basename(file))[0]
        taken = stem in sys.modules or stem in sys.stdlib_module_names or _is_installed(stem)
        self.stem = stem
        self.name = stem
        if taken or not stem.isidentifier():
            self.name = "task_" + "".join(c if c.isalnum() else "_" for c in stem)
        self.sources = Sources(self.folder)
        self.module: ModuleType | None = None
        self.main: Main | None = None
        self._folders = tuple(dict.fromkeys((path.dirname(self.file), self.folder)))
        self._hidden: set[str] | None = None
        """The names that the user's files take from libraries; None before `prepare`."""
        self._come_first = False
        """Whether his files have to be looked for before libraries: one has the name of a library.
        The processes that a task starts have imported nothing that would be safe from it."""
        self._path: list[str] = []
        """What `sys.path` becomes in an attempt."""
        self._spec: ModuleSpec | None = None
        """The entry's; None before `stage`."""
        self._outside: tuple[list[str], list[str]] = [], []
        """What `sys.path` and `sys.argv` were before `enter`."""
        self._set_aside: dict[str, ModuleType] = {}
        """Modules of packages whose names are the user's in an attempt."""
        self._entered: ModuleType | None = None
        """The module that is to be loaded; None before `enter`."""

    def prepare(self) -> None:
        """Does what can be done before any attempt, without running anything of the user's."""
        if self._hidden is not None:
            return
        stems: set[str] = set()
        if not self.is_package:
            stems.update(stem for at in self._folders for stem in _modules_in(at))
        self._import_namesakes(stems)
        self._hidden = stems - sys.modules.keys()
        self._come_first = any(_is_library(stem) for stem in stems - {self.stem})
        self.compile([self.file])

    def stage(self) -> None:
        """Does what an attempt would do before it runs anything of the user's. A template does this
        when it has imported what it is going to, and so spares each attempt the time."""
        self.prepare()
        at = 0 if self._come_first else _end_of_path()
        self._path = [*sys.path[:at], *self._folders, *sys.path[at:]]
        if self.name != self.stem and self._links is not None:
            self._path.append(self._links)
        loader = _EntryLoader(self.name, self.file, self.sources)
        spec = ModuleSpec(self.name, loader, origin=self.file, is_package=self.is_package)
        spec.has_location = True
        if self.is_package:
            spec.submodule_search_locations = [path.dirname(self.file)]
        self._spec = spec

    def found(self, name: str) -> None:
        """Told the name of a module that is imported. Once it is one that starts interpreters,
        these find the entry by the name that it has here."""
        if name not in _STARTERS or self.name == self.stem or self._links is None:
            return
        link = path.join(self._links, self.name + ("" if self.is_package else ".py"))
        try:
            makedirs(self._links, exist_ok=True)
            if not path.lexists(link):
                symlink(path.join(self.folder, self.entry), link)
        except OSError:  # no room: only a pool of processes would need it, and says so
            return

    def compile(self, files: Iterable[str]) -> None:
        """Compiles some of the user's files for all attempts."""
        for file in files:
            self.sources.compile(file, _entry_code if file == self.file else compiled)

    def leading_imports(self) -> list[Import]:
        """The installed modules that the user's code imports before it does anything else."""
        return leading_imports(self.file, self.name if self.is_package else "", self._find)

    def _find(self, name: str) -> str | None:
        """The file of one of the user's modules, as an import in an attempt would find it."""
        first, *rest = name.split(".")
        if first == self.name:
            return self._file(path.dirname(self.file), rest) if self.is_package else None
        if self.is_package:
            if first in sys.modules or _is_library(first):
                return None
        elif first not in (self._hidden or ()):
            return None
        found = (self._file(folder, [first, *rest]) for folder in self._folders)
        return next((file for file in found if file is not None), None)

    @staticmethod
    def _file(folder: str, parts: list[str]) -> str | None:
        stem = path.join(folder, *parts)
        found = [path.join(stem, "__init__.py"), *([f"{stem}.py"] if parts else [])]
        return next((file for file in found if path.isfile(file)), None)

    def enter(self) -> None:
        """Does what comes before the module is run, in an attempt or in the process that is about
        to fork one: `leave` undoes it there."""
        if self._spec is None:
            self.stage()
        assert self._hidden is not None
        assert self._spec is not None
        self._outside = sys.path[:], sys.argv[:]
        sys.path[:] = self._path
        if self.name != self.stem:
            for name in _STARTERS:
                if name in sys.modules:
                    self.found(name)
        # What packages import is not the user's yet. (Iterating over the names of all modules
        # would copy the pages on which they lie.)
        if any(name in sys.modules for name in self._hidden):
            for name in [name for name in sys.modules if name.partition(".")[0] in self._hidden]:
                self._set_aside[name] = sys.modules.pop(name)
        sys.argv[:] = [self.file]
        self._entered = sys.modules[self.name] = module_from_spec(self._spec)

    def leave(self) -> None:
        """Undoes `enter`."""
        sys.path[:], sys.argv[:] = self._outside
        del sys.modules[self.name]
        sys.modules.update(self._set_aside)
        self._set_aside.clear()
        self._entered = None

    def load(self, imported: Callable[[], None] = lambda: None) -> None:
        """Imports the module, in an attempt. Raises what its code raises.

        `imported` is called once its main() begins, or else once it is imported.
        """
        if self._entered is None:
            self.enter()
        assert self._entered is not None
        assert self._spec is not None
        assert self._spec.loader is not None

        def wrap(function: Any) -> Main:
            self.main = Main(function, imported)
            return self.main

        self.module, self._entered = self._entered, None
        self.module.__dict__["__manta_main__"] = wrap
        code = self.sources.kept(self.file)
        if code is None:
            self._spec.loader.exec_module(self.module)
        else:
            self.sources.imported.append(self.name)
            exec(code, self.module.__dict__)
        imported()

    def _import_namesakes(self, stems: set[str]) -> None:
        """Imports libraries beforehand that the user's files would hide and must not: those that
        Manta needs, and the one with the entry's own name, since nobody imports the entry."""
        hidden = stems & sys.stdlib_module_names - sys.modules.keys() - {"this", "antigravity"}
        wanted = list(_NEEDED) if hidden else []
        if self.stem in hidden or (not self.is_package and _is_installed(self.stem)):
            wanted.append(self.stem)
        for name in wanted:
            try:
                __import__(name)
            except ImportError:
                continue  # it is not installed, or was only in the way of a name

    def target(self, class_name: str | None) -> Target:
        """What to run: the named class, else main(), else the only Task class.

        Raises NothingToRun.
        """
        if class_name is not None:
            found = getattr(self.module, class_name, None)
            if not isinstance(found, type):
                known = ", ".join(kind.__name__ for kind in self._classes()) or "none"
                raise NothingToRun(
                    f"{self.entry} has no class {class_name!r} (its Task classes: {known}): "
                    f"correct class_name."
                )
            return Target(found)
        main = getattr(self.module, "main", None)
        if callable(main) and not isinstance(main, type):
            return Target(main)
        classes = self._classes()
        if len(classes) == 1:
            return Target(classes[0])
        if classes:
            names = ", ".join(kind.__name__ for kind in classes)
            raise NothingToRun(
                f"{self.entry} has several Task classes ({names}) and no main(): "
                f"say which with class_name=."
            )
        raise NothingToRun(
            f"{self.entry} has nothing to run: give it a function main(), or a class derived from "
            f"manta.light.Task with run(), or with setup() and execute()."
        )

    @property
    def has_classes(self) -> bool:
        """Whether there is anything that a class_name could name."""
        return any(
            isinstance(item, type) and not item.__module__.startswith("manta.")
            for item in vars(self.module).values()
        )

    def _classes(self) -> list[type]:
        """Task classes that are the module's own, else imported ones, else classes like them."""
        from manta.light.task import Task

        found = list(
            dict.fromkeys(item for item in vars(self.module).values() if isinstance(item, type))
        )
        own = [kind for kind in found if self._is_own(kind)]
        for kinds in (own, found):
            derived = [kind for kind in kinds if issubclass(kind, Task) and kind is not Task]
            runnable = [kind for kind in derived if _is_runnable(kind)]
            leaves = [
                kind
                for kind in runnable
                if not any(other is not kind and issubclass(other, kind) for other in runnable)
            ]
            if leaves:
                return leaves
        return [kind for kind in own if _is_runnable(kind)]

    def _is_own(self, kind: type) -> bool:
        return kind.__module__ == self.name or kind.__module__.startswith(f"{self.name}.")


def _is_runnable(kind: type) -> bool:
    return callable(getattr(kind, "run", None)) or callable(getattr(kind, "execute", None))


class Target:
    """A function or class of the user's and how it is run."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._object: Any = None
        self._is_ready = False
        is_class = isinstance(target, type)
        if is_class and not _is_runnable(target):
            raise NothingToRun(
                f"Class {target.__name__} has neither run() nor execute(): give it one of them."
            )
        self.is_resident = is_class and not callable(getattr(target, "run", None))
        """Whether the object lives on between attempts."""

    def run(self, passed: Callable[[int], object] = lambda phase: None) -> Any:
        """Runs one attempt, and tells which of `shared.PHASES` it has passed. Raises what the
        user's code raises."""
        if isinstance(self._target, Main) and self._target.called:
            return self._target.output
        call = self._ready(passed)
        passed(CALLED)
        output = _awaited(call())
        passed(RETURNED)
        return output

    def _ready(self, passed: Callable[[int], object]) -> Callable[[], Any]:
        """What is to be called."""
        if not isinstance(self._target, type):
            return self._target  # type: ignore[no-any-return]
        if not self.is_resident:
            return self._create().run  # type: ignore[no-any-return]
        if not self._is_ready:
            self._object = self._create()
            setup = getattr(self._object, "setup", None)
            if callable(setup):
                _awaited(setup())
                passed(SET_UP)
            self._is_ready = True
        return self._object.execute  # type: ignore[no-any-return]

    def _create(self) -> Any:
        from manta.light.local import Local
        from manta.light.log import logger
        from manta.light.task import Task
        from manta.light.world import World

        kind = self._target
        if issubclass(kind, Task):
            return kind()
        instance = kind.__new__(kind)
        for name, value in (("world", World()), ("local", Local()), ("logger", logger())):
            if not hasattr(instance, name) and hasattr(instance, "__dict__"):
                setattr(instance, name, value)
        instance.__init__()
        return instance
