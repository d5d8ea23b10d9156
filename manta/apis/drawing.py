"""HTML for notebooks: graphs as SVG, and tables. Pure.

A graph is drawn from left to right: the column of a task is the length of the longest path to it.
Lines and text take the notebook's own colour, to be readable in dark and light themes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from manta.apis.task import Condition
from manta.console.visible import visible, visible_lines

MOST_TASKS = 100
"""A larger graph is shown as text, since its drawing would be unreadable."""
MOST_COLUMNS = 30
MOST_LETTERS = 200
"""Of a table's cell: a view sends all of them at each update."""
_LETTERS = 22
_WIDTH, _HEIGHT = 190, 46
_COLUMN, _ROW = 250, 66
_MARGIN = 8


class Box(NamedTuple):
    """A task as it is drawn; `after` maps names of other boxes to conditions."""

    name: str
    detail: str
    after: Mapping[str, Condition]


def graph(boxes: Sequence[Box], otherwise: str) -> str:
    """Draws boxes, given in topological order; too many are shown as the text `otherwise`."""
    return text(otherwise) if len(boxes) > MOST_TASKS else _svg(boxes)


def titled(title: str, drawing: str, notes: Sequence[str]) -> str:
    lines = "".join(f"<div>{_shown(note)}</div>" for note in notes)
    return f"<div><div><b>{_shown(title)}</b></div>{drawing}{lines}</div>"


def text(content: str) -> str:
    lines = "\n".join(visible_lines(content))
    return f"<pre>{escape(lines)}</pre>"


def table(title: str, rows: Sequence[Mapping[str, object]], more: int) -> str:
    """Makes a table of rows by column, and says how many `more` were left out."""
    if not rows:
        return f"<div>{_shown(title)}</div>"
    header, *body = cells(rows)
    lines = [_row("th", header), *(_row("td", row) for row in body)]
    left_out = len(_columns(rows)) - len(header)
    notes = [f"and {left_out} more columns"] if left_out else []
    notes += [f"and {more} more"] if more else []
    return titled(title, f"<table>{''.join(lines)}</table>", notes)


def cells(rows: Sequence[Mapping[str, object]]) -> list[list[str]]:
    """Returns the names of the first 30 columns, then each row's cells, of 200 letters at most."""
    header = _columns(rows)[:MOST_COLUMNS]
    lines: list[Sequence[object]] = [header]
    lines += [[row.get(column, "") for column in header] for row in rows]
    return [[_short(str(cell), MOST_LETTERS) for cell in line] for line in lines]


def _columns(rows: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _shown(content: object) -> str:
    """Returns one line as HTML, with nothing in it that acts on what is around it."""
    return escape(visible(str(content)))


def _row(kind: str, cells: Iterable[object]) -> str:
    return f"<tr>{''.join(f'<{kind}>{_shown(cell)}</{kind}>' for cell in cells)}</tr>"


def _svg(boxes: Sequence[Box]) -> str:
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
        f"<g><title>{_shown(box.name)}: {_shown(box.detail)}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
        'fill="none" stroke="currentColor"/>'
        f'<text x="{middle}" y="{y + 19}" text-anchor="middle" font-weight="bold">'
        f"{_shown(_short(box.name))}</text>"
        f'<text x="{middle}" y="{y + 36}" text-anchor="middle" font-size="11">'
        f"{_shown(_short(box.detail, _LETTERS + 8))}</text></g>"
    )


def _edge(start: tuple[int, int], end: tuple[int, int], condition: Condition) -> str:
    """Draws an arrow; a dashed one where the first result is enough."""
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
