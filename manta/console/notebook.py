"""Lines that stay, with live lines below them, in a cell of a notebook: one output, which is
updated in place."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from html import escape
from typing import Any

from manta.console.lines import Words, line
from manta.console.terminal import Screen

MOST_LINES = 200
"""Lines that a cell shows: each change sends all of them."""
_COLOURS = {"red": "#d33", "green": "#2a2", "yellow": "#b80", "cyan": "#088"}
"""Those that are read on white as on black."""


def is_notebook() -> bool:
    """Whether this is the kernel of a notebook; imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


class Shown:
    """An output of a cell, which `update` replaces; elsewhere, nothing is shown."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last = ""

    def update(self, html: str, text: str) -> None:
        """Shows the HTML, or the text where none can be shown; the same again does nothing."""
        if html == self._last or not is_notebook():
            return
        from IPython.display import display  # type: ignore[import-not-found, unused-ignore]

        self._last = html
        bundle = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(  # type: ignore[no-untyped-call, unused-ignore]
                bundle, raw=True, display_id=True
            )
        else:
            self._handle.update(bundle, raw=True)


class NotebookScreen(Screen):
    """A screen whose lines are one output of the cell that runs."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self.is_terminal = True  # live lines are wanted, at their pace
        self._kept: deque[Words] = deque(maxlen=MOST_LINES)
        self._left_out = 0
        self._shown = Shown()

    @property
    def columns(self) -> int:
        """The width of a line, whatever that of the window is."""
        return 100

    def show(self, lines: Sequence[Words], live: Sequence[Words] = ()) -> None:
        """Adds `lines`, and replaces the `live` ones."""
        if self.quiet:
            return
        self._left_out += max(0, len(self._kept) + len(lines) - MOST_LINES)
        self._kept.extend(lines)
        shown = [*self._kept, *live]
        if self._left_out:
            shown.insert(0, f"({self._left_out} lines before are not shown)")
        html = "\n".join(map(_html, shown))
        text = "\n".join(str(line(one)) for one in shown)
        self._shown.update(f"<pre>{html}</pre>" if shown else "", text)


def screen(*, quiet: bool = False) -> Screen:
    """The screen of whoever runs this from Python: a notebook's, or standard output."""
    return NotebookScreen(quiet=quiet) if is_notebook() else Screen(quiet=quiet)


def _html(words: Words) -> str:
    return "".join(_span(one.words, dict(one.style)) for one in line(words).spans)


def _span(words: str, style: dict[str, Any]) -> str:
    css = []
    if style.get("bold"):
        css.append("font-weight:bold")
    if style.get("dim"):
        css.append("opacity:0.6")
    if style.get("fg") in _COLOURS:
        css.append(f"color:{_COLOURS[style['fg']]}")
    text = escape(words)
    return f'<span style="{";".join(css)}">{text}</span>' if css else text
