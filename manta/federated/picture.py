"""Draws how a data set is divided among nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manta.apis.errors import InvalidArgument
from manta.apis.picture import check, figure
from manta.console.visible import visible

MOST_LABELS = 20
"""Those beyond are drawn as one."""
MOST_NODES = 200


def draw(path: Path, parts: Sequence[Any], labels: Any | None, title: str) -> None:
    """Writes a bar for each node, as long as it has records, in a colour for each label.

    `labels` has one for each record, or is None. Raises InvalidArgument, MissingPackage.
    """
    check(path)
    if len(parts) > MOST_NODES:
        raise InvalidArgument(
            f"A picture of {len(parts)} nodes can't be read: it shows {MOST_NODES} at most, "
            "leave it out."
        )
    import numpy

    named = 0 if labels is None else min(len(numpy.unique(labels)), MOST_LABELS + 1)
    height = max(1.2 + 0.32 * len(parts), 1.0 + 0.22 * named)
    with figure(path, 7, height) as drawn:
        _bars(drawn.add_subplot(), parts, labels, visible(title))


def _bars(axes: Any, parts: Sequence[Any], labels: Any | None, title: str) -> None:
    import numpy
    from matplotlib import colormaps

    nodes = [f"node {at}" for at in range(len(parts))]
    if labels is None:
        axes.barh(nodes, [len(part) for part in parts], color="#4269d0")
    else:
        bars: dict[str, Any] = {}
        kinds, counted = numpy.unique(labels)[:MOST_LABELS], numpy.zeros(len(parts))
        colours = colormaps["tab20" if len(kinds) > 10 else "tab10"]
        for at, kind in enumerate(kinds):
            counts = numpy.array([(labels[part] == kind).sum() for part in parts])
            bars[str(kind)] = axes.barh(nodes, counts, left=counted, color=colours(at))
            counted += counts
        others = numpy.array([len(part) for part in parts]) - counted
        if others.any():
            bars["others"] = axes.barh(nodes, others, left=counted, color="#b0b0b0")
        axes.legend(
            bars.values(),
            map(visible, bars),
            title="label",
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            frameon=False,
        )
    axes.invert_yaxis()
    axes.set_xlabel("records")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
