"""Numbers, times and tables as text. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import zip_longest

from manta.console.lines import Line, Words, joined, line
from manta.console.visible import is_mark

_AS_EMOJI = "\ufe0f"


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


def redrawn(words: str) -> str:
    """Returns what is last to be seen of a line that was drawn again and again, as a progress bar
    is: the text behind the last carriage return."""
    return next((state for state in reversed(words.split("\r")) if state), "")


def width(words: Words) -> int:
    """Columns that a text takes on a terminal."""
    shown = str(line(words))
    return len(shown) if shown.isascii() else sum(map(_columns, shown))


def _columns(character: str) -> int:
    if character == _AS_EMOJI:
        return 1  # with it, many terminals draw a sign two columns wide
    if is_mark(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clipped(words: Words, columns: int, mark: str = "…") -> Line:
    """Cut text to a width, which includes the mark; colours are kept up to the cut."""
    whole = line(words)
    if width(whole) <= columns:
        return whole
    spans, room = [], max(0, columns - len(mark))
    for span in whole.spans:
        kept = 0
        for character in span.words:
            room -= _columns(character)
            if room < 0:
                break
            kept += 1
        spans.append(span._replace(words=span.words[:kept]))
        if room < 0:
            break
    return Line(spans) + mark


_MIN_WIDTH = 8
"""Of a table's column, however narrow the terminal; enough for an id."""
_MIN_FOLDED = 20
"""Width below which words are cut, not folded."""


def folded(words: Words, columns: int | None) -> list[Line]:
    """Lines of at most `columns`, broken between words, or within one that is wider; one line for
    None."""
    whole = line(words)
    if columns is None or width(whole) <= columns:
        return [whole]
    lines = [""]
    for word in str(whole).split():
        if lines[-1] and width(lines[-1]) + 1 + width(word) <= columns:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and width(lines[-1]) + _columns(character) > columns:
                lines.append("")
            lines[-1] += character
    return [line(part) for part in lines]


def table(
    header: Sequence[Words],
    rows: Sequence[Sequence[Words]],
    right: Sequence[int] = (),
    room: int | None = None,
    *,
    ids: Sequence[int] = (),
    words: Sequence[int] = (),
) -> list[Line]:
    """Aligned lines, the header first; `right` are the columns with numbers.

    A table wider than `room` is narrowed: first the columns of `ids` are cut, then those of
    `words` folded, then the cells of the widest columns cut.
    """
    lines = [[line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(width(row[column]) for row in lines) for column in range(len(header))]

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

    def cell(words_: Line, column: int) -> list[Line]:
        if column in words and widths[column] >= _MIN_FOLDED:
            parts = folded(words_, widths[column])
        else:
            parts = [clipped(words_, widths[column], mark="" if column in ids else "…")]
        pads = [" " * (widths[column] - width(part)) for part in parts]
        pairs = zip(parts, pads, strict=True)
        return [pad + part if column in right else part + pad for part, pad in pairs]

    shown = []
    for row in lines:
        cells = [cell(words_, column) for column, words_ in enumerate(row)]
        for parts in zip_longest(*cells):
            padded = [
                line(" " * w) if part is None else part
                for part, w in zip(parts, widths, strict=True)
            ]
            shown.append(joined("  ", padded).rstrip())
    return shown
