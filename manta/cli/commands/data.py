"""`manta data`: data sets for experiments."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from manta.apis.errors import InvalidArgument
from manta.cli.exit_codes import LocalError, unwritable
from manta.console import text
from manta.console.commands import say
from manta.console.exit_codes import Exit

_MOST_LABELS = 12
"""Columns of the table of labels."""
_LABELS = ("y", "label", "labels", "target", "targets")


@click.group()
def data() -> None:
    """Data sets for experiments."""


@data.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--nodes", type=click.IntRange(1, 100_000), help="How many nodes share it.")
@click.option("--iid", is_flag=True, help="Shuffled and divided evenly.")
@click.option("--dirichlet", type=float, metavar="ALPHA", help="By label: 100 even, 0.1 skewed.")
@click.option("--shards", type=int, metavar="COUNT", help="By label, so many pieces for each node.")
@click.option("--quantity", type=float, metavar="ALPHA", help="By amount, skewed alike.")
@click.option("--by-id", metavar="COLUMN", help="All records of one id to one node.")
@click.option("--by-time", metavar="COLUMN", help="The earliest to the first node, and so on.")
@click.option("--labels", metavar="COLUMN", help=f"Where the labels are (or {', '.join(_LABELS)}).")
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@click.option("--minimum", type=int, default=1, show_default=True, help="Records of each node.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder (NAME-shards).")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw it: .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def partition(
    file: Path,
    nodes: int | None,
    iid: bool,
    dirichlet: float | None,
    shards: int | None,
    quantity: float | None,
    by_id: str | None,
    by_time: str | None,
    labels: str | None,
    seed: int,
    minimum: int,
    output: Path | None,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Divide FILE among nodes, for `manta run --dataset`.

    FILE is .npz, whose arrays have one entry for each record, .csv or .parquet. Each node gets a
    file of that kind, node0 and so on, in a new folder. Choose one way to divide; without --nodes,
    each id of --by-id is a node.
    """
    from manta.apis.picture import check
    from manta.federated import picture
    from manta.federated.tables import column, read

    ways = {
        "--iid": iid or None,
        "--dirichlet": dirichlet,
        "--shards": shards,
        "--quantity": quantity,
        "--by-id": by_id,
        "--by-time": by_time,
    }
    chosen = [way for way, value in ways.items() if value is not None]
    if len(chosen) != 1:
        given = " and ".join(chosen) or "none"
        raise click.UsageError(f"Choose one of {', '.join(ways)}: you gave {given}.")
    if nodes is None and by_id is None:
        raise click.UsageError("Say with --nodes how many nodes share it.")
    if plot is not None:
        check(plot)
    table = read(file)
    name = labels or next((one for one in _LABELS if one in table.columns), None)
    kinds = None if name is None else column(table, file, name)
    if kinds is None and chosen[0] in ("--dirichlet", "--shards"):
        raise InvalidArgument(
            f"{chosen[0]} needs labels, and {file} has none of {', '.join(_LABELS)}: say with "
            f"--labels where they are ({', '.join(table.columns)})."
        )
    parts = _divided(
        chosen[0],
        ways[chosen[0]],
        lambda of: column(table, file, of),
        (table.records, kinds, nodes),
        seed=seed,
        minimum=minimum,
    )
    folder = output or file.with_name(f"{file.stem}-shards")
    _check_new(folder)
    if plot is not None:
        try:
            picture.draw(plot, parts, kinds, f"{file.name}, {chosen[0].lstrip('-')}")
        except OSError as error:
            raise unwritable(plot, error) from None
    _write(folder, table, parts)
    pattern = f"{folder}/node{{i}}{table.suffix}"
    records = {
        "folder": str(folder),
        "nodes": [len(part) for part in parts],
        "dataset": pattern,
        "plot": None if plot is None else str(plot),
    }
    lines = [
        *_table(parts, kinds),
        "",
        f"{text.count(len(parts), 'file')} in {folder}: --dataset {file.stem}='{pattern}'",
    ]
    say(records, lines, as_json=as_json)
    return Exit.OK


def _divided(
    way: str,
    value: Any,
    column: Callable[[str], Any],
    of: tuple[int, Any, int | None],
    *,
    seed: int,
    minimum: int,
) -> list[Any]:
    from manta.federated import partition as ways

    records, labels, nodes = of
    least = {"minimum": minimum}
    if way == "--by-id":
        return ways.by_id(column(value), nodes, seed=seed, **least)
    assert nodes is not None
    if way == "--by-time":
        return ways.by_time(column(value), nodes, **least)
    if way == "--iid":
        return ways.iid(records, nodes, seed=seed, **least)
    if way == "--quantity":
        return ways.quantity(records, nodes, alpha=value, seed=seed, **least)
    if way == "--shards":
        return ways.shards(labels, nodes, per_node=value, seed=seed, **least)
    return ways.dirichlet(labels, nodes, alpha=value, seed=seed, **least)


def _check_new(folder: Path) -> None:
    if os.path.lexists(folder):
        raise LocalError(f"{folder} is there already: remove it, or name another (-o).")


def _write(folder: Path, table: Any, parts: list[Any]) -> None:
    """Writes all files, or leaves nothing."""
    try:
        os.makedirs(folder)
        for at, part in enumerate(parts):
            table.write(folder / f"node{at}{table.suffix}", part)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise unwritable(folder, error) from None


def _table(parts: list[Any], labels: Any | None) -> list[Any]:
    """How many records each node has, by label where they are few."""
    if labels is None:
        return text.table(
            ("node", "records"),
            [(str(at), str(len(part))) for at, part in enumerate(parts)],
            right=(1,),
        )
    import numpy

    kinds = numpy.unique(labels)[:_MOST_LABELS]
    rows = [
        (str(at), str(len(part)), *(str((labels[part] == kind).sum()) for kind in kinds))
        for at, part in enumerate(parts)
    ]
    return text.table(
        ("node", "records", *map(str, kinds)), rows, right=tuple(range(1, 2 + len(kinds)))
    )
