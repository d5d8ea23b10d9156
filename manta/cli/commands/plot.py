"""`manta plot`: what tasks logged with log_metrics, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manta.cli.exit_codes import unwritable
from manta.cli.options import connects, usage
from manta.console import json_form
from manta.console.commands import say
from manta.console.terminal import Screen

if TYPE_CHECKING:
    from manta.apis.curves import Axis, By, Graph
    from manta.apis.user_api import UserAPI


@click.command()
@click.argument("swarm")
@click.argument("metrics", metavar="[METRIC]...", nargs=-1)
@click.option(
    "--by",
    type=click.Choice(["mean", "node"]),
    default="mean",
    show_default=True,
    help="A curve of means over a task's instances, or one for each node.",
)
@click.option(
    "--x",
    "axis",
    type=click.Choice(["iteration", "step"]),
    help="What goes to the right.  [default: step where it identifies each value]",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Draw a file: .png, .svg or .pdf."
)
@connects
def plot(
    connect: Callable[[], UserAPI],
    swarm: str,
    metrics: tuple[str, ...],
    by: By,
    axis: Axis | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Draw the METRICs of SWARM, or all of them, as they are so far.

    Without -o, the charts are of characters, for a terminal. A value that is NaN or infinite is a
    gap. Of what an instance logged several times at the same iteration or step, the last counts.
    """
    from manta.apis import picture
    from manta.apis.curves import graphs

    if output is not None:
        usage(lambda: picture.check(output))
    with connect() as api:
        of = api.get_swarm(swarm)
        found = api.get_metrics(of)
    drawn = usage(lambda: graphs(found, metrics, by=by, axis=axis))
    if output is not None:
        try:
            picture.draw(output, drawn, f"{of.name}, {of.status}")
        except OSError as error:
            raise unwritable(output, error) from None
        record = {"output": str(output), "graphs": _records(drawn)}
        say(record, f"{output}: {', '.join(graph.metric for graph in drawn)}.", as_json=as_json)
    elif as_json:
        json_form.show({"output": None, "graphs": _records(drawn)})
    else:
        _show(drawn)


def _records(graphs: Sequence[Graph]) -> list[dict[str, Any]]:
    return [
        {
            "metric": graph.metric,
            "axis": graph.axis,
            "curves": [curve._asdict() for curve in graph.curves],
        }
        for graph in graphs
    ]


def _show(graphs: Sequence[Graph]) -> None:
    from manta.cli.chart import chart

    screen = Screen()
    plain = not _is_utf8(screen.stream.encoding)
    for number, graph in enumerate(graphs):
        lines = chart(graph, screen.columns - 1, plain=plain)
        screen.show(["", *lines] if number else lines)


def _is_utf8(encoding: str | None) -> bool:
    return (encoding or "").replace("-", "").lower() == "utf8"
