"""`manta node ...`"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

import click

from manta.cli.options import with_api
from manta.cli.tables import Record, age, emit, field, ident, show_fields, state
from manta.console import text
from manta.console.commands import Group, say
from manta.console.terminal import print_lines

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI
    from manta.protocol.machine import Capabilities, DatasetInfo, Load


def _tasks(node: Record) -> str:
    return f"{node['load'].tasks_running}/{node['platform_info'].max_concurrent_tasks}"


def _memory(node: Record) -> str:
    return text.size(node["platform_info"].memory)


_COLUMNS = {
    "id": ident("id"),
    "alias": field("alias"),
    "status": state("status"),
    "tasks": _tasks,
    "cores": lambda node: str(node["platform_info"].cores),
    "memory": _memory,
    "datasets": lambda node: ", ".join(node["datasets"]),
    "seen": age("last_seen"),
}


_LINKS = {
    "node": field("node"),
    "peer": field("peer"),
    "link": state("kind"),
    "since": age("since"),
    "out": lambda link: text.size(link["sent"]),
    "in": lambda link: text.size(link["received"]),
    "round trip": lambda link: text.seconds(link["round_trip"]) if link["round_trip"] else "",
    "error": field("error"),
}


class NodeGroup(Group):
    """Nodes as the manager knows them; their daemons are `manta_node`'s."""

    def elsewhere(self, words: list[str]) -> str | None:
        from manta.cli.former import answer_of_node

        return answer_of_node(words)


@click.group(cls=NodeGroup)
def node() -> None:
    """List and remove nodes, and create tokens for new ones; a node is given by alias or id."""


@node.command("list")
@click.argument("cluster")
@with_api
def list_(api: UserAPI, cluster: str, as_json: bool) -> None:
    """List the nodes of CLUSTER."""
    found = api.list_nodes(cluster)
    emit(
        found,
        _COLUMNS,
        as_json=as_json,
        nothing=f"No nodes yet: `manta node token {cluster}` creates a token for one.",
    )
    for each in found:
        if each.notice and not as_json:
            print_lines(f"{each.alias}: {each.notice}")


def _cpu(has: Capabilities, load: Load) -> str:
    of = f" ({has.physical_cores} physical)" if has.physical_cores else ""
    told = [has.processor] if has.processor else []
    told.append(text.count(has.cores, "core") + of)
    told += [f"{has.cpu_frequency / 1000:.2g} GHz"] if has.cpu_frequency else []
    return ", ".join([*told, f"{load.cpu_usage:.0%} used", f"load {load.load_average:.2f}"])


def _disk(has: Capabilities, load: Load) -> str:
    told = [text.size(has.disk_size)] if has.disk_size else []
    told.append(f"{text.size(load.disk_free)} free")
    told += [f"writes {text.size(has.disk_speed)}/s"] if has.disk_speed else []
    told += [f"{text.size(has.scratch)} for each task's scratch"] if has.scratch else []
    return ", ".join(told)


def _gpus(has: Capabilities, load: Load) -> list[str]:
    """One by one, with what tasks have of them."""
    found = []
    for gpu, room in zip_longest(has.gpus, load.gpu_room):
        if gpu is None:
            break  # one that it has no more
        versions = [gpu.driver and f"driver {gpu.driver}"]
        versions += [gpu.toolkit and f"{gpu.kind.upper()} {gpu.toolkit}"]
        whole = room is None or room == gpu.memory
        use = "free" if whole else "taken" if room < 0 else f"{text.size(room)} free"
        found.append(", ".join(filter(None, [gpu.name, text.size(gpu.memory), *versions, use])))
    return found or ["none"]


