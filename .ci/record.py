"""Record the terminal of the first page as a picture that moves: `make pictures`.

What is typed is the page's console block. The picture ends with what the terminal shows in the end;
who prefers no motion, or cannot show it, sees that alone. With a path as argument, write it there.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyte

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.documents import blocks  # noqa: E402

PAGE = ROOT / "docs" / "index.md"
PICTURE = ROOT / "docs" / "assets" / "run.svg"
COLUMNS, LINES = 94, 80
WIDTH, HEIGHT, MARGIN = 7.8, 17, 14
"""Of a letter and of the frame, in units of the drawing."""
PAUSE = 0.6
"""Seconds for which the command alone is seen."""
LIMIT = 120.0
COLOURS = {
    "red": "#ef9a9a", "green": "#a5d6a7", "brown": "#ffe082", "blue": "#90caf9",
    "magenta": "#ce93d8", "cyan": "#80deea",
}  # fmt: skip
TEXT, GROUND = "#cfd8dc", "#14161b"


class Row(NamedTuple):
    """A line of the screen as it is from a time on, in runs of (column, text, colour, bold)."""

    at: float
    line: int
    runs: tuple[tuple[int, str, str, bool], ...]


def record(command: str, folder: Path = ROOT, columns: int = COLUMNS) -> list[Row]:
    """Every change of a line of the screen, the command's included, when it runs in `folder`."""
    screen = pyte.Screen(columns, LINES)
    screen.set_mode(pyte.modes.LNM)
    stream = pyte.ByteStream(screen)
    stream.feed(f"\x1b[1m$\x1b[0m {command}\n".encode())
    shown: dict[int, Row] = {}
    changes: list[Row] = []

    def look(at: float) -> None:
        for line in range(LINES):
            row = Row(at, line, tuple(_runs(screen.buffer[line])))
            if row.runs != (shown[line].runs if line in shown else ()):
                shown[line] = row
                changes.append(row)

    look(0.0)
    for at, said in _said(command, folder, columns):
        stream.feed(said)
        look(at + PAUSE)
    return changes


def _said(command: str, folder: Path, columns: int) -> Iterator[tuple[float, bytes]]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MANTA_")}
    for unwanted in ("COLUMNS", "LINES", "NO_COLOR"):
        kept.pop(unwanted, None)
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder,
            env={
                **kept,
                "TERM": "xterm-256color",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "MANTA_HOME": home,
            },
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        began = time.monotonic()
        try:
            while True:
                said = os.read(master, 65536)
                yield time.monotonic() - began, said
        except OSError:  # the command has ended
            code = process.wait(LIMIT)
        finally:
            os.close(master)
    if code != 0:
        raise SystemExit(f"{command} ended with {code}")


def _runs(cells: dict[int, pyte.screens.Char]) -> Iterator[tuple[int, str, str, bool]]:
    """Runs of one look; blanks at the end are left out."""
    last = max((column for column in cells if cells[column].data.strip()), default=-1)
    columns = range(last + 1)
    looks = groupby(columns, key=lambda column: (cells[column].fg, cells[column].bold))
    for (colour, bold), group in looks:
        run = list(group)
        yield run[0], "".join(cells[column].data for column in run), colour, bold


def svg(rows: list[Row]) -> str:
    """Each change covers what was there; played once."""
    lines = max(row.line for row in rows) + 1
    width, height = round(COLUMNS * WIDTH) + 2 * MARGIN, lines * HEIGHT + 2 * MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}">',
            "<style>",
            f"text {{ font: 13px ui-monospace, monospace; fill: {TEXT}; white-space: pre; }}",
            "@keyframes appear { from { visibility: hidden; } to { visibility: visible; } }",
            "g { animation: appear 0.01s step-end both; }",
            "@media (prefers-reduced-motion: reduce) { g { animation: none; } }",
            "</style>",
            f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>',
            *(_drawn(row) for row in rows),
            "</svg>\n",
        ]
    )


def _drawn(row: Row) -> str:
    top = MARGIN + row.line * HEIGHT
    cover = (
        f'<rect x="2" y="{top}" width="{COLUMNS * WIDTH + 2 * MARGIN - 4:g}" height="{HEIGHT}" '
        f'fill="{GROUND}"/>'
    )
    return f'<g style="animation-delay:{row.at:.2f}s">{cover}{written(row)}</g>'


def written(row: Row) -> str:
    text = "".join(
        f'<tspan x="{MARGIN + column * WIDTH:g}" textLength="{len(text) * WIDTH:g}"'
        + (f' fill="{COLOURS[colour]}"' if colour in COLOURS else "")
        + (' font-weight="bold"' if bold else "")
        + f">{escape(text)}</tspan>"
        for column, text, colour, bold in row.runs
    )
    baseline = MARGIN + (row.line + 1) * HEIGHT - 4
    return f'<text y="{baseline}" xml:space="preserve">{text}</text>'


if __name__ == "__main__":
    [command] = [
        line.removeprefix("$ ")
        for block in blocks(PAGE)
        if block.language == "console"
        for line in block.text.splitlines()
    ]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    target.write_text(svg(record(command)))
