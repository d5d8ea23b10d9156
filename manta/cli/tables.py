"""Prints lists and single things, as tables or JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from manta.console import json_form, text
from manta.console.lines import Words, styled
from manta.console.terminal import Screen, print_lines
from manta.console.visible import visible

Item = TypeVar("Item")


class Record(Protocol):
    """An overview, or a dict."""

    def __getitem__(self, field: str, /) -> Any: ...


Cell = Callable[[Any], Words]
"""Returns what a column shows of a record."""
Columns = Mapping[str, Cell]

_WORDS = {"reason", "rights", "roles", "datasets"}
"""Columns that are wrapped on a narrow terminal; others are cut."""


def emit(
    records: Sequence[Record],
    columns: Columns,
    *,
    as_json: bool,
    nothing: str,
) -> None:
    """Prints a table with these columns, or full JSON; `nothing` is printed for an empty table."""
    if as_json:
        json_form.show(records)
        return
    if not records:
        print_lines(nothing)
        return
    rows = [[cell(record) for cell in columns.values()] for record in records]
    header = [styled(name.upper(), bold=True) for name in columns]
    screen = Screen()
    names = list(columns)
    ids = [i for i, name in enumerate(names) if name == "id"]
    words = [i for i, name in enumerate(names) if name in _WORDS]
    screen.show(text.table(header, rows, room=screen.room, ids=ids, words=words))


def emit_lines(items: Iterable[Item], line: Callable[[Item], Words], *, as_json: bool) -> None:
    """Prints a line per item as it arrives, or its JSON."""
    screen = Screen()
    for item in items:
        if as_json:
            json_form.show_line(item)
        else:
            screen.show([line(item)])


def show_fields(record: Any, rows: Sequence[tuple[str, Words]], *, as_json: bool) -> None:
    """Prints a line per field, or the record as JSON."""
    if as_json:
        json_form.show(record)
    else:
        Screen().show(text.table(("", ""), rows)[1:])


def show_record(record: Record, columns: Columns, *, as_json: bool) -> None:
    """Prints a line per column, or the record as JSON."""
    rows = [(label, cell(record)) for label, cell in columns.items()]
    show_fields(record, rows, as_json=as_json)


def field(name: str) -> Cell:
    """Makes a column that shows one field."""
    return lambda record: "" if record[name] is None else str(record[name])


_STATES = {"COMPLETED": "green", "RUNNING": "green", "CONNECTED": "green", "ACTIVE": "cyan"}
_STATES |= {"FAILED": "red", "LOST": "red", "DISCONNECTED": "red"}


def state(name: str) -> Cell:
    """Makes a column that shows a state in its colour; states that wait are yellow."""
    return lambda record: styled(record[name], fg=_STATES.get(record[name], "yellow"))


def ident(name: str) -> Cell:
    """Makes a dimmed column of ids."""
    return lambda record: styled(record[name], dim=True)


def age(name: str) -> Cell:
    """Makes a column that shows how long ago a time was."""
    return lambda record: (
        f"{text.seconds(max(0.0, time.time() - record[name]))} ago" if record[name] else ""
    )


def brief(value: Any) -> str:
    """Shows a value in one line, whatever characters are in it."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, int) and value.bit_length() > json_form.MOST_BITS:
        return f"an integer of {value.bit_length()} bits"
    if hasattr(value, "dtype") and hasattr(value, "shape") and value.shape:
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, float):
        return text.number(value)
    if isinstance(value, bytes):
        return text.size(len(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{brief(key)}: {brief(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        shown = ", ".join(brief(item) for item in value[:8])
        more = f", ... {len(value)} in all" if len(value) > 8 else ""
        return f"[{shown}{more}]" if isinstance(value, list) else f"({shown}{more})"
    return brief(str(value))
