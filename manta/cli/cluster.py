"""`manta cluster ...`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from manta.cli.common import as_json_option, emit, field, with_api

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI

_COLUMNS = {
    "id": field("id"),
    "name": field("name"),
    "status": field("status"),
    "nodes": field("node_count"),
}


@click.group()
def cluster() -> None:
    """Create, list, start, stop and delete clusters; each is given by name or id."""


@cluster.command()
@click.argument("name")
@with_api
def create(api: UserAPI, name: str) -> None:
    """Create the cluster NAME and start it."""
    made = api.create_cluster(name)
    click.echo(f"Cluster {made.name} ({made.id}) is {made.status}.")


@cluster.command("list")
@as_json_option
@with_api
def list_(api: UserAPI, as_json: bool) -> None:
    """List clusters."""
    emit(
        [dict(found) for found in api.list_clusters()],
        _COLUMNS,
        as_json=as_json,
        nothing="No clusters yet: make one with `manta cluster create NAME`.",
    )


@cluster.command()
@click.argument("name")
@with_api
def start(api: UserAPI, name: str) -> None:
    """Start the cluster NAME."""
    started = api.start_cluster(name)
    click.echo(f"Cluster {started.name} is {started.status}.")


@cluster.command()
@click.argument("name")
@with_api
def stop(api: UserAPI, name: str) -> None:
    """Stop the cluster NAME and its swarms."""
    stopped = api.stop_cluster(name)
    click.echo(f"Cluster {stopped.name} is {stopped.status}.")


@cluster.command()
@click.argument("name")
@click.confirmation_option("--yes", prompt="Delete the cluster with its swarms and results?")
@with_api
def delete(api: UserAPI, name: str) -> None:
    """Delete the cluster NAME."""
    api.delete_cluster(name)
    click.echo(f"Cluster {name} is deleted.")
