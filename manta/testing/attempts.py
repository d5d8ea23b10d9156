"""An attempt without a node: its values are in the memory of this process."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manta.light.context import MISSING, Brief, Entry, Part, usage
from manta.light.errors import CollectiveError, NothingSent, Timeout
from manta.light.runtime.seeding import seed
from manta.protocol.names import file_name
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


@dataclass
class Attempt:
    """The context of an attempt whose node is this process's memory."""

    brief: Brief
    run: TaskRun
    given: Mapping[str, list[Entry]]
    heard: Mapping[str, Any]
    waiting: Mapping[tuple[str, str], list[Any]]
    parts: dict[tuple[int, str], Any] = field(default_factory=dict)

    def call(self, request: str, /, **fields: Any) -> Any:
        if "value" in fields:
            fields["value"] = through(fields["value"])
        return getattr(self, f"_{request}")(**fields)

    def _get_global(self, tag: str) -> Any:
        return through(self.run.globals[tag]) if tag in self.run.globals else MISSING

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
            value = through(self.run.results[tag][-1])
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
        return through(self.run.state[key]) if key in self.run.state else MISSING

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
                return through(said[tag])
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
        return MISSING if self.run.checkpoint is None else through(self.run.checkpoint)


@contextmanager
def within(context: Attempt) -> Iterator[None]:
    finders = list(sys.meta_path)
    before, usage.context = usage.context, context
    try:
        seed(context.brief)
        yield
    finally:
        usage.context = before
        sys.meta_path[:] = finders


def brief_of(
    folder: Path,
    datasets: Mapping[str, Any],
    iteration: int,
    seed: int,
    class_name: str | None,
    index: int = 0,
    size: int = 1,
    timeout: float | None = None,
) -> Brief:
    """What an instance is told, of which `folder` has the scratch folder and datasets."""
    scratch = folder / "scratch"
    scratch.mkdir()
    return Brief(
        swarm_id="test",
        alias="task",
        index=index,
        iteration=iteration,
        attempt=0,
        task_id=f"test.task.{index}.{iteration}.0",
        node_id=f"node-{index + 1}",
        size=size,
        seed=seed,
        class_name=class_name,
        datasets={name: _dataset(folder, name, data) for name, data in datasets.items()},
        timeout=timeout,
        scratch=str(scratch),
    )


def through(value: Any) -> Any:
    """As it would arrive elsewhere."""
    if value is None or value is MISSING:
        return value
    return decode(bytearray(encode(value).to_bytes()))


def entries(tag: str, given: Any, iteration: int) -> list[Entry]:
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
        Entry(str(node), "before", rank, iteration, 0, through(value))
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
