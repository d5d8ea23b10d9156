"""Runs a task in this process, debugger included, as a node would but without one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol

from manta.apis import checks
from manta.apis.compile.functions.closure import parameters, program_of
from manta.apis.task import Task
from manta.light.context import MISSING, Brief, Entry, Part, usage
from manta.light.errors import CollectiveError, NothingSent, Timeout
from manta.light.local import Local
from manta.light.results import Results
from manta.light.runtime.loader import Program, Target
from manta.light.runtime.seeding import seed
from manta.light.world import World
from manta.protocol.names import file_name
from manta.testing.node_imports import as_on_a_node
from manta.testing.task_ending import task_ending
from manta.transports.codec.values import decode, encode

NODE = "node-1"


@dataclass
class TaskRun:
    """What a task wrote. `results` by tag, the values in the order in which they were added."""

    output: Any = None
    globals: dict[str, Any] = field(default_factory=dict)
    results: dict[str, list[Any]] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    steps: list[int | None] = field(default_factory=list)
    """Of each of the metrics."""
    progress: list[tuple[float, str]] = field(default_factory=list)
    broadcasts: dict[str, Any] = field(default_factory=dict)
    sent: list[tuple[str, str, Any]] = field(default_factory=list)
    """Node, tag, value."""
    next_iterations: list[tuple[list[str], str | None]] = field(default_factory=list)
    """Nodes and alias of each schedule_next_iter."""
    stopped: bool = False
    """Whether it called stop_swarm."""
    state: dict[str, Any] = field(default_factory=dict)
    checkpoint: Any = None


def run_task(
    task: Callable[..., Any] | str | os.PathLike[str],
    globals: Mapping[str, Any] | None = None,
    datasets: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    *,
    class_name: str | None = None,
    include: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    broadcasts: Mapping[str, Any] | None = None,
    messages: Mapping[tuple[str, str], Sequence[Any]] | None = None,
    state: Mapping[str, Any] | None = None,
    checkpoint: Any = None,
    iteration: int = 0,
    seed_: int = 0,
) -> TaskRun:
    """Run one task once, in this process, and return what it wrote.

    `task`: a class, a function, what `@task` made of one, a path of a module (a file or a package
    folder), or source text (it has a newline). A function or class runs as it is here; a function
    that could not travel as source is refused. A module can import what it could import on a node:
    what is installed, what lies beside it, and what is named in `include`, as in `Module`.
    `datasets`: paths by name, or arrays and dicts of arrays, which become files. `results`: what
    tasks before it wrote, by tag: a list of values, or a dict by node. Values go through Manta's
    encoding, so that what could not be sent fails here too. `messages` are those that it may
    receive, by (node, tag). It is the only instance of its task (rank 0 of 1) on the node
    "node-1". Exceptions of its code pass through, SystemExit too unless it says that all is well,
    as on a node. Raises TypeError for arguments that it does not take.

    What its code leaves to do is done within 10 seconds, as on a node: threads and executors are
    waited for, its exit handlers and finalizers run, and open files are written out. What is not
    done by then raises a RuntimeWarning.
    """
    if isinstance(task, Task) and task.module.function is not None:
        task = task.module.function
    _check_task(task)
    class_name = checks.optional_name("run_task()'s class_name", class_name)
    iteration = checks.integer("run_task()'s iteration", iteration, 0)
    seed_ = checks.integer("run_task()'s seed_", seed_, 0)
    for name, given in (
        ("globals", globals),
        ("datasets", datasets),
        ("results", results),
        ("broadcasts", broadcasts),
        ("messages", messages),
        ("state", state),
    ):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"run_task() takes {name} as a dict, not a {type(given).__name__}.")
    run = TaskRun(
        globals={tag: _through(value) for tag, value in (globals or {}).items()},
        state={key: _through(value) for key, value in (state or {}).items()},
        checkpoint=_through(checkpoint),
    )
    given = {tag: _entries(tag, value, iteration) for tag, value in (results or {}).items()}
    heard = {tag: _through(value) for tag, value in (broadcasts or {}).items()}
    waiting = {key: [*map(_through, values)] for key, values in (messages or {}).items()}
    with tempfile.TemporaryDirectory(prefix="manta-task-") as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        brief = Brief(
            swarm_id="test",
            alias="task",
            index=0,
            iteration=iteration,
            attempt=0,
            task_id=f"test.task.0.{iteration}.0",
            node_id=NODE,
            size=1,
            seed=seed_,
            class_name=class_name,
            datasets={n: _dataset(Path(folder), n, data) for n, data in (datasets or {}).items()},
            timeout=None,
            scratch=str(scratch),
        )
        with (
            _loaded(task, Path(folder), _included(include)) as loaded,
            _attempt(_Context(brief, run, given, heard, waiting)),
            task_ending() as end,
        ):
            target = loaded.target(class_name)
            try:
                run.output = _through(target.run())
            except SystemExit as error:
                if error.code not in (None, 0):
                    raise
            del target
            end.of(loaded.modules(), loaded.let_go)
    return run


@dataclass
class _Context:
    """The context of an attempt whose node is this process's memory."""

    brief: Brief
    run: TaskRun
    given: Mapping[str, list[Entry]]
    heard: Mapping[str, Any]
    waiting: Mapping[tuple[str, str], list[Any]]
    parts: dict[tuple[int, str], Any] = field(default_factory=dict)

    def call(self, request: str, /, **fields: Any) -> Any:
        if "value" in fields:
            fields["value"] = _through(fields["value"])
        return getattr(self, f"_{request}")(**fields)

    def _get_global(self, tag: str) -> Any:
        return _through(self.run.globals[tag]) if tag in self.run.globals else MISSING

    def _set_global(self, tag: str, value: Any) -> None:
        self.run.globals[tag] = value

    def _list_global_tags(self) -> list[str]:
        return sorted(self.run.globals)

    def _add_result(self, tag: str, value: Any) -> None:
        self.run.results.setdefault(tag, []).append(value)

    def _select_results(self, tag: str, iteration: int | None) -> list[Entry]:
        at = self.brief.iteration if iteration is None else iteration
        found = [entry for entry in self.given.get(tag, []) if entry.iteration == at]
        if at == self.brief.iteration and tag in self.run.results:
            value = _through(self.run.results[tag][-1])
            found.append(Entry(NODE, self.brief.alias, 0, at, 0, value))
        return found

    def _schedule_next_iteration(self, node_ids: list[str], alias: str | None) -> None:
        self.run.next_iterations.append((node_ids, alias))

    def _stop_swarm(self) -> None:
        self.run.stopped = True

    def _log_metrics(self, metrics: dict[str, float], step: int | None) -> None:
        self.run.metrics.append(metrics)
        self.run.steps.append(step)

    def _progress(self, fraction: float, message: str) -> None:
        self.run.progress.append((fraction, message))

    def _get_state(self, key: str) -> Any:
        return _through(self.run.state[key]) if key in self.run.state else MISSING

    def _set_state(self, key: str, value: Any) -> None:
        self.run.state[key] = value

    def _get_resources(self) -> dict[str, Any]:
        page = os.sysconf("SC_PAGE_SIZE")
        return {
            "cpu_count": os.cpu_count() or 1,
            "cpu_memory": page * os.sysconf("SC_PHYS_PAGES"),
            "available_memory": page * os.sysconf("SC_AVPHYS_PAGES"),
            "gpu_available": False,
            "gpu_memory": 0,
            "disk_free": shutil.disk_usage(self.brief.scratch).free,
        }

    def _get_performance(self) -> dict[str, float]:
        disk = shutil.disk_usage(self.brief.scratch)
        pages = os.sysconf("SC_PHYS_PAGES")
        return {
            "cpu_usage": min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)),
            "memory_usage": 1 - os.sysconf("SC_AVPHYS_PAGES") / pages,
            "disk_usage": disk.used / disk.total,
        }

    def _get_network_quality(self) -> float:
        return 1.0  # there is no network between this process and itself

    # To others and from them.

    def _broadcast(self, tag: str, value: Any) -> None:
        self.run.broadcasts[tag] = value

    def _get_broadcast(self, tag: str, timeout: float) -> Any:
        for said in (self.run.broadcasts, self.heard):
            if tag in said:
                return _through(said[tag])
        raise NothingSent(f"Nobody has broadcast {tag!r}: give it to run_task(broadcasts=...).")

    def _send(self, to: str, tag: str, value: Any, timeout: float) -> None:
        self.run.sent.append((to, tag, value))

    def _resolve_node(self, name: str) -> str:
        return name

    def _receive(self, source: str, tag: str, number: int, timeout: float) -> Any:
        messages = self.waiting.get((source, tag), ())
        if number < len(messages):
            return messages[number]
        raise Timeout(
            f"No message {tag!r} has come from {source}: give it to "
            f"run_task(messages={{({source!r}, {tag!r}): [...]}})."
        )

    def _return_claims(self, source: str, tag: str, received: int) -> None:
        """Nobody else could take them."""

    def _contribute(self, number: int, kind: str, to: int | None, value: Any = MISSING) -> None:
        self.parts[number, kind] = value

    def _collect(self, number: int, kind: str, **_: Any) -> list[Part]:
        if (number, kind) not in self.parts:
            raise CollectiveError(f"{kind} waits for a rank that run_task() does not have.")
        return [Part(0, self.parts[number, kind])]

    def _lock(self, name: str, timeout: float) -> None:
        """Nobody else could hold it."""

    def _unlock(self, name: str) -> None:
        """Nobody waits for it."""

    def _list_peers(self) -> list[list[Any]]:
        return [[0, NODE, NODE, 1.0]]

    def _checkpoint(self, value: Any) -> None:
        self.run.checkpoint = value

    def _restore(self) -> Any:
        return MISSING if self.run.checkpoint is None else _through(self.run.checkpoint)


