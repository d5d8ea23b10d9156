"""Numbers, times and tables as text. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def seconds(duration: float) -> str:
    if duration < 0.0995:
        return f"{duration * 1000:.0f} ms"
    if duration < 9.995:
        return f"{duration:.2f} s"
    if duration < 120:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def number(value: float) -> str:
    """Four digits that matter: 0.9123, 12.5, 1.234e-07."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if 0.001 <= abs(value) < 1e6:
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.5g}"
    return f"{value:.3e}"


def numbers(values: Sequence[float | None]) -> list[str]:
    """The same number of decimals in all of them, as few as will do; "" for None."""
    there = [value for value in values if value is not None]
    shown = [_trimmed(number(value)) for value in there]
    if any("e" in text or "n" in text for text in shown):
        return ["" if value is None else number(value) for value in values]
    decimals = max((len(text.partition(".")[2]) for text in shown), default=0)
    return ["" if value is None else f"{value:.{decimals}f}" for value in values]


def _trimmed(shown: str) -> str:
    return shown.rstrip("0").rstrip(".") if "." in shown and "e" not in shown else shown


def count(amount: int, noun: str) -> str:
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def width(text: str) -> int:
    return len(_ANSI.sub("", text))


def clipped(text: str, columns: int) -> str:
    """Cut to a width; colours are kept up to the cut."""
    if width(text) <= columns:
        return text
    kept, room = [], max(0, columns - 1)
    for piece in re.split(f"({_ANSI.pattern})", text):
        if _ANSI.fullmatch(piece):
            kept.append(piece)
        elif room > 0:
            kept.append(piece[:room])
            room -= len(piece)
    return "".join(kept) + "…"


NARROWEST = 8
"""Columns that a column of a table keeps, however narrow the terminal."""


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    room: int | None = None,
) -> list[str]:
    """Aligned lines, the header first; `right` are the columns with numbers.

    What is wider than `room` is cut in the widest columns.
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(width(line[column]) for line in lines) for column in range(len(header))]
    while room is not None and sum(widths) + 2 * (len(widths) - 1) > room:
        widest = max(range(len(widths)), key=lambda column: widths[column])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1

    def cell(text: str, column: int) -> str:
        text = clipped(text, widths[column])
        pad = " " * (widths[column] - width(text))
        return pad + text if column in right else text + pad

    return ["  ".join(cell(text, i) for i, text in enumerate(line)).rstrip() for line in lines]
