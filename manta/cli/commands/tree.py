"""`manta tree`: a supervision tree, and which actors crashed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from manta.cli.options import with_api
from manta.console import json_form, text
from manta.console.lines import Line, Words, styled
from manta.console.terminal import Screen

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI
    from manta.protocol.tree import Tree, TreeActor

_COLOURS = {"running": "green", "starting": "yellow", "stopping": "yellow"}


@click.command()
@click.option("--node", help="Show this node's tree (alias or id) instead of the manager's.")
@with_api
def tree(api: UserAPI, node: str | None, as_json: bool) -> None:
    """Show a supervision tree: state, restarts and last exit of each actor. For administrators."""
    found = api.get_tree(node)
    if as_json:
        json_form.show(found.actors)
    else:
        screen = Screen()
        screen.show(lines(found, screen.room))


def lines(found: Tree, room: int | None) -> list[Line]:
    """Makes a table with the paths drawn as a tree."""
    header = [styled(name, bold=True) for name in ("ACTOR", "STATE", "UP FOR", "RESTARTS")]
    header.append(styled("LAST EXIT", bold=True))
    names = _branches([actor.path for actor in found.actors])
    rows = [[name, *_cells(actor)] for name, actor in zip(names, found.actors, strict=True)]
    return text.table(header, rows, right=(2, 3), room=room)


def _cells(actor: TreeActor) -> list[Words]:
    state = styled(actor.state, fg=_COLOURS.get(actor.state, "red"))
    up = text.seconds(actor.seconds) if actor.actor else ""
    restarts = str(actor.restarts) if actor.restarts else ""
    return [state, up, styled(restarts, fg="yellow"), actor.last_exit]


def _branches(paths: list[str]) -> Iterator[Words]:
    """Yields `├─ name` for each path, below its supervisor."""
    known = set(paths)
    above = {path: _above(known, path) for path in paths}
    last = {parent: path for path, parent in above.items()}
    margins: dict[str, str] = {}
    for path, parent in above.items():
        if not parent:
            margins[path] = ""
            yield path
            continue
        branch, margin = ("└─ ", "   ") if last[parent] == path else ("├─ ", "│  ")
        margins[path] = margins[parent] + margin
        yield styled(margins[parent] + branch, dim=True) + path[len(parent) + 1 :]


def _above(known: set[str], path: str) -> str:
    """Returns the supervisor's path; the id of a child may contain slashes."""
    while path := path.rpartition("/")[0]:
        if path in known:
            return path
    return ""