def _check_task(task: object) -> None:
    if not isinstance(task, type | str | os.PathLike | FunctionType):
        raise TypeError(
            "run_task() takes a class, a function, the path of a module or source text, not "
            f"{task!r:.60}: give the class itself, not an object of it."
        )


@contextmanager
def _attempt(context: _Context) -> Iterator[None]:
    finders = list(sys.meta_path)
    before, usage.context = usage.context, context
    try:
        seed(context.brief)
        yield
    finally:
        usage.context = before
        sys.meta_path[:] = finders


class _Loaded(Protocol):
    """What runs, and what there is of it."""

    def target(self, class_name: str | None) -> Target:
        """To be called within the attempt."""

    def modules(self) -> list[str]:
        """The user's own that were imported for it, in order."""

    def let_go(self) -> None: ...


class _Own(_Loaded):
    """A class or function of the caller's."""

    def __init__(self, item: Callable[..., Any]) -> None:
        self._item = item

    def target(self, class_name: str | None) -> Target:
        if isinstance(self._item, type):
            return Target(self._item)
        program_of(self._item)
        made = {"world": World, "local": Local, "results": Results}
        given = {name: made[name]() for name in parameters(self._item)}
        return Target(partial(self._item, **given))

    def modules(self) -> list[str]:
        return []

    def let_go(self) -> None:
        """It stays."""


