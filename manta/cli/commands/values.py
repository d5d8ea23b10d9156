"""`manta globals` and `manta metrics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from manta.cli.options import follow_option, with_api
from manta.cli.tables import brief, emit, emit_lines, field
from manta.console import text

if TYPE_CHECKING:
    from manta.apis.overviews import MetricsOverview
    from manta.apis.user_api import UserAPI


@click.command("globals")
@click.argument("swarm")
@click.option("--tag", help="Only this tag.")
@with_api
def globals_(api: UserAPI, swarm: str, tag: str | None, as_json: bool) -> None:
    """Show the current globals of SWARM; large arrays as type and shape."""
    tags = api.list_global_tags(swarm) if tag is None else [tag]
    records = [{"tag": name, "value": api.select_global(swarm, name)} for name in tags]
    columns = {"tag": field("tag"), "value": lambda record: brief(record["value"])}
    emit(records, columns, as_json=as_json, nothing="No globals have been set.")


@click.command()
@click.argument("swarm")
@follow_option
@with_api
def metrics(api: UserAPI, swarm: str, follow: bool, as_json: bool) -> None:
    """Show what the tasks of SWARM logged with log_metrics; with --json, an object per line."""
    items = (api.stream_metrics if follow else api.get_metrics)(swarm)
    emit_lines(items, _line, as_json=as_json)


def _line(item: MetricsOverview) -> str:
    step = "" if item.step is None else f" step {item.step}"
    numbers = "  ".join(f"{name} {text.number(value)}" for name, value in item.metrics.items())
    where = f"{item.alias}.{item.index} on {item.node_alias}"
    return f"iteration {item.iteration}{step}  {where}  {numbers}"
