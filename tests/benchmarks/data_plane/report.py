"""The report, for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.benchmarks.data_plane.figures import MANTA, Goal, Outcome, Unit
from tests.benchmarks.data_plane.samples import spread

_MARKS = {True: "holds", False: "MISSES", None: "not judged"}
_NAME = 20


def text(outcome: Outcome) -> Iterator[str]:
    """The lines of one figure: a line for each side, Manta's first, with its ratio and goals."""
    figure = outcome.figure
    yield f"{figure.name}: {figure.title}"
    sides = [MANTA, *(side for side in (*outcome.samples, *outcome.missing) if side != MANTA)]
    for side in sides:
        if samples := outcome.samples.get(side):
            ratio = None if side == MANTA else outcome.ratio(side)
            told = f"{_sample(samples, figure.unit):46} {_ratio(ratio)}"
        else:
            told = f"not measured: {outcome.missing.get(side, 'it is no part of this figure')}"
        yield f"  {side:{_NAME}} {told}{_goals(outcome, side)}".rstrip()
    named = {goal.against or MANTA for goal in figure.goals}
    for side in sorted(named - set(sides)):
        yield f"  {side:{_NAME}} not measured{_goals(outcome, side)}"
    for note in outcome.notes:
        yield f"  {note}"


def _goals(outcome: Outcome, side: str) -> str:
    goals = [goal for goal in outcome.figure.goals if (goal.against or MANTA) == side]
    return "".join(f"   {_goal(goal, outcome)}" for goal in goals)


def _goal(goal: Goal, outcome: Outcome) -> str:
    unit = outcome.figure.unit
    bound = ">=" if unit.more_is_better else "<="
    what = "x" if goal.against else unit.name
    return f"[{bound} {goal.limit:g} {what}: {_MARKS[outcome.holds(goal)]}]"


def _sample(samples: list[float], unit: Unit) -> str:
    middle, low, high, count = spread([sample * unit.scale for sample in samples])
    return f"{_number(middle):>9} {unit.name} ({_number(low)} to {_number(high)}; {count})"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{_number(value)} x"


def _number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def summary(outcomes: list[Outcome]) -> str:
    marks = [outcome.holds(goal) for outcome in outcomes for goal in outcome.figure.goals]
    held, missed, open_ = (marks.count(mark) for mark in (True, False, None))
    return f"Goals: {held} hold, {missed} missed, {open_} not judged here."


def record(outcomes: list[Outcome], machine: Mapping[str, Any]) -> dict[str, Any]:
    """The whole report as plain values. Samples are in the figure's unit, in order."""
    return {"machine": dict(machine), "figures": [_figure(outcome) for outcome in outcomes]}


def _figure(outcome: Outcome) -> dict[str, Any]:
    figure, unit = outcome.figure, outcome.figure.unit
    sides = {}
    for side, samples in outcome.samples.items():
        shown = [sample * unit.scale for sample in samples]
        median, low, high, _ = spread(shown)
        ratio = None if side == MANTA else outcome.ratio(side)
        sides[side] = {
            "median": median,
            "low": low,
            "high": high,
            "samples": shown,
            "manta_ratio": ratio,
        }
    return {
        "name": figure.name,
        "title": figure.title,
        "unit": unit.name,
        "more_is_better": unit.more_is_better,
        "sides": sides,
        "not_measured": outcome.missing,
        "goals": [
            {"limit": goal.limit, "against": goal.against or None, "holds": outcome.holds(goal)}
            for goal in figure.goals
        ],
        "notes": outcome.notes,
    }
