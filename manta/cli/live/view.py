"""Turns the items of a swarm's feeds into lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from manta.cli.live.folding import Folded, Folding
from manta.cli.live.metrics import Metrics
from manta.console import text
from manta.console.lines import Line, Words, as_written, joined, styled
from manta.console.visible import visible_lines

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
BAR = 40
"""Columns of the progress bar."""

_TROUBLE = {"failed": "red", "retried": "yellow", "lost": "yellow", "waiting": "yellow"}
_TROUBLE |= {"ignored": "yellow", "quorum": "yellow", "notice": "yellow"}


class _Iteration:
    """What is known of one iteration."""

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.tasks: dict[str, None] = {}
        self.started: set[tuple[str, int]] = set()
        self.finished: set[tuple[str, int]] = set()
        self.fractions: dict[tuple[str, int], float] = {}
        self.said = ""
        """The latest progress of an instance that has not finished, as a sentence."""
        self.share = 0.0
        self.took: float | None = None

    def part(self) -> float:
        """Returns how much is done, from 0 to 1; it never goes back, though tasks begin."""
        if self.started:
            done = [1.0 if i in self.finished else self.fractions.get(i, 0.0) for i in self.started]
            self.share = max(self.share, sum(done) / len(done))
        return self.share

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

    def __init__(self, max_iteration: int | None = None, *, times: bool = False) -> None:
        """With `times`, log lines begin with their time and iteration."""
        self._most = max_iteration
        self._times = times
        self._iterations: dict[int, _Iteration] = {}
        """The latest and the one before, whose last events may come after it has begun."""
        self._began_at = 0.0
        self.metrics = Metrics()
        self.waits: list[float] = []
        """When a task was said to wait, in seconds since the epoch."""
        self._told: list[str] = []
        """Sentences about failures that were shown."""
        self._folding = Folding()
        self._has_logs = False

    def event(self, item: EventOverview) -> list[Line]:
        if item.kind in _TROUBLE:
            if item.kind in ("waiting", "retried"):
                self.waits.append(item.at)
            if item.kind == "failed":
                self._told.append(item.sentence.rstrip("."))
            stop = "" if item.sentence.endswith(".") else "."
            return [styled(item.sentence + stop, fg=_TROUBLE[item.kind])]
        if item.iteration < 0:
            return []
        if item.iteration < max(self._iterations, default=0) - 1:
            return []
        if item.iteration not in self._iterations:
            self._begin(item)
        current = self._iterations[item.iteration]
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
                current.said = item.sentence
        return []

    def _begin(self, item: EventOverview) -> None:
        if not self._iterations:
            self._began_at = item.at
        self._iterations[item.iteration] = _Iteration(item.at)
        for old in [one for one in self._iterations if one < max(self._iterations) - 1]:
            del self._iterations[old]

    def _ended(self, item: EventOverview, current: _Iteration) -> list[Line]:
        """Handles an event that comes twice: when an iteration begins and when it ends."""
        if not current.tasks:
            current.began_at = item.at
            return []
        current.took = item.at - current.began_at
        cells: list[Words] = [
            styled(f"iteration {item.iteration:>3}", bold=True),
            f"{text.seconds(current.took):>7}",
            *self.metrics.summary(item.iteration),
        ]
        return [*map(self._log_line, self._folding.rest()), joined("   ", cells).rstrip()]

    def metric(self, item: MetricsOverview) -> None:
        self.metrics.add(item.iteration, (item.node_alias, item.index), item.metrics)

    def logs(self, items: Sequence[LogOverview]) -> list[Line]:
        """Takes lines that came at once; equal ones are folded."""
        self._has_logs = self._has_logs or bool(items)
        return list(map(self._log_line, self._folding.fold(items)))

    def _log_line(self, folded: Folded) -> Line:
        several = (self._most or 1) > 1 or max(self._iterations, default=0) > 0
        return log_line(folded, iteration=several, times=self._times)

    def live(self, now: float) -> list[Line]:
        """Shows the current iteration; `now` is in seconds since the epoch."""
        if not self._iterations:
            return []
        iteration = max(self._iterations)
        current = self._iterations[iteration]
        if current.took is not None:
            return []
        took = text.seconds(max(0.0, now - current.began_at))
        parts: list[Words] = [styled(f"iteration {iteration:>3}", bold=True), f"{took:>7}"]
        parts += [styled(stage, fg="cyan") for stage in current.stages()]
        summary = self.metrics.summary(iteration)
        return [joined("   ", [*parts, *summary]).rstrip(), *self._bar(iteration, now)]

    def _bar(self, iteration: int, now: float) -> list[Line]:
        """Shows how much is done, if an end is known or tasks tell their progress, for how long
        the swarm has run, and what a task said of its progress."""
        current = self._iterations[iteration]
        most = self._most or 1
        if most < 2 and not current.fractions:
            return []
        share = min(1.0, (iteration % most + 0.9 * current.part()) / most)
        filled = round(share * BAR)
        bar = styled("━" * filled, fg="green") + styled("━" * (BAR - filled), dim=True)
        ran = text.seconds(max(0.0, now - self._began_at))
        said = [styled(current.said, dim=True)] if current.said else []
        return [joined("   ", [bar + f" {share:>4.0%}", ran, *said])]

    def records(self) -> list[dict[str, Any]]:
        """Returns the metrics, a record per value."""
        return [
            {"metric": name, "iteration": iteration, "node": node, "index": index, "value": value}
            for name, series in self.metrics.series.items()
            for iteration, values in sorted(series.items())
            for (node, index), value in sorted(values.items())
        ]

    def ending(
        self, swarm: SwarmOverview, errors: Sequence[ErrorOverview], columns: int
    ) -> list[Words]:
        """Shows the metrics by node, what failed, and the outcome; nothing that was shown."""
        lines: list[Words] = [*map(self._log_line, self._folding.rest())]
        table = self.metrics.table()
        if table and max(map(text.width, table)) <= columns:
            lines += ["", *table]
        shown: dict[str, ErrorOverview] = {}
        for error in sorted(errors, key=lambda e: f"{e.alias}.{e.index} " not in swarm.reason):
            if error.status == "FAILED" and (error.traceback or error.sentence not in swarm.reason):
                shown.setdefault(error.traceback or error.sentence, error)
        for error in list(shown.values())[:MOST_ERRORS]:
            where = (
                f"{error.alias}.{error.index} on {error.node_alias} in iteration {error.iteration}:"
            )
            said = "" if error.traceback else f" {error.sentence}"  # else its last line says it
            lines += ["", styled(where + said, fg="red")]
            lines += [f"  {line}" for line in visible_lines(error.traceback.rstrip())]
            if error.last_lines and not self._has_logs:
                lines += ["Its last lines:", *(f"  {line}" for line in folded(error.last_lines))]
        if len(shown) > MOST_ERRORS:
            lines.append(f"... and {len(shown) - MOST_ERRORS} more")
        colour = {"COMPLETED": "green", "FAILED": "red"}.get(swarm.status, "yellow")
        return [*lines, "", styled(swarm.status, fg=colour, bold=True) + self._reason(swarm)]

    def _reason(self, swarm: SwarmOverview) -> str:
        """Returns why it ended; of a failure that was told where it happened, only where."""
        told = next((said for said in self._told if swarm.reason.startswith(said)), None)
        if told is None:
            return f": {swarm.reason}" if swarm.reason else ""
        more = swarm.reason[len(told) :].rstrip(".")
        return f" in iteration {swarm.iteration}{more}."


def folded(lines: Sequence[str]) -> list[str]:
    """Returns the lines; equal ones that follow each other are one, with their number."""
    groups = [(line, len(list(equal))) for line, equal in groupby(lines)]
    return [f"{line}  x {count}" if count > 1 else line for line, count in groups]


def log_line(
    folded: Folded, *, iteration: bool = False, times: bool = False, raw: bool = False
) -> Line:
    """Returns `node-1 worker.0 | text`, with the level of warnings and errors.

    `iteration` adds it as `#3`, `times` the local time and the iteration. A `raw` text may have
    anything in it; of any other that redraws its line, the last state is shown.
    """
    item = folded.item
    level = item.stream.upper() + " " if item.stream in ("warning", "error", "critical") else ""
    colour = {"stderr": "yellow", "warning": "yellow", "error": "red", "critical": "red"}
    parts = [f"{item.node_alias} {item.alias}.{item.index}"]
    if times:
        parts.insert(0, f"{datetime.fromtimestamp(item.at):%Y-%m-%d %H:%M:%S}")
    if iteration or times:
        parts.append(f"#{item.iteration}")
    who = styled(" ".join([*parts, "|"]), dim=True)
    words = as_written(item.text) if raw else text.redrawn(item.text)
    said = styled(level + words, fg=colour.get(item.stream))
    count = styled(f"  x {folded.times}", dim=True) if folded.times > 1 else ""
    return who + " " + said + count if words else who + count
