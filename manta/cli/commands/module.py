"""`manta module ...`"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from manta.cli.options import with_api
from manta.cli.tables import age, emit, field, show_record
from manta.console import text
from manta.console.commands import Group, say
from manta.console.terminal import Screen

if TYPE_CHECKING:
    from manta.apis.overviews import ModuleOverview
    from manta.apis.user_api import UserAPI

_COLUMNS = {
    "id": field("id"),
    "name": field("name"),
    "version": field("version"),
    "digest": lambda module: (module["digest"] or "")[:12],
    "size": lambda module: text.size(module["size"]),
    "image": field("image"),
    "shared with": lambda module: ", ".join(one["cluster_name"] for one in module["shared"]),
    "sent": age("updated_at"),
}
_version_option = click.option("--version", help="A version, or a range such as '>=1.0,<2'.")


@click.group(cls=Group)
def module() -> None:
    """Register modules; a module is given by name, id, or the beginning of an id."""


@module.command()
@click.argument("program", metavar="PATH")
@click.option("--name", help="The module's name.  [default: that of the file or folder]")
@click.option("--version", help="MAJOR.MINOR.PATCH, whose content never changes.")
@click.option("--image", help="The container image to run it in.")
@click.option("--dataset", "datasets", multiple=True, help="A dataset that it reads.")
@click.option("--include", multiple=True, help="A file or folder to pack beside it.")
@with_api
def push(
    api: UserAPI,
    program: str,
    name: str | None,
    version: str | None,
    image: str | None,
    datasets: tuple[str, ...],
    include: tuple[str, ...],
    as_json: bool,
) -> None:
    """Register the file or package folder at PATH, so that swarms can use it by name.

    Pushing the same content again gives the same module. Without --version, any content is
    accepted.
    """
    from manta.apis.module import Module
    from manta.cli.notes import notes_shown

    made = Module(program, image, name, datasets, version, include=include)
    with notes_shown(lambda note: Screen(sys.stderr).show([note])):
        sent = api.send_module(made)
    named = f"{sent.name} {sent.version}" if sent.version else sent.name
    say(sent, f"Registered module {named} ({sent.id}).", as_json=as_json)


@module.command("list")
@click.argument("name", required=False)
@with_api
def list_(api: UserAPI, name: str | None, as_json: bool) -> None:
    """List registered modules, or those called NAME."""
    records = [found for found in api.list_modules() if name in (None, found.name)]
    nothing = "No modules yet: register one with `manta module push PATH`."
    if name is not None:
        nothing = f"No module is called {name}; `manta module list` shows all."
    emit(records, _COLUMNS, as_json=as_json, nothing=nothing)


@module.command()
@click.argument("name", metavar="MODULE")
@_version_option
@with_api
def show(api: UserAPI, name: str, version: str | None, as_json: bool) -> None:
    """Show MODULE: of a name, the highest version allowed, or the last one sent."""
    columns = {
        **_COLUMNS,
        "digest": field("digest"),
        "datasets": lambda module: ", ".join(module["datasets"]),
        "requirements": lambda module: ", ".join(module["requirements"]),
        "owner": field("owner_id"),
    }
    show_record(api.get_module(name, version), columns, as_json=as_json)


@module.command()
@click.argument("name", metavar="MODULE")
@click.option("--cluster", required=True, help="The cluster whose members may use it.")
@_version_option
@with_api
def share(api: UserAPI, name: str, cluster: str, version: str | None, as_json: bool) -> None:
    """Share your MODULE with a cluster: who may read modules there sees it and can use it."""
    _say_shared(api.share_module(name, cluster, version), "Shared", "with", cluster, as_json)


@module.command()
@click.argument("name", metavar="MODULE")
@click.option("--cluster", required=True, help="The cluster that it is shared with.")
@_version_option
@with_api
def unshare(api: UserAPI, name: str, cluster: str, version: str | None, as_json: bool) -> None:
    """End the sharing of MODULE with a cluster; swarms that were sent with it keep it."""
    found = api.unshare_module(name, cluster, version)
    _say_shared(found, "No longer shared:", "in", cluster, as_json)


def _say_shared(module: ModuleOverview, did: str, where: str, cluster: str, as_json: bool) -> None:
    named = f"{module.name} {module.version}" if module.version else module.name
    say(module, f"{did} module {named} ({module.id}) {where} {cluster}.", as_json=as_json)


@module.command("rm")
@click.argument("name", metavar="MODULE")
@_version_option
@with_api
def remove(api: UserAPI, name: str, version: str | None, as_json: bool) -> None:
    """Remove MODULE; swarms that were sent with it keep it."""
    api.remove_module(name, version)
    gone = {"module": name, "version": version, "removed": True}
    say(gone, f"Removed module {name}{f' {version}' if version else ''}.", as_json=as_json)
