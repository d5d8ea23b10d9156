"""Pictures: the package that draws them, and the graphs of metrics."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from manta.apis.errors import InvalidArgument, MissingPackage
from manta.console.visible import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from manta.apis.curves import Graph

SUFFIXES = (".png", ".svg", ".pdf")
_ABREAST = 2
"""Graphs in a row."""
_FEW = 40
"""Points of a curve up to which each is marked."""


def check(path: str | os.PathLike[str]) -> None:
    """Raises InvalidArgument for a file whose name is not of a picture."""
    if Path(path).suffix not in SUFFIXES:
        raise InvalidArgument(f"{path} is none of {', '.join(SUFFIXES)}: give such a file.")


@contextmanager
def figure(path: str | os.PathLike[str], width: float, height: float) -> Iterator[Figure]:
    """Gives a figure of that size in inches to draw on, and then writes it.

    Texts are drawn as they are, whatever is in them: `$` begins no formula, and a character that
    the font lacks is a box. Raises InvalidArgument, MissingPackage, OSError.
    """
    check(path)
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackage(
            "A picture needs matplotlib, which is not installed: pip install 'manta-swarm[plot]'."
        ) from None
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        drawn = Figure(figsize=(width, height), layout="constrained")
        yield drawn
        drawn.savefig(path, dpi=150)


def draw(path: str | os.PathLike[str], graphs: Sequence[Graph], title: str) -> None:
    """Writes the graphs, each with a legend. Raises as `figure` does."""
    columns = min(_ABREAST, len(graphs))
    rows = -(-len(graphs) // columns)
    with figure(path, 1.0 + 5.5 * columns, 0.6 + 3.2 * rows) as drawn:
        from matplotlib.ticker import MaxNLocator

        drawn.suptitle(visible(title), x=0.01, ha="left", fontsize="medium")
        for at, graph in enumerate(graphs):
            axes = drawn.add_subplot(rows, columns, at + 1)
            lines = [
                axes.plot(curve.x, curve.y, marker="." if len(curve.x) <= _FEW else "")[0]
                for curve in graph.curves
            ]
            axes.set_xlabel(graph.axis)
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
            axes.set_title(visible(graph.metric), loc="left", fontsize="medium")
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(lines, [visible(curve.label) for curve in graph.curves], frameon=False)
