"""Turns the items of a swarm's feeds into lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import click

from manta.console import text

if TYPE_CHECKING:
    from manta.apis.overviews import (
        ErrorOverview,
        EventOverview,
        LogOverview,
        MetricsOverview,
        SwarmOverview,
    )

MOST_ERRORS = 3
"""Errors that are shown of a swarm that failed."""
SHOWN_ITERATIONS = 40
"""Rows of the table of metrics; of more iterations, the first and last are shown."""

BAR = 40
"""Columns of the progress bar."""

_TROUBLE = {"failed": "red", "retried": "yellow", "lost": "yellow", "waiting": "yellow"}
_TROUBLE |= {"ignored": "yellow", "quorum": "yellow"}


class _Iteration:
    """What is known of one iteration."""

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.tasks: dict[str, None] = {}
        self.started: set[tuple[str, int]] = set()
        self.finished: set[tuple[str, int]] = set()
        self.fractions: dict[tuple[str, int], float] = {}
        self.took: float | None = None

    def stages(self) -> list[str]:
        """Returns `worker 3/4` for each task."""
        stages = []
        for alias in self.tasks:
            instances = {instance for instance in self.started if instance[0] == alias}
            done = len(instances & self.finished)
            part = ""
            under_way = [
                self.fractions[instance]
                for instance in instances - self.finished
                if instance in self.fractions
            ]
            if under_way:
                part = f" {sum(under_way) / len(under_way):.0%}"
            stages.append(f"{alias} {done}/{len(instances)}{part}" if instances else alias)
        return stages


class SwarmView:
    """`event` and `log` return lines that stay; `live` returns those that are redrawn."""

    def __init__(self, max_iteration: int | None = None) -> None:
        self._most = max_iteration
        self.iterations: dict[int, _Iteration] = {}
        self.metrics: dict[str, dict[int, dict[tuple[str, int], float]]] = {}
        """Name -> iteration -> (node's alias, instance) -> the last value."""

    def event(self, item: EventOverview) -> list[str]:
        if item.kind in _TROUBLE:
            return [click.style(item.sentence, fg=_TROUBLE[item.kind])]
        if item.iteration < 0:
            return []
        if item.iteration not in self.iterations:
            self.iterations[item.iteration] = _Iteration(item.at)
        current = self.iterations[item.iteration]
        instance = (item.alias, item.index)
        if item.alias:
            current.tasks[item.alias] = None
        match item.kind:
            case "iteration":
                return self._ended(item, current)
            case "started":
                current.started.add(instance)
            case "finished" if item.index >= 0:
                current.started.add(instance)
                current.finished.add(instance)
            case "progress" if item.fraction is not None:
                current.fractions[instance] = item.fraction
        return []

    def _ended(self, item: EventOverview, current: _Iteration) -> list[str]:
        """Handles an event that comes twice: when an iteration begins and when it ends."""
        if not current.tasks:
            current.began_at = item.at
            return []
        current.took = item.at - current.began_at
        return [
            "   ".join(
                [
                    click.style(f"iteration {item.iteration:>3}", bold=True),
                    f"{text.seconds(current.took):>7}",
                    *self.summary(item.iteration),
                ]
            )
        ]

    def metric(self, item: MetricsOverview) -> None:
        for name, value in item.metrics.items():
            by_node = self.metrics.setdefault(name, {}).setdefault(item.iteration, {})
            by_node[item.node_alias, item.index] = value

    def log(self, item: LogOverview) -> list[str]:
        return [log_line(item)]

    def live(self, now: float) -> list[str]:
        """Shows the current iteration; `now` is in seconds since the epoch."""
        if not self.iterations:
            return []
        iteration = max(self.iterations)
        current = self.iterations[iteration]
        if current.took is not None:
            return []
        took = text.seconds(max(0.0, now - current.began_at))
        parts = [click.style(f"iteration {iteration:>3}", bold=True), f"{took:>7}"]
        parts += [click.style(stage, fg="cyan") for stage in current.stages()]
        return ["   ".join([*parts, *self.summary(iteration)]), *self._bar(iteration, now)]

    def _bar(self, iteration: int, now: float) -> list[str]:
        """Shows progress, if an end is known, and for how long the swarm has run."""
        if not self._most or self._most < 2:
            return []
        current = self.iterations[iteration]
        part = len(current.finished) / len(current.started) if current.started else 0.0
        share = min(1.0, (iteration + 0.9 * part) / self._most)
        filled = round(share * BAR)
        bar = click.style("━" * filled, fg="green") + click.style("━" * (BAR - filled), dim=True)
        ran = text.seconds(max(0.0, now - self.iterations[min(self.iterations)].began_at))
        return [f"{bar} {share:>4.0%}   {ran}"]

    def summary(self, iteration: int) -> list[str]:
        """Returns `accuracy 0.912 (0.871 to 0.944)` for each metric."""
        parts = []
        for name, series in self.metrics.items():
            values = [value for value in series.get(iteration, {}).values() if value == value]
            if not values:
                continue
            shown = text.number(sum(values) / len(values))
            if len(values) > 1:
                shown += f" ({text.number(min(values))} to {text.number(max(values))})"
            parts.append(f"{name} {shown}")
        return parts

    def records(self) -> list[dict[str, Any]]:
        """Returns the metrics, a record per value."""
        return [
            {"metric": name, "iteration": iteration, "node": node, "index": index, "value": value}
            for name, series in self.metrics.items()
            for iteration, values in sorted(series.items())
            for (node, index), value in sorted(values.items())
        ]

    def table(self, columns: int) -> list[str]:
        """Shows metrics by iteration and node, or by iteration alone where that is too wide."""
        if not self.metrics:
            return []
        lines = _metrics_table(self.metrics, by_node=True)
        if max(map(text.width, lines)) > columns:
            lines = _metrics_table(self.metrics, by_node=False)
        return lines

    def ending(
        self, swarm: SwarmOverview, errors: Sequence[ErrorOverview], columns: int
    ) -> list[str]:
        """Shows the metrics, what failed, and the outcome."""
        lines = self.table(columns)
        if lines:
            lines = ["", *lines]
        shown: dict[str, ErrorOverview] = {}
        for error in sorted(errors, key=lambda e: f"{e.alias}.{e.index} " not in swarm.reason):
            if error.status == "FAILED" and (error.traceback or error.sentence not in swarm.reason):
                shown.setdefault(error.traceback or error.sentence, error)
        for error in list(shown.values())[:MOST_ERRORS]:
            where = (
                f"{error.alias}.{error.index} on {error.node_alias} in iteration {error.iteration}:"
            )
            said = "" if error.traceback else f" {error.sentence}"  # else its last line says it
            lines += ["", click.style(where + said, fg="red")]
            lines += error.traceback.rstrip().splitlines()
            if error.last_lines:
                lines += ["Its last lines:", *(f"  {line}" for line in error.last_lines)]
        if len(shown) > MOST_ERRORS:
            lines.append(f"... and {len(shown) - MOST_ERRORS} more")
        colour = {"COMPLETED": "green", "FAILED": "red"}.get(swarm.status, "yellow")
        reason = f": {swarm.reason}" if swarm.reason else ""
        return [*lines, "", click.style(swarm.status, fg=colour, bold=True) + reason]


def log_line(item: LogOverview) -> str:
    """Returns `node-1 worker.0 | text`, with the level of warnings and errors."""
    level = item.stream.upper() + " " if item.stream in ("warning", "error", "critical") else ""
    colour = {"stderr": "yellow", "warning": "yellow", "error": "red", "critical": "red"}
    who = click.style(f"{item.node_alias} {item.alias}.{item.index} |", dim=True)
    line = click.style(level + item.text, fg=colour.get(item.stream))
    return f"{who} {line}" if item.text else who


Metrics = dict[str, dict[int, dict[tuple[str, int], float]]]
Columns = list[tuple[str, str, list[str]]]
"""Upper and lower header, and a cell for each iteration."""


def _metrics_table(metrics: Metrics, *, by_node: bool) -> list[str]:
    iterations = sorted({iteration for series in metrics.values() for iteration in series})
    columns: Columns = []
    for name, series in metrics.items():
        values: dict[str, list[float | None]]
        if max(len(there) for there in series.values()) == 1:
            values = {name: [next(iter(series.get(i, {}).values()), None) for i in iterations]}
            name = ""
        elif by_node:
            values = _by_node(series, iterations)
        else:
            values = {
                label: [
                    fold(there.values()) if (there := series.get(i)) else None for i in iterations
                ]
                for label, fold in (("mean", _mean), ("min", min), ("max", max))
            }
        cells = iter(text.numbers([value for column in values.values() for value in column]))
        for label, column in values.items():
            columns.append((name, label, [next(cells) for _ in column]))
            name = ""
    body = [[str(i) for i in iterations], *(column for _, _, column in columns)]
    below = ["iteration", *(label for _, label, _ in columns)]
    rows = [list(row) for row in zip(*body, strict=True)]
    if len(rows) > SHOWN_ITERATIONS:
        half = SHOWN_ITERATIONS // 2
        rows = [*rows[:half], ["...", *[""] * len(columns)], *rows[-half:]]
    lines = text.table(below, rows, right=range(len(below)))
    upper, position = "", 0
    for (name, _, _), *column_cells in zip([("", "", []), *columns], below, *rows, strict=True):
        if name:
            upper = upper.ljust(position) + name
        position += max(map(len, column_cells)) + 2
    return [upper, *lines] if upper else lines


def _by_node(
    series: dict[int, dict[tuple[str, int], float]], iterations: Sequence[int]
) -> dict[str, list[float | None]]:
    """Makes a column per node, or per instance where a node ran several at once."""
    several = any(len({node for node, _ in there}) < len(there) for there in series.values())
    labelled = {
        iteration: {
            f"{node}.{index}" if several else node: value for (node, index), value in there.items()
        }
        for iteration, there in series.items()
    }
    labels = sorted({label for there in labelled.values() for label in there}, key=_natural)
    return {label: [labelled.get(i, {}).get(label) for i in iterations] for label in labels}


def _natural(label: str) -> list[tuple[int, str]]:
    """Sorts node-2 before node-10."""
    return [
        (int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", label)
    ]


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values)
