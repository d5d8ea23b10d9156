"""Lines that stay, with live lines below them; without a terminal, plain lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

import click

from manta.console import text


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

    def show(self, lines: Sequence[str], live: Sequence[str] = ()) -> None:
        """Print `lines`, which stay, then `live` lines, which replace the previous ones.

        Whatever is in them, nothing but their colours changes the terminal.
        """
        if self.quiet:
            return
        parts = []
        if self._drawn:
            parts.append(f"\x1b[{self._drawn}F\x1b[J")
        parts += [self._plain(part) + "\n" for line in lines for part in line.split("\n")]
        live = [text.printable(line.replace("\n", " ")) for line in live if self.is_terminal]
        drawn = [text.clipped(line, self.columns - 1) for line in live]
        parts += [self._plain(line) + "\n" for line in drawn]
        self._drawn = len(drawn)
        if parts:
            self.stream.write("".join(parts))
            self.stream.flush()

    def _plain(self, line: str) -> str:
        line = text.printable(line)
        return line if self.colour else click.unstyle(line)


def say_note(sentence: str) -> None:
    Screen(sys.stderr).show([click.style("Note: ", fg="yellow") + sentence])


def say_error(sentence: str) -> None:
    Screen(sys.stderr).show([click.style("Error: ", fg="red") + sentence])
