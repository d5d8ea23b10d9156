"""Imports the user's module and finds what to run in it.

`main` of the entry module is wrapped, so that it runs once in an attempt, and not twice, where a
script calls it while it is imported, without `if __name__ == "__main__"`.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from os import listdir, path
from typing import TYPE_CHECKING, Any

from manta.light.errors import LightError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType, ModuleType

_NEEDED = ("asyncio", "faulthandler", "json", "logging", "random", "traceback", "numpy")
"""What Manta imports in the course of time, and what these import in turn."""
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST, without importing ast
_WRAP = "main = __manta_main__(main)"


class NothingToRun(LightError):
    """The module has no main() and no class that could be run."""


class CalledEarly(BaseException):
    """main() was called while its module was imported outside an attempt."""


class Main:
    """The user's main(), which runs once in a process."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", "main")
        self.__doc__ = getattr(function, "__doc__", None)
        self.allowed = False
        self.refused = False
        self.called = False
        self.output: Any = None
        self._depth = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.allowed:
            self.refused = True
            raise CalledEarly
        if self._depth:  # it calls itself
            return self.__wrapped__(*args, **kwargs)
        if not self.called:
            self.called = True
            self._depth = 1
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


class _EntryLoader(SourceFileLoader):
    """Compiles the entry from source with its main wrapped, which a cached one would lack."""

    def __init__(self, name: str, file: str, wrap: Callable[[Any], Main]) -> None:
        super().__init__(name, file)
        self._wrap = wrap

    def get_code(self, fullname: str) -> CodeType:
        file = self.get_filename(fullname)
        tree: Any = compile(self.get_data(file), file, "exec", _ONLY_AST, dont_inherit=True)
        for at, statement in enumerate(tree.body):
            if _binds_main(statement):
                wrap: Any = compile(_WRAP, file, "exec", _ONLY_AST, dont_inherit=True)
                for node in (wrap.body[0], wrap.body[0].value):
                    node.lineno = node.end_lineno = statement.lineno
                tree.body.insert(at + 1, wrap.body[0])
                break
        code: CodeType = compile(tree, file, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__manta_main__"] = self._wrap
        super().exec_module(module)


def _binds_main(statement: Any) -> bool:
    kind = type(statement).__name__
    if kind in ("FunctionDef", "AsyncFunctionDef"):
        return bool(statement.name == "main")
    if kind == "ImportFrom":
        return any((alias.asname or alias.name) == "main" for alias in statement.names)
    return False


def _is_installed(name: str) -> bool:
    """Whether a package of that name is installed."""
    from importlib.machinery import PathFinder

    ends = ("site-packages", "dist-packages")
    return PathFinder.find_spec(name, [at for at in sys.path if at.endswith(ends)]) is not None


class Program:
    """The user's module, in this process.

    `folder` holds the unpacked module; `entry` is its main file or package, relative to it.
    """

    def __init__(self, folder: str, entry: str) -> None:
        self.folder = path.abspath(folder)
        self.entry = entry
        file = path.join(self.folder, entry)
        self.is_package = path.isdir(file)
        self.file = path.join(file, "__init__.py") if self.is_package else file
        stem = path.splitext(path.basename(file))[0]
        taken = stem in sys.modules or stem in sys.stdlib_module_names or _is_installed(stem)
        self.stem = stem
        self.name = f"task_{stem}" if taken or not stem.isidentifier() else stem
        self.module: ModuleType | None = None
        self.main: Main | None = None

    def load(self, in_attempt: bool) -> None:
        """Imports the module. Raises what its code raises, and CalledEarly where it calls main()
        outside an attempt."""
        folders = dict.fromkeys((self.folder, path.dirname(self.file)))
        self._import_namesakes(folders)
        for folder in folders:
            sys.path.insert(0, folder)

        sys.argv[:] = [self.file]

        def wrap(function: Any) -> Main:
            self.main = Main(function)
            self.main.allowed = in_attempt
            return self.main

        loader = _EntryLoader(self.name, self.file, wrap)
        spec = ModuleSpec(self.name, loader, origin=self.file, is_package=self.is_package)
        spec.has_location = True
        if self.is_package:
            spec.submodule_search_locations = [path.dirname(self.file)]
        from importlib.util import module_from_spec

        self.module = sys.modules[self.name] = module_from_spec(spec)
        loader.exec_module(self.module)
        if self.main is not None:
            self.main.allowed = True

    def _import_namesakes(self, folders: Iterable[str]) -> None:
        """Imports libraries beforehand that the user's files would hide and must not.

        As in any script, a file wins over a library of the same name when the user's code imports
        it, but not over what Manta needs. The entry itself is imported by nobody.
        """
        stems = {path.splitext(name)[0] for folder in folders for name in listdir(folder)}
        hidden = stems & sys.stdlib_module_names - sys.modules.keys() - {"this", "antigravity"}
        wanted = list(_NEEDED) if hidden else []
        if self.stem in hidden or _is_installed(self.stem):
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

    def run(self) -> Any:
        """Runs one attempt. Raises what the user's code raises."""
        if not isinstance(self._target, type):
            if isinstance(self._target, Main) and self._target.called:
                return self._target.output
            return _awaited(self._target())
        if not self.is_resident:
            return _awaited(self._create().run())
        if not self._is_ready:
            self._object = self._create()
            setup = getattr(self._object, "setup", None)
            if callable(setup):
                _awaited(setup())
            self._is_ready = True
        return _awaited(self._object.execute())

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


class UsedEarly(BaseException):
    """World, Local or Results was used while the module was imported outside an attempt."""


class Probe:
    """Finds out whether a module can be imported before any attempt."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._used = False

    def load(self) -> str | None:
        """Imports the module; returns why each attempt must import it anew, or None.

        Raises what its code raises.
        """
        from manta.light.context import usage

        usage.watch = self._note
        try:
            self._program.load(in_attempt=False)
        except (UsedEarly, CalledEarly):
            return self._reason()
        except Exception:
            if self._used or self._called:  # its code caught our exception and failed of it
                return self._reason()
            raise
        finally:
            usage.watch = None
        return self._reason()

    @property
    def _called(self) -> bool:
        return self._program.main is not None and self._program.main.refused

    def _note(self) -> None:
        self._used = True
        raise UsedEarly

    def _reason(self) -> str | None:
        if self._used:
            return "it uses World, Local or Results while it is imported"
        if self._called:
            return "it calls main() while it is imported"
        return None