class _Module(_Loaded):
    """A file, or a folder, at `places`."""

    def __init__(self, program: Program, places: Sequence[Path]) -> None:
        self._program = program
        self._places = places
        self._before = set(sys.modules)

    def target(self, class_name: str | None) -> Target:
        self._program.load()
        return self._program.target(class_name)

    def modules(self) -> list[str]:
        new = [name for name in sys.modules if name not in self._before]
        return [name for name in new if self._is_own(sys.modules[name])]

    def let_go(self) -> None:
        self._program.module = self._program.main = None

    def _is_own(self, module: object) -> bool:
        origin = Path(getattr(module, "__file__", None) or "")
        return module is None or any(origin.is_relative_to(place) for place in self._places)


@contextmanager
def _loaded(
    task: Callable[..., Any] | str | os.PathLike[str], folder: Path, included: Sequence[Path]
) -> Iterator[_Loaded]:
    """Yields what finds the target within the attempt; forgets the module afterwards."""
    if not isinstance(task, str | os.PathLike):
        yield _Own(task)
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
    loaded = _Module(program, places)
    try:
        with as_on_a_node([file, *included]):
            yield loaded
    finally:
        sys.path[:], sys.argv[:] = path, arguments
        for name in loaded.modules():
            del sys.modules[name]


def _included(include: object) -> list[Path]:
    entries = [include] if isinstance(include, str | os.PathLike) else include
    if not isinstance(entries, list | tuple):
        raise TypeError(f"run_task() takes include as a list of paths, not {include!r:.60}.")
    found = [Path(entry).resolve() for entry in entries]
    for path in found:
        if not path.exists():
            raise FileNotFoundError(f"There is no {path}, which run_task() is to include.")
    return found


def _through(value: Any) -> Any:
    """As it would arrive elsewhere."""
    if value is None or value is MISSING:
        return value
    return decode(bytearray(encode(value).to_bytes()))


def _entries(tag: str, given: Any, iteration: int) -> list[Entry]:
    if isinstance(given, Mapping):
        by_node = list(given.items())
    elif isinstance(given, list | tuple):
        by_node = [(f"node-{number}", value) for number, value in enumerate(given, 1)]
    else:
        raise TypeError(
            f"results[{tag!r}] is a {type(given).__name__}: give a list of values, or a dict by "
            "node."
        )
    return [
        Entry(str(node), "before", rank, iteration, 0, _through(value))
        for rank, (node, value) in enumerate(by_node)
    ]


def _dataset(folder: Path, name: str, data: Any) -> str:
    if isinstance(data, str | os.PathLike):
        path = Path(data).resolve()
        if not path.exists():
            raise FileNotFoundError(f"The dataset {name!r} is not there: {path}.")
        return str(path)
    import numpy

    arrays: dict[str, Any] = (
        {str(key): numpy.asarray(array) for key, array in data.items()}
        if isinstance(data, Mapping)
        else {"": numpy.asarray(data)}
    )
    if any(array.dtype.hasobject for array in arrays.values()):
        raise TypeError(f"datasets[{name!r}] is neither a path, nor arrays or lists of numbers.")
    if isinstance(data, Mapping):
        file = folder / f"{file_name(name)}.npz"
        numpy.savez(file, **arrays)
    else:
        file = folder / f"{file_name(name)}.npy"
        numpy.save(file, arrays[""])
    return str(file)
