"""What two runs have in common and what not: settings, globals, code and metrics. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from manta.apis.overviews import MetricsOverview, SwarmOverview
from manta.node.policy.code import diff
from manta.node.policy.records import Code
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec

T = TypeVar("T")

_OF_CODE = ("name", "package")
"""Of a module's fields, those that say which it is."""


class Run(NamedTuple):
    swarm: SwarmOverview
    spec: SwarmSpec
    globals: Mapping[str, Any]
    """Those that it began with, decoded; of a large one `{"bytes": how many}`."""
    code: Mapping[str, Code | None]
    """By module; None for one without a program, or whose package is too large to show."""
    metrics: Iterable[MetricsOverview]


def compared(first: Run, second: Run) -> dict[str, Any]:
    """Returns what `manta compare --json` prints."""
    return {
        "runs": [dict(run.swarm) for run in (first, second)],
        "settings": _settings(first, second),
        "globals": _globals(first, second),
        "modules": _modules(first, second),
        "metrics": _metrics(first, second),
    }


def _pairs(
    first: Mapping[str, T], second: Mapping[str, T]
) -> Iterable[tuple[str, T | None, T | None]]:
    """Yields name and both values, in the order of the first and then of the second."""
    for name in dict.fromkeys((*first, *second)):
        yield name, first.get(name), second.get(name)


def _settings(first: Run, second: Run) -> list[dict[str, Any]]:
    return [
        {"name": name, "first": one, "second": other}
        for name, one, other in _pairs(_set(first), _set(second))
        if one != other
    ]


def _set(run: Run) -> dict[str, Any]:
    swarm, spec = run.swarm, run.spec
    began, ended = swarm.started_at, swarm.ended_at
    found: dict[str, Any] = {
        "status": swarm.status,
        "iterations": swarm.iteration + 1,
        "seconds": None if began is None or ended is None else round(ended - began, 3),
        "max_iteration": spec.max_iteration,
        "seed": spec.seed,
        "networks": [f"{one.name}: {one.topology}" for one in spec.networks],
        "scheduled iterations": len(spec.schedule),
    }
    for task in spec.tasks:
        found |= _fields(f"task {task.alias}", task, ("alias", "signature"))
    for module in spec.modules:
        found |= _fields(f"module {module.name}", module, _OF_CODE)
    return found


def _fields(of: str, struct: TaskSpec | ModuleSpec, but: tuple[str, ...]) -> dict[str, Any]:
    """Returns the fields; one that is None counts as one that is not there."""
    return {
        f"{of}: {name}": value if isinstance(value, int | float | str) else str(value)
        for name in struct.__struct_fields__
        if name not in but and (value := getattr(struct, name)) not in (None, ())
    }


def _globals(first: Run, second: Run) -> list[dict[str, Any]]:
    return [
        {
            "tag": tag,
            "first": first.globals.get(tag),
            "second": second.globals.get(tag),
            "differs": one != other,
        }
        for tag, one, other in _pairs(first.spec.globals, second.spec.globals)
    ]


def _modules(first: Run, second: Run) -> list[dict[str, Any]]:
    def by_name(run: Run) -> dict[str, ModuleSpec]:
        return {module.name: module for module in run.spec.modules}

    found = []
    for name, one, other in _pairs(by_name(first), by_name(second)):
        if one is None or other is None:
            status = "added" if one is None else "removed"
        else:
            status = "same" if one.package == other.package else "changed"
        before, after = first.code.get(name), second.code.get(name)
        shown = status == "changed" and before is not None and after is not None
        lines = diff(before, after, whole=False) if shown and after is not None else []
        found.append({"module": name, "status": status, "diff": lines})
    return found


_FIGURES: dict[str, Callable[[list[float]], float]] = {
    "last": lambda means: means[-1],
    "least": lambda means: min(_numbers(means), default=math.nan),
    "greatest": lambda means: max(_numbers(means), default=math.nan),
    "mean": lambda means: sum(mean / len(means) for mean in means),
}


def _numbers(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def _metrics(first: Run, second: Run) -> list[dict[str, Any]]:
    pairs = _pairs(_by_iteration(first.metrics), _by_iteration(second.metrics))
    return [
        {
            "metric": name,
            "figure": figure,
            "first": None if one is None else of(one),
            "second": None if other is None else of(other),
        }
        for name, one, other in pairs
        for figure, of in _FIGURES.items()
    ]


def _by_iteration(items: Iterable[MetricsOverview]) -> dict[str, list[float]]:
    """Returns for each metric its means over instances, by iteration; what an instance logged
    several times in an iteration counts as it was last. Tasks that log the same metric are told
    apart."""
    tasks: dict[str, set[str]] = {}
    last: dict[tuple[str, str], dict[int, dict[tuple[str, int], float]]] = {}
    for item in items:
        for name, value in item.metrics.items():
            tasks.setdefault(name, set()).add(item.alias)
            of = last.setdefault((name, item.alias), {}).setdefault(item.iteration, {})
            of[item.node_id, item.index] = value
    return {
        f"{name} of {task}" if len(tasks[name]) > 1 else name: [
            sum(value / len(values) for value in values.values())
            for _, values in sorted(iterations.items())
        ]
        for (name, task), iterations in last.items()
    }
