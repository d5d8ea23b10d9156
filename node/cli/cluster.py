"""`manta_node cluster`: several nodes on this machine."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from manta.console.commands import Group, as_json_option, show_example
from manta.console.exit_codes import Exit
from manta.console.terminal import print_lines
from manta.node.daemon import places
from manta.node.errors import Flaw, NoConfig, UnknownName

MOST = 256
COUNT = click.IntRange(1, MOST)


class ClusterGroup(Group):
    """Resolves `cluster 3` to the command that asks for each node's configuration."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0].lstrip("-").isdecimal():
            return "N", ask, args
        return super().resolve_command(ctx, args)


@click.group(cls=ClusterGroup, subcommand_metavar="N | COMMAND [ARGS]...")
def cluster() -> None:
    """Run several nodes on this machine: each has a state folder, a key and an id of its own.

    `manta_node cluster N` asks for the configuration of each of N nodes that has none, then
    starts them all.
    """


class _Count(click.Argument):
    """An argument that is part of the command's name, so that its usage omits it."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        return "'N'"


@click.command()
@click.argument("count", cls=_Count, metavar="", type=COUNT)
@click.option("--name", default="node", show_default=True, help="The nodes are NAME-1 to NAME-N.")
@as_json_option
def ask(count: int, name: str, as_json: bool) -> int:
    """Ask for the configuration of each of N nodes, then start them."""
    from manta.node.cli import init as config_init
    from manta.node.daemon import cluster as nodes

    for number in range(1, count + 1):
        own = f"{name}-{number}"
        path = places.config_path(own)
        if path.exists():
            print_lines(f"{own}: {path} is there already.", err=True)
            continue
        if not sys.stdin.isatty():
            wrong = "there is no such configuration, and no terminal to ask for it"
            make = f"make it with `manta_node config init {own}`"
            raise NoConfig(path, Flaw(wrong, make))
        print_lines(f"{own}:", err=True)
        config_init.make(own, path, config_init.unanswered())
    return _start(nodes.of_own_configurations(name, count), as_json)


@cluster.command()
@click.argument("count", metavar="N", type=COUNT)
@click.option(
    "--config",
    "name",
    default="default",
    show_default=True,
    metavar="NAME",
    help="The configuration that they share.",
)
@as_json_option
def start(count: int, name: str, as_json: bool) -> int:
    """Start N nodes of one configuration, in the background.

    Their ids and aliases end in -1 to -N; the token must be good for N nodes (`manta node token
    CLUSTER --uses N`). In the paths of datasets, {i} counts the nodes from 0 and {alias} is a
    node's alias. Nodes that run already are left alone.
    """
    from manta.node.daemon import cluster as nodes

    return _start(nodes.of_one_configuration(name, count), as_json)


def _start(planned: list[Any], as_json: bool) -> int:
    from manta.console import json_form
    from manta.node.daemon import background
    from manta.node.daemon import cluster as nodes

    nodes.check_token(planned, time.time())
    there = set(nodes.running({node.name: node.member for node in planned}))
    records, codes = [], []
    for name, error, code in nodes.start(planned):
        record = background.record(name, places.state_folder(name))
        records.append({**record, "error": error})
        if code is not None:
            codes.append(code)
        if as_json:
            continue
        if error is not None:
            print_lines(f"{name}: {error}")
        else:
            already = "runs already" if name in there else "runs"
            print_lines(f"{name}: {already} (process {record['pid']}). {record['sentence']}")
    if as_json:
        json_form.show(records)
    return max(codes, default=Exit.OK)


@cluster.command()
@click.option(
    "--config", "name", metavar="NAME", help="Only this cluster; without it, all of them."
)
@as_json_option
def stop(name: str | None, as_json: bool) -> int:
    """Stop all nodes that `manta_node cluster` started."""
    from manta.console import json_form
    from manta.node.daemon import cluster as nodes

    if name is not None:
        places.config_path(name)
    members = places.members(name)
    if name is not None and not members:
        known = sorted({member.cluster for member in places.members().values()})
        raise UnknownName(
            f"There is no cluster {name!r} on this machine: "
            + (f"there is {', '.join(known)}." if known else "none was ever started.")
        )
    records = list(nodes.stop(nodes.running(members)))
    if as_json:
        json_form.show(records)
    elif not records:
        print_lines("No node of a cluster is running.")
    for record in [] if as_json else records:
        print_lines(f"{record['name']}: {record['error'] or 'was stopped.'}")
    return Exit.LOCAL if any(record["error"] for record in records) else Exit.OK


show_example(start, "manta_node cluster start 3 --config edge")
show_example(stop, "manta_node cluster stop --config edge")
show_example(ask, "manta_node cluster 3")
