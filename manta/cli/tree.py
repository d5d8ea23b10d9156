"""`manta tree`: who supervises whom, and what has crashed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from manta.cli.common import as_json_option, with_api
from manta.console import json_form, text
from manta.console.terminal import Screen

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI
    from manta.protocol.tree import Tree, TreeActor

_COLOURS = {"running": "green", "starting": "yellow", "stopping": "yellow"}


@click.command()
@click.option("--node", help="The tree of this node, by alias or id; else the manager's.")
@as_json_option
@with_api
def tree(api: UserAPI, node: str | None, as_json: bool) -> None:
    """Show a supervision tree: state, restarts and last exit of each actor; for administrators."""
    found = api.get_tree(node)
    if as_json:
        json_form.show(found.actors)
    else:
        screen = Screen()
        screen.show(lines(found, screen.room))


def lines(found: Tree, room: int | None) -> list[str]:
    """A table, the paths drawn as a tree."""
    header = [click.style(name, bold=True) for name in ("ACTOR", "STATE", "UP FOR", "RESTARTS")]
    header.append(click.style("LAST EXIT", bold=True))
    paths = [actor.path for actor in found.actors]
    rows = [[_branch(paths, i), *_cells(actor)] for i, actor in enumerate(found.actors)]
    shown = text.table(header, rows, right=(2, 3), room=room)
    return [*shown, *([f"... and {found.left_out} more"] if found.left_out else [])]


def _cells(actor: TreeActor) -> list[str]:
    state = click.style(actor.state, fg=_COLOURS.get(actor.state, "red"))
    up = text.seconds(actor.seconds) if actor.actor else ""
    restarts = str(actor.restarts) if actor.restarts else ""
    return [state, up, click.style(restarts, fg="yellow"), actor.last_exit]


def _branch(paths: list[str], index: int) -> str:
    """`├─ name`, below the names of those that supervise it."""
    path = paths[index]
    above = _above(paths, path)
    if not above:
        return path
    name, drawn = path[len(above) + 1 :], ""
    while above:
        last = all(_above(paths, other) != above for other in paths[paths.index(path) + 1 :])
        if drawn:
            drawn = ("   " if last else "│  ") + drawn
        else:
            drawn = "└─ " if last else "├─ "
        path, above = above, _above(paths, above)
    return click.style(drawn, dim=True) + name


def _above(paths: list[str], path: str) -> str:
    """Who supervises it: a child's id may have slashes of its own."""
    while path := path.rpartition("/")[0]:
        if path in paths:
            return path
    return ""
