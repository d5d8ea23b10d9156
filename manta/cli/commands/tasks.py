"""`manta stack`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from manta.cli.options import with_api
from manta.console import json_form
from manta.console.terminal import print_lines
from manta.console.visible import visible_lines

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI


@click.command()
@click.argument("task")
@with_api
def stack(api: UserAPI, task: str, as_json: bool) -> None:
    """Show where the threads of TASK, which runs, and of its processes stand now.

    TASK is SWARM.ALIAS, with .INDEX where several instances run, as in `manta explain`.
    """
    found = api.get_stacks(task)
    if as_json:
        json_form.show(found)
        return
    attempt = f" (attempt {found.attempt + 1})" if found.attempt else ""
    name = f"{found.alias}.{found.index} in iteration {found.iteration}{attempt}"
    shown = [f"  {line}" for line in visible_lines(found.text)]  # so that none looks like ours
    print_lines(f"{name} on {found.node_alias}:", *shown)
