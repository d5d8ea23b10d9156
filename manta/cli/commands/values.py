"""`manta globals` and `manta metrics`."""

from __future__ import annotations

import io
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manta.cli.exit_codes import unwritable
from manta.cli.options import follow_option, usage, with_api
from manta.cli.tables import brief, emit, emit_lines, field
from manta.console import text
from manta.console.home import home_folder
from manta.console.terminal import print_lines

if TYPE_CHECKING:
    from manta.apis.metrics import Metrics
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
@click.option("--csv", "as_csv", is_flag=True, help="Print a table as CSV, a column per metric.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="With --csv, a file for it.")
@click.option(
    "--to",
    "target",
    metavar="KIND:WHERE",
    help="Send them to tensorboard:DIR, mlflow:URI or wandb:PROJECT until the swarm "
    "ends, from where it was left the time before.",
)
@with_api
def metrics(
    api: UserAPI,
    swarm: str,
    follow: bool,
    as_csv: bool,
    output: Path | None,
    target: str | None,
    as_json: bool,
) -> None:
    """Show what the tasks of SWARM logged with log_metrics; with --json, an object per line."""
    if target is not None:
        if follow or as_csv or as_json or output is not None:
            raise click.UsageError(
                "--to follows by itself and prints nothing of them: leave the other options out."
            )
        _send(api, swarm, target)
        return
    if as_csv:
        if follow or as_json:
            raise click.UsageError("--csv prints what there is so far: leave -f and --json out.")
        _table(api.get_metrics(swarm), output)
        return
    if output is not None:
        raise click.UsageError("-o needs --csv.")
    items = (api.stream_metrics if follow else api.get_metrics)(swarm)
    emit_lines(items, _line, as_json=as_json)


def _send(api: UserAPI, swarm: str, target: str) -> None:
    from manta.cli.tracking import trackers
    from manta.cli.tracking.forwarding import Cursor, forward

    target = usage(lambda: trackers.named(target))
    of = api.get_swarm(swarm)
    with closing(Cursor(home_folder(), of.swarm_id, target)) as cursor:
        pages = api.connection.pages(of.swarm_id, "metrics", after=cursor.value, follow=True)
        count = forward(pages, lambda: trackers.connect(target, of), cursor, time.sleep)
    print_lines(f"{target}: {text.count(count, 'record')} of {of.name} sent.")


def _table(found: Metrics, output: Path | None) -> None:
    if output is None:
        content = io.StringIO()
        found.write_csv(content)
        print_lines(*content.getvalue().split("\n")[:-1])
        return
    try:
        found.to_csv(output)
    except OSError as error:
        raise unwritable(output, error) from None
    print_lines(f"{output}: {text.count(len(found), 'row')}.")


def _line(item: MetricsOverview) -> str:
    step = "" if item.step is None else f" step {item.step}"
    numbers = "  ".join(f"{name} {text.number(value)}" for name, value in item.metrics.items())
    where = f"{item.alias}.{item.index} on {item.node_alias}"
    return f"iteration {item.iteration}{step}  {where}  {numbers}"
