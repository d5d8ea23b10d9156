"""Lines in colours, which only a screen turns into what a terminal understands. Pure.

Text that is put into a line is made visible, so that no colour and no line break but ours reaches
the terminal: a str is always one line without any.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import click

from manta.console.visible import visible


class Span(NamedTuple):
    words: str
    style: tuple[tuple[str, Any], ...] = ()
    """What click.style takes."""


class Line:
    """Words in styles. It is added to others and to text with `+`; as a str it has no styles."""

    __slots__ = ("spans",)

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self.spans = tuple(span for span in spans if span.words)

    def __add__(self, more: Words) -> Line:
        return Line((*self.spans, *line(more).spans))

    def __radd__(self, before: str) -> Line:
        return line(before) + self

    def __str__(self) -> str:
        return "".join(span.words for span in self.spans)

    def __repr__(self) -> str:
        return f"Line({str(self)!r})"

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Line) and self.spans == other.spans

    def __hash__(self) -> int:
        return hash(self.spans)

    def rstrip(self) -> Line:
        spans = list(self.spans)
        while spans and not (words := spans[-1].words.rstrip()):
            spans.pop()
        return Line((*spans[:-1], spans[-1]._replace(words=words)) if spans else ())

    def for_terminal(self, *, colour: bool) -> str:
        return "".join(
            click.style(span.words, **dict(span.style)) if span.style and colour else span.words
            for span in self.spans
        )


Words = str | Line


def line(words: Words) -> Line:
    return words if isinstance(words, Line) else Line([Span(visible(words))])


def styled(words: Words, **style: Any) -> Line:
    """Returns a line in one style, as click.style has them: `fg`, `bold`, `dim`."""
    used = tuple(sorted((name, value) for name, value in style.items() if value is not None))
    return Line(span._replace(style=used) for span in line(words).spans)


def as_written(words: str) -> Line:
    """Returns words with whatever is in them, for who asked for that (`--raw`)."""
    return Line([Span(words)])


def joined(separator: str, parts: Iterable[Words]) -> Line:
    found = Line()
    for number, part in enumerate(parts):
        found += separator + line(part) if number else line(part)
    return found
