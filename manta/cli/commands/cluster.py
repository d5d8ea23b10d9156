"""`manta cluster ...`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from manta.cli.options import with_api
from manta.cli.tables import emit, field, ident, show_record, state
from manta.console.commands import Group, say

if TYPE_CHECKING:
    from manta.apis.overviews import ClusterOverview
    from manta.apis.user_api import UserAPI

_COLUMNS = {
    "id": ident("id"),
    "name": field("name"),
    "status": state("status"),
    "nodes": field("node_count"),
}


@click.group(cls=Group)
def cluster() -> None:
    """Create, list, start, stop and delete clusters; a cluster is given by name or id."""


@cluster.command()
@click.argument("name")
@with_api
def create(api: UserAPI, name: str, as_json: bool) -> None:
    """Create the cluster NAME and start it."""
    _say(api.create_cluster(name), as_json=as_json)


@cluster.command("list")
@with_api
def list_(api: UserAPI, as_json: bool) -> None:
    """List clusters."""
    emit(
        api.list_clusters(),
        _COLUMNS,
        as_json=as_json,
        nothing="No clusters yet: create one with `manta cluster create NAME`.",
    )


@cluster.command()
@click.argument("name")
@with_api
def show(api: UserAPI, name: str, as_json: bool) -> None:
    """Show the cluster NAME."""
    columns = {**_COLUMNS, "owner": field("owner_id")}
    show_record(api.get_cluster(name), columns, as_json=as_json)


@cluster.command()
@click.argument("name")
@with_api
def start(api: UserAPI, name: str, as_json: bool) -> None:
    """Start the cluster NAME."""
    _say(api.start_cluster(name), as_json=as_json)


@cluster.command()
@click.argument("name")
@with_api
def stop(api: UserAPI, name: str, as_json: bool) -> None:
    """Stop the cluster NAME and its swarms."""
    _say(api.stop_cluster(name), as_json=as_json)


@cluster.command("rm")
@click.argument("name")
@click.confirmation_option("--yes", prompt="Delete the cluster with its swarms and results?")
@with_api
def remove(api: UserAPI, name: str, as_json: bool) -> None:
    """Delete the cluster NAME with its swarms and what they wrote."""
    found = api.get_cluster(name)
    api.delete_cluster(found)
    gone = {"id": found.id, "name": found.name, "removed": True}
    say(gone, f"Deleted cluster {found.name} ({found.id}).", as_json=as_json)


def _say(found: ClusterOverview, *, as_json: bool) -> None:
    say(found, f"Cluster {found.name} ({found.id}) is {found.status}.", as_json=as_json)
