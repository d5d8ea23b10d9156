"""Shows metrics: a summary of an iteration, whose columns hold, and a table by node. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from manta.console import text
from manta.console.lines import Line

SHOWN_ROWS = 20
"""Rows of the table; of more nodes, the first and last are shown."""
_DECIMALS = 4
"""Of a number below 10; larger ones have fewer."""

Instance = tuple[str, int]
"""A node's alias, and the index of the task's instance."""
Series = Mapping[int, Mapping[Instance, float]]
"""Iteration -> instance -> the last value."""


class _Column:
    """One metric in the lines of iterations, in the widths and decimals that it has needed."""

    def __init__(self) -> None:
        self._decimals = 0
        self._number = 0
        self._cell = 0

    def show(self, name: str, values: Collection[float]) -> str:
        """Returns `loss mean 0.5000 (0.4000 to 0.6000)`, or one value. A mean with NaN is NaN."""
        there = [value for value in values if not math.isnan(value)]
        mean = sum(values) / len(values)
        for value in (mean, *values):
            self._shown(value)  # widens the columns
        if len(values) == 1:
            cell = f"{name} {self._shown(mean)}"
        else:
            cell = f"{name} mean {self._shown(mean)}"
            asides = [f"{self._shown(min(there))} to {self._shown(max(there))}"] if there else []
            if len(there) < len(values):
                asides.insert(0, f"{len(values) - len(there)} of {len(values)} nan")
            cell += f" ({', '.join(asides)})"
        self._cell = max(self._cell, text.width(cell))
        return cell + " " * (self._cell - text.width(cell))

    def _shown(self, value: float) -> str:
        shown = text.number(value)
        if math.isfinite(value) and "e" not in shown:
            if value != int(value):
                before = len(str(int(abs(value))))
                self._decimals = max(self._decimals, _DECIMALS + 1 - before)
            shown = f"{value:.{self._decimals}f}"
        self._number = max(self._number, len(shown))
        return shown.rjust(self._number)


class Metrics:
    """The metrics of a swarm, as they come."""

    def __init__(self) -> None:
        self.series: dict[str, dict[int, dict[Instance, float]]] = {}
        self._columns: dict[str, _Column] = {}

    def add(self, iteration: int, instance: Instance, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.series.setdefault(name, {}).setdefault(iteration, {})[instance] = value

    def summary(self, iteration: int) -> list[str]:
        """Returns a cell for each metric of an iteration."""
        cells = []
        for name, series in self.series.items():
            if values := series.get(iteration):
                column = self._columns.setdefault(name, _Column())
                cells.append(column.show(name, values.values()))
        return cells

    def table(self) -> list[Line]:
        """Shows by node what the last iteration's summary told as a mean; nothing if it was
        complete."""
        told = {
            name: max(i for i, values in series.items() if len(values) > 1)
            for name, series in self.series.items()
            if any(len(values) > 1 for values in series.values())
        }
        if not told:
            return []
        last = max(told.values())
        columns = {
            name: _labelled(self.series[name][at]) for name, at in told.items() if at == last
        }
        rows = sorted({label for values in columns.values() for label in values}, key=_natural)
        cells = {
            name: text.numbers([values.get(label) for label in rows])
            for name, values in columns.items()
        }
        lines = [[label, *(cells[name][i] for name in columns)] for i, label in enumerate(rows)]
        if len(lines) > SHOWN_ROWS:
            half = SHOWN_ROWS // 2
            lines = [*lines[:half], ["...", *[""] * len(columns)], *lines[-half:]]
        header = [f"iteration {last}", *columns]
        return text.table(header, lines, right=range(1, len(header)))


def _labelled(values: Mapping[Instance, float]) -> dict[str, float]:
    """Names the instance as well where a node ran several."""
    several = len({node for node, _ in values}) < len(values)
    return {f"{node}.{i}" if several else node: value for (node, i), value in values.items()}


def _natural(label: str) -> list[tuple[int, str]]:
    """Sorts node-2 before node-10."""
    return [
        (int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", label)
    ]