@node.command()
@click.argument("name")
@click.option("--cluster", help="The cluster, if several have a node of that name.")
@with_api
def show(api: UserAPI, name: str, cluster: str | None, as_json: bool) -> None:
    """Show the node NAME and its resources."""
    found = api.get_node(name, cluster)
    has = found.platform_info
    rows = [
        ("id", found.id),
        ("alias", found.alias),
        ("status", found.status),
        *([("notice", found.notice)] if found.notice else ()),
        ("host", f"{has.hostname}, {has.system}, {has.architecture}"),
        ("cpu", _cpu(has, found.load)),
        ("memory", f"{text.size(has.memory)}, {text.size(found.load.memory_available)} free"),
        ("disk", _disk(has, found.load)),
        *(("gpu", line) for line in _gpus(has, found.load)),
        ("runners", f"{', '.join(has.runners)} (isolation: {has.isolation})"),
        ("kernel", ", ".join(has.security) or "nothing known"),
        ("engine", has.engine or "none"),
        *([("images", ", ".join(has.images))] if has.images else ()),
        ("python", f"{has.python}, manta {has.manta}"),
        ("tasks", f"{found.load.tasks_running} of {has.max_concurrent_tasks} at most"),
        ("labels", ", ".join(f"{key}={value}" for key, value in has.labels.items()) or "none"),
        *(
            ("dataset", f"{dataset.name}: {_dataset(dataset)}")
            for dataset in found.datasets.values()
        ),
    ]
    show_fields(found, rows, as_json=as_json)


def _dataset(found: DatasetInfo) -> str:
    said = [found.format, text.size(found.size)]
    if found.rows is not None:
        said.append(f"{found.rows:,} rows")
    if found.version:
        said.append(f"version {found.version}")
    if found.digest:
        said.append(f"digest {found.digest[:12]}")
    return ", ".join(said)


@node.command()
@click.argument("name", required=False)
@click.option("--cluster", help="The cluster, if several have a node of that name.")
@with_api
def links(api: UserAPI, name: str | None, cluster: str | None, as_json: bool) -> None:
    """Show how the node NAME, or each, is linked with others whose tasks it exchanges values with.

    A link is direct, local (nodes of one user on one machine share large values), relayed (as
    ciphertext, through the manager or another node) or down.
    """
    if name is not None:
        found = api.list_node_links(name, cluster)
    else:
        where = [cluster] if cluster is not None else [one.id for one in api.list_clusters()]
        nodes = [one for each in where for one in api.list_nodes(each)]
        found = [link for one in nodes for link in api.list_node_links(one)]
    nothing = "No links: nodes have them while their tasks exchange values."
    emit(found, _LINKS, as_json=as_json, nothing=nothing)


@node.command()
@click.argument("cluster")
@click.option(
    "--uses",
    default=1,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="How many nodes can enrol with it.",
)
@click.option(
    "--ttl",
    default=900.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds until it expires, at most a day (86400).",
)
@with_api
def token(api: UserAPI, cluster: str, uses: int, ttl: float, as_json: bool) -> None:
    """Print a token with which new nodes enrol in CLUSTER (`MANTA_NODE_TOKEN`)."""
    made = api.create_node_token(cluster, uses, ttl)
    say({"token": made, "cluster": cluster, "uses": uses, "ttl": ttl}, made, as_json=as_json)


@node.command()
@click.argument("name")
@click.option("--drain", is_flag=True, help="Let running tasks finish first.")
@with_api
def stop(api: UserAPI, name: str, drain: bool, as_json: bool) -> None:
    """Stop the daemon of the node NAME."""
    found = api.get_node(name)
    api.stop_node(found, drain)
    said = {"id": found.id, "alias": found.alias, "told": "drain" if drain else "stop"}
    say(said, f"Node {found.alias} ({found.id}) was told to stop.", as_json=as_json)


@node.command()
@click.argument("name")
@with_api
def drain(api: UserAPI, name: str, as_json: bool) -> None:
    """Let the node NAME finish its running tasks, without new ones, then stop its daemon."""
    found = api.get_node(name)
    api.drain_node(found)
    said = {"id": found.id, "alias": found.alias, "told": "drain"}
    say(said, f"Node {found.alias} ({found.id}) was told to drain.", as_json=as_json)


@node.command("rm")
@click.argument("name")
@click.confirmation_option("--yes", prompt="Remove the node? It can come back only with a token.")
@with_api
def remove(api: UserAPI, name: str, as_json: bool) -> None:
    """Remove the node NAME and its key."""
    found = api.get_node(name)
    api.remove_node(found)
    gone = {"id": found.id, "alias": found.alias, "removed": True}
    say(gone, f"Removed node {found.alias} ({found.id}).", as_json=as_json)
