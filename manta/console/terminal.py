"""Lines that stay, with live lines below them; without a terminal, plain lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from manta.console import text
from manta.console.lines import Line, Words, line, styled

# Around live lines: terminals differ in how wide they draw a character, and each takes one line.
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"


class Screen:
    """Writes to one stream, one thread at a time. Colours only on a terminal without NO_COLOR."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self.stream = stream or sys.stdout
        self.quiet = quiet
        self.is_terminal = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.is_terminal and "NO_COLOR" not in os.environ
        self._drawn = 0

    @property
    def columns(self) -> int:
        """The width of a line; 100 without a terminal."""
        if not self.is_terminal:
            return 100
        told = os.environ.get("COLUMNS", "")
        if told.isdecimal() and int(told):
            return int(told)
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except OSError:
            return 80

    @property
    def room(self) -> int | None:
        """Columns that a table may take; None, without limit, when there is no terminal."""
        return self.columns if self.is_terminal else None

    def show(self, lines: Sequence[Words], live: Sequence[Words] = ()) -> None:
        """Print `lines`, which stay, then `live` lines, which replace the previous ones.

        Whatever is in a text, it takes one line and only its own: see `manta.console.lines`.
        """
        if self.quiet:
            return
        parts = []
        if self._drawn:
            parts.append(f"\x1b[{self._drawn}F\x1b[J")
        drawn = [text.clipped(one, self.columns - 1) for one in live] if self.is_terminal else []
        parts += [self._for_terminal(one) for one in lines]
        if drawn:
            parts += [_NO_WRAP, *map(self._for_terminal, drawn), _WRAP]
        self._drawn = len(drawn)
        if parts:
            self.stream.write("".join(parts))
            self.stream.flush()

    def _for_terminal(self, one: Words) -> str:
        return line(one).for_terminal(colour=self.colour) + "\n"


def print_lines(*lines: Words, err: bool = False) -> None:
    Screen(sys.stderr if err else sys.stdout).show(lines)


def say_note(sentence: str) -> None:
    _say(styled("Note: ", fg="yellow"), sentence)


def say_error(sentence: str) -> None:
    _say(styled("Error: ", fg="red"), sentence)


def _say(before: Line, sentence: str) -> None:
    """Further lines of a sentence are indented, so that none looks like a sentence of its own."""
    first, *more = sentence.split("\n")
    print_lines(before + first, *(one and f"  {one}" for one in more), err=True)


def confirm(question: Words, **options: Any) -> bool:
    """Ask as click.confirm does."""
    return click.confirm(str(line(question)), **options)
