"""A graph in characters, for a terminal. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

from manta.apis.curves import Curve, Graph
from manta.console import text
from manta.console.lines import Line, Words, joined, styled

ROWS = 12
NARROWEST, WIDEST = 30, 100
"""Columns of a chart, whatever the terminal has."""

# A mark for each of the curves that a graph may have; then what is between points, and the axes.
_MARKS, _PLAIN_MARKS = "●○■□▲△◆◇★☆", "*o+x#@%&=~"
_DRAWN, _PLAIN = tuple("·│┤└─…"), tuple(".||+-~")
_COLOURS = ("blue", "red", "green", "yellow", "magenta", "cyan", *[None] * 4)

Span = tuple[float, float]
"""The least and the greatest, which differ."""


def chart(graph: Graph, columns: int, *, plain: bool) -> list[Line]:
    """Returns the lines of a chart that is as wide, within bounds; `plain` ones are ASCII.

    Values that are NaN or infinite are gaps, which the last line counts. Between points that lie
    apart, the way from one to the next is dotted.
    """
    width = max(NARROWEST, min(columns, WIDEST))
    marks, signs = (_PLAIN_MARKS, _PLAIN) if plain else (_MARKS, _DRAWN)
    there = [
        (x, y)
        for curve in graph.curves
        for x, y in zip(curve.x, curve.y, strict=True)
        if math.isfinite(y)
    ]
    keys = [styled(mark, fg=fg) for mark, fg in zip(marks, _COLOURS, strict=True)]
    lines = [styled(graph.metric, bold=True) + f" by {graph.axis}"]
    if there:
        lines += _plot(graph, there, width, keys, signs)
    lines += [key + f" {curve.label}" for key, curve in zip(keys, graph.curves, strict=False)]
    if gaps := sum(len(curve.x) for curve in graph.curves) - len(there):
        lines.append(Line() + f"{text.count(gaps, 'value')} not drawn: NaN or infinite.")
    return [text.clipped(one, width, signs[-1]) for one in lines]


def _plot(
    graph: Graph, there: list[tuple[int, float]], width: int, keys: list[Line], signs: Sequence[str]
) -> list[Line]:
    dot, upright, tick, corner, level, _ = signs
    left, right = min(x for x, _ in there), max(x for x, _ in there)
    low, high = _apart(min(y for _, y in there), max(y for _, y in there))
    labels = text.numbers([high, high / 2 + low / 2, low])
    labelled = dict(zip((0, (ROWS - 1) // 2, ROWS - 1), labels, strict=True))
    margin = max(map(len, labels))
    room = width - margin - 2
    cells: dict[tuple[int, int], Words] = {}
    for key, curve in zip(keys, graph.curves, strict=False):
        for x, y, is_point in _way(curve, _apart(left, right), room):
            column = _place(x, _apart(left, right), room)
            cell = ROWS - 1 - _place(y, (low, high), ROWS), column
            if is_point:
                cells[cell] = key
            else:
                cells.setdefault(cell, styled(dot, fg=dict(key.spans[0].style).get("fg")))
    lines = []
    for row in range(ROWS):
        edge = f"{labelled.get(row, ''):>{margin}} {tick if row in labelled else upright}"
        lines.append(
            (edge + joined("", [cells.get((row, at), " ") for at in range(room)])).rstrip()
        )
    lines.append(Line() + f"{'':{margin}} {corner}{level * room}")
    ends = f"{left}{right:>{room - len(str(left))}}" if right > left else str(left)
    lines.append(Line() + f"{'':{margin}}  {ends}")
    return lines


def _way(curve: Curve, across: Span, room: int) -> Iterator[tuple[float, float, bool]]:
    """Yields the curve's points and, marked so, what lies between two in a row that have columns
    between them."""
    before: tuple[int, float] | None = None
    for x, y in zip(curve.x, curve.y, strict=True):
        if not math.isfinite(y):
            before = None
            continue
        if before is not None:
            steps = _place(x, across, room) - _place(before[0], across, room)
            for step in range(1, steps):
                part = step / steps
                between = before[0] + (x - before[0]) * part
                yield between, before[1] * (1 - part) + y * part, False
        yield x, y, True
        before = x, y


def _place(value: float, span: Span, places: int) -> int:
    """Returns which of so many places a value is at; halves, since a difference may overflow."""
    low, high = span
    return round((value / 2 - low / 2) / (high / 2 - low / 2) * (places - 1))


def _apart(low: float, high: float) -> Span:
    """Returns a span, around the value if it is one."""
    if high / 2 - low / 2 > 0:
        return low, high
    pad = abs(low) / 10 or 1.0
    most = sys.float_info.max
    return max(-most, low - pad), min(most, high + pad)
