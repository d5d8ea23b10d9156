"""What a notebook shows of a swarm, a graph and results: HTML that stands alone. Pure.

A graph is drawn as SVG, left to right: a task's column is the longest way to it. Lines and
letters take the notebook's own colour, so that they can be read on dark and on light.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from manta.apis import checks
from manta.apis.graph import Condition, placing

if TYPE_CHECKING:
    from manta.apis.graph import Graph
    from manta.apis.results import Result
    from manta.apis.schedule import Schedule

MOST_TASKS = 100
"""A graph of more is shown as text: nobody could read the drawing."""
MOST_ROWS = 20
_LETTERS = 22
_WIDTH, _HEIGHT = 190, 46
_COLUMN, _ROW = 250, 66
_MARGIN = 8


class Box(NamedTuple):
    """A task as it is drawn; `after` maps names of other boxes to conditions."""

    name: str
    detail: str
    after: Mapping[str, Condition]


def of_graph(graph: Graph) -> str:
    if len(graph.vertices) > MOST_TASKS:
        return text(str(graph))
    return _svg([Box(v.alias, placing(v.task), v.after) for v in graph.vertices])


def of_schedule(schedule: Schedule) -> str:
    """One iteration is drawn if all are alike; else the schedule is text."""
    vertices = schedule.graph.vertices
    if len(vertices) > MOST_TASKS or len(set(schedule.iterations)) > 1:
        return text(str(schedule))
    tasks = {vertex.alias: vertex.task for vertex in vertices}
    boxes: list[Box] = []
    before: tuple[str, ...] = ()
    for entry in schedule.iterations[0]:
        mode = ", one by one" if entry.sequential else ""
        after = dict.fromkeys(before, Condition.FINISHED)
        boxes += (Box(alias, placing(tasks[alias]) + mode, after) for alias in entry.aliases)
        before = entry.aliases
    return _svg(boxes)


def titled(title: str, drawing: str, notes: Sequence[str]) -> str:
    lines = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return f"<div><div><b>{escape(title)}</b></div>{drawing}{lines}</div>"


def text(content: str) -> str:
    return f"<pre>{escape(content)}</pre>"


def of_results(title: str, results: Sequence[Result]) -> str:
    """The first rows as a table."""
    if not results:
        return f"<div>{escape(title)}</div>"
    rows = [_row("th", ("iteration", "tag", "node", "task", "value"))]
    for result in results[:MOST_ROWS]:
        task = f"{result.alias}.{result.index}"
        if not result.counts:
            task += f" (failed attempt {result.attempt})"
        cells = (result.iteration, result.tag, result.node_alias, task, _value(result.value))
        rows.append(_row("td", cells))
    more = len(results) - MOST_ROWS
    notes = [f"and {more} more"] if more > 0 else []
    return titled(title, f"<table>{''.join(rows)}</table>", notes)


def _row(kind: str, cells: Iterable[object]) -> str:
    return f"<tr>{''.join(f'<{kind}>{escape(str(cell))}</{kind}>' for cell in cells)}</tr>"


def _value(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape and dtype is not None:
        return f"{dtype} array of {' x '.join(map(str, shape))}"
    return checks.shown(value)


def _svg(boxes: Sequence[Box]) -> str:
    """`boxes` come in a topological order."""
    places: dict[str, tuple[int, int]] = {}
    filled: dict[int, int] = {}
    for box in boxes:
        column = max((places[name][0] + 1 for name in box.after), default=0)
        row = filled.get(column, 0)
        filled[column] = row + 1
        places[box.name] = column, row
    tallest = max(filled.values(), default=0)
    corners = {
        name: (
            _MARGIN + column * _COLUMN,
            _MARGIN + round((row + (tallest - filled[column]) / 2) * _ROW),
        )
        for name, (column, row) in places.items()
    }
    width = (len(filled) - 1) * _COLUMN + _WIDTH + 2 * _MARGIN
    height = (tallest - 1) * _ROW + _HEIGHT + 2 * _MARGIN
    parts = [
        _edge(corners[parent], corners[box.name], condition)
        for box in boxes
        for parent, condition in box.after.items()
    ]
    parts += (_box(box, corners[box.name]) for box in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" '
        f'style="max-width:100%" fill="currentColor">{"".join(parts)}</svg>'
    )


def _box(box: Box, corner: tuple[int, int]) -> str:
    x, y = corner
    middle = x + _WIDTH // 2
    return (
        f"<g><title>{escape(box.name)}: {escape(box.detail)}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
        'fill="none" stroke="currentColor"/>'
        f'<text x="{middle}" y="{y + 19}" text-anchor="middle" font-weight="bold">'
        f"{escape(_short(box.name))}</text>"
        f'<text x="{middle}" y="{y + 36}" text-anchor="middle" font-size="11">'
        f"{escape(_short(box.detail, _LETTERS + 8))}</text></g>"
    )


def _edge(start: tuple[int, int], end: tuple[int, int], condition: Condition) -> str:
    """A curve with an arrow; broken where the first result is enough."""
    x0, y0 = start[0] + _WIDTH, start[1] + _HEIGHT // 2
    x1, y1 = end[0], end[1] + _HEIGHT // 2
    bend = (_COLUMN - _WIDTH) // 2
    broken = ' stroke-dasharray="5 4"' if condition is Condition.RESULT else ""
    title = "with its first result" if condition is Condition.RESULT else "once it has finished"
    return (
        f"<g><title>{title}</title>"
        f'<path d="M{x0} {y0} C{x0 + bend} {y0} {x1 - bend} {y1} {x1 - 6} {y1}" '
        f'fill="none" stroke="currentColor"{broken}/>'
        f'<path d="M{x1} {y1} l-8 -4 l0 8 z"/></g>'
    )


def _short(name: str, letters: int = _LETTERS) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
