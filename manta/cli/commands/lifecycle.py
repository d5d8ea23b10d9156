"""`manta stop`, `pause`, `resume` and `rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from manta.cli.options import with_api
from manta.console import json_form
from manta.console.commands import say
from manta.console.terminal import print_lines

if TYPE_CHECKING:
    from manta.apis.overviews import SwarmOverview
    from manta.apis.user_api import UserAPI


@click.command()
@click.argument("swarm")
@click.option("--force", is_flag=True, help="Kill its tasks at once instead of asking them to end.")
@with_api
def stop(api: UserAPI, swarm: str, force: bool, as_json: bool) -> None:
    """Stop SWARM; what it has written stays."""
    _say(api.stop_swarm(swarm, force), as_json=as_json)


@click.command()
@click.argument("swarm")
@with_api
def pause(api: UserAPI, swarm: str, as_json: bool) -> None:
    """Pause SWARM: running tasks go on, no new ones start."""
    _say(api.pause_swarm(swarm), as_json=as_json)


@click.command()
@click.argument("swarm")
@with_api
def resume(api: UserAPI, swarm: str, as_json: bool) -> None:
    """Resume SWARM, which was paused."""
    _say(api.resume_swarm(swarm), as_json=as_json)


@click.command()
@click.argument("swarms", nargs=-1, required=True, metavar="SWARM...")
@click.option("--stop", "stop_first", is_flag=True, help="Stop swarms that are still running.")
@with_api
def rm(api: UserAPI, swarms: tuple[str, ...], stop_first: bool, as_json: bool) -> None:
    """Remove each SWARM, which must have ended, with its results and logs."""
    for name in swarms:
        swarm = api.get_swarm(name)
        if stop_first and not swarm.ended:
            api.stop_swarm(swarm)
        api.remove_swarm(swarm)
        gone = {"swarm_id": swarm.swarm_id, "name": swarm.name, "removed": True}
        if as_json:
            json_form.show_line(gone)
        else:
            print_lines(f"Removed swarm {swarm.name} ({swarm.swarm_id}).")


def _say(swarm: SwarmOverview, *, as_json: bool) -> None:
    sentence = f"Swarm {swarm.name} ({swarm.swarm_id}) is {swarm.status}."
    say(swarm, sentence, as_json=as_json)
