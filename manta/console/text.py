"""Numbers, times and tables as text. Pure."""

from __future__ import annotations

import math
import re
import textwrap
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

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
    """Four significant digits: 0.9123, 12.5, 1.234e-07."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    if 0.001 <= abs(value) < 1e6:
        return f"{value:.4f}" if abs(value) < 1 else f"{value:.5g}"
    return f"{value:.3e}"


def numbers(values: Sequence[float | None]) -> list[str]:
    """All with the same number of decimals, as few as possible; "" for None."""
    there = [value for value in values if value is not None]
    shown = [_trimmed(number(value)) for value in there if math.isfinite(value)]
    if any("e" in text for text in shown):
        return ["" if value is None else number(value) for value in values]
    decimals = max((len(text.partition(".")[2]) for text in shown), default=0)
    return ["" if value is None else f"{value:.{decimals}f}" for value in values]


def _trimmed(shown: str) -> str:
    return shown.rstrip("0").rstrip(".") if "." in shown and "e" not in shown else shown


def count(amount: int, noun: str) -> str:
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\^_]|\].*?(?:\x07|\x1b\\|$))")
_RESET = "\x1b[0m"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(line: str) -> str:
    """One line of somebody else's as it may be shown after a prefix: of a line that was redrawn
    the last state, colours, and nothing that moves the cursor or changes the terminal."""
    if line.isprintable():
        return line
    states = [state for state in line.split("\r") if state]
    line = states[-1] if states else ""
    line = _ESCAPE.sub(lambda found: found[0] if _ANSI.fullmatch(found[0]) else "", line)
    line = "".join(
        part if _ANSI.fullmatch(part) else _CONTROL.sub("", part).expandtabs()
        for part in re.split(f"({_ANSI.pattern})", line)
    )
    return f"{line}{_RESET}" if "\x1b" in line and not line.endswith(_RESET) else line


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    text = _ANSI.sub("", text)
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) == "Cf":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clipped(text: str, columns: int, mark: str = "…") -> str:
    """Cut text to a width, which includes the mark; colours are kept up to the cut."""
    if width(text) <= columns:
        return text
    kept, room = [], max(0, columns - len(mark))
    for piece in re.split(f"({_ANSI.pattern})", text):
        if _ANSI.fullmatch(piece):
            kept.append(piece)
        elif room > 0:
            for character in piece:
                room -= _columns(character)
                if room < 0:
                    break
                kept.append(character)
    return "".join(kept) + mark


_MIN_WIDTH = 8
"""Of a table's column, however narrow the terminal; enough for an id."""
_MIN_FOLDED = 20
"""Width below which words are cut, not folded."""


def folded(words: str, columns: int | None) -> list[str]:
    """Lines of at most `columns`, broken between words; one line for None."""
    if columns is None or width(words) <= columns:
        return [words]
    return textwrap.wrap(words, max(columns, 1), break_on_hyphens=False) or [""]


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    room: int | None = None,
    *,
    ids: Sequence[int] = (),
    words: Sequence[int] = (),
) -> list[str]:
    """Aligned lines, the header first; `right` are the columns with numbers.

    A table wider than `room` is narrowed: first the columns of `ids` are cut, then those of
    `words` folded, then the cells of the widest columns cut.
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(width(line[column]) for line in lines) for column in range(len(header))]

    def excess() -> int:
        return 0 if room is None else sum(widths) + 2 * (len(widths) - 1) - room

    if excess() > 0:
        for column in ids:
            widths[column] = min(widths[column], _MIN_WIDTH)
    for column in words:
        if excess() > 0 and widths[column] > _MIN_FOLDED:
            widths[column] = max(_MIN_FOLDED, widths[column] - excess())
    while excess() > 0:
        widest = max(range(len(widths)), key=lambda column: widths[column])
        if widths[widest] <= _MIN_WIDTH:
            break
        widths[widest] -= 1

    def cell(text: str, column: int) -> list[str]:
        if column in words and widths[column] >= _MIN_FOLDED:
            parts = folded(text, widths[column])
        else:
            parts = [clipped(text, widths[column], mark="" if column in ids else "…")]
        pads = [" " * (widths[column] - width(part)) for part in parts]
        pairs = zip(parts, pads, strict=True)
        return [pad + part if column in right else part + pad for part, pad in pairs]

    shown = []
    for line in lines:
        cells = [cell(text, column) for column, text in enumerate(line)]
        for parts in zip_longest(*cells):
            padded = [
                " " * w if part is None else part for part, w in zip(parts, widths, strict=True)
            ]
            shown.append("  ".join(padded).rstrip())
    return shown
