"""What is drawn of metrics: a graph for each, of a curve for each node or of means. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from manta.apis.errors import InvalidArgument, NotFound
from manta.apis.overviews import MetricsOverview
from manta.protocol.names import listed, meant

MOST_GRAPHS = 12
MOST_CURVES = 10
"""Of a graph; more can't be told apart."""

By = Literal["mean", "node"]
Axis = Literal["iteration", "step"]
_Instance = tuple[str, str, int]
"""A task's alias, its node's alias, and the instance's index."""
_Values = Mapping[_Instance, Mapping[int, float]]


class Curve(NamedTuple):
    """`y` may hold NaN and infinities, which are gaps."""

    label: str
    x: tuple[int, ...]
    """Ascending."""
    y: tuple[float, ...]


class Graph(NamedTuple):
    metric: str
    axis: Axis
    curves: tuple[Curve, ...]


def graphs(
    items: Iterable[MetricsOverview],
    metrics: Sequence[str] = (),
    *,
    by: By = "mean",
    axis: Axis | None = None,
) -> list[Graph]:
    """Returns a graph for each of these metrics, or for all, in order of appearance.

    By "mean", a graph has a curve for each task that logged the metric: at each x the mean over
    its instances, NaN where one is. By "node", it has a curve for each instance. `axis` is "step"
    or "iteration"; without it, "step" where each value has one and no iteration repeats those of
    another. What an instance logs several times at the same x counts as it was last.

    Raises NotFound for a metric that nobody logged, and InvalidArgument for more than 12 graphs
    or 10 curves.
    """
    found: dict[str, list[MetricsOverview]] = {}
    for item in items:
        for name in item.metrics:
            found.setdefault(name, []).append(item)
    if not found:
        raise NotFound("No task of the swarm has logged a metric so far.")
    for name in metrics:
        if name not in found:
            there = f"there are {listed(list(found))}"
            raise NotFound(f"No task has logged a metric {name!r}: {there}." + meant(name, found))
    chosen = list(dict.fromkeys(metrics or found))
    if len(chosen) > MOST_GRAPHS:
        raise InvalidArgument(
            f"{len(chosen)} metrics are too many for one picture, which shows {MOST_GRAPHS} at "
            f"most: name those to draw, of {listed(list(found))}."
        )
    return [_graph(name, found[name], by, axis) for name in chosen]


def _graph(name: str, items: list[MetricsOverview], by: By, axis: Axis | None) -> Graph:
    axis = axis or _natural_axis(items)
    values: dict[_Instance, dict[int, float]] = {}
    for item in items:
        x = item.iteration if axis == "iteration" else item.step
        if x is not None:
            instance = (item.alias, item.node_alias, item.index)
            values.setdefault(instance, {})[x] = item.metrics[name]
    if not values:
        raise InvalidArgument(f"No value of {name!r} was logged with a step: draw it by iteration.")
    curves = _by_node(values) if by == "node" else _by_task(values)
    if len(curves) > MOST_CURVES:
        advice = "draw means" if by == "node" else "fewer tasks should log it"
        raise InvalidArgument(
            f"{len(curves)} curves of {name!r} can't be told apart, at most {MOST_CURVES} can: "
            f"{advice}."
        )
    return Graph(name, axis, tuple(curves))


def _natural_axis(items: list[MetricsOverview]) -> Axis:
    seen: dict[tuple[_Instance, int], int] = {}
    for item in items:
        if item.step is None:
            return "iteration"
        key = (item.alias, item.node_alias, item.index), item.step
        if seen.setdefault(key, item.iteration) != item.iteration:
            return "iteration"
    return "step"


def _by_node(values: _Values) -> list[Curve]:
    tasks = {task for task, _, _ in values}
    places = Counter((task, node) for task, node, _ in values)
    several = [place for place, count in places.items() if count > 1]
    curves = []
    for (task, node, index), points in values.items():
        label = f"{node}.{index}" if (task, node) in several else node
        curves.append(_curve(f"{task} on {label}" if len(tasks) > 1 else label, points))
    return curves


def _by_task(values: _Values) -> list[Curve]:
    tasks: dict[str, dict[str, Mapping[int, float]]] = {}
    for (task, node, index), points in values.items():
        tasks.setdefault(task, {})[f"{node}.{index}"] = points
    curves = []
    for task, instances in tasks.items():
        logged: dict[int, list[float]] = {}
        for points in instances.values():
            for x, y in points.items():
                logged.setdefault(x, []).append(y)
        label = f"mean of {len(instances)}" if len(instances) > 1 else task
        if len(tasks) > 1 and len(instances) > 1:
            label = f"{task}, {label}"
        curves.append(_curve(label, {x: _mean(ys) for x, ys in logged.items()}))
    return curves


def _mean(values: Sequence[float]) -> float:
    return sum(value / len(values) for value in values)


def _curve(label: str, points: Mapping[int, float]) -> Curve:
    ordered = sorted(points.items())
    return Curve(label, tuple(x for x, _ in ordered), tuple(y for _, y in ordered))
